"""Laws of the log as columns of numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.geo import cell_of, centre_of
from core.ids import event_hash
from feature_repo.folds.act import ABSENT, ENGAGEMENT, UNKNOWN_PLACE
from feature_repo.folds.context import Record
from feature_repo.folds.entries import (
    ACT,
    FORGET,
    IMPRESSION,
    LATE_MS,
    LogEntry,
    columns,
    impression_hash,
    message_of,
)
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action
from tests.feature_repo.logs import CONTEXT, PARIS, START_MS, USER, decoded, forget, impression, interaction


def entry(activity: Activity, recorded_ms: int = START_MS) -> LogEntry:
    message = message_of(activity)
    assert message is not None
    return LogEntry(Record(2, 41, recorded_ms, recorded_ms), USER, message)


def test_each_kind_of_activity_is_an_entry_in_the_order_of_the_log() -> None:
    log = [entry(one) for one in (interaction("a"), impression("r", ["1"]), forget(), interaction("b", request="r"))]
    found = columns(log, [4, 4, 0, 9], CONTEXT)
    assert found.numbers["kind"].tolist() == [ACT, IMPRESSION, FORGET, ACT]
    assert found.numbers["slot"].tolist() == [4, 4, 0, 9]
    assert found.numbers["offset"].tolist() == [41] * 4
    assert [act is not None for act in found.acts] == [True, False, False, True]
    assert found.answering == [1, 2, 3]  # an act that names no request concerns no answer


def test_an_act_has_its_numbers_and_the_catalogues() -> None:
    row = decoded([interaction("a", "3", Action.ACTION_PLAY, START_MS + 7, play_ms=10_000)]).numbers[0]
    assert (row["at_ms"], row["item"], row["place"], row["action"]) == (START_MS + 7, 3, 3, Action.ACTION_PLAY)
    assert (row["play_ms"], row["duration_ms"]) == (10_000, 20_000)
    assert row["weight"] == pytest.approx(10 / 18)
    assert row["id_hash"] == event_hash("a")
    assert not row["positive"] and not row["late"]
    told = decoded([interaction("a", "3", play_ms=9_000, duration_ms=9_000)]).numbers[0]
    assert told["duration_ms"] == 9_000  # the event knows better than the catalogue
    assert told["positive"] and told["weight"] == ENGAGEMENT[Action.ACTION_LIKE]


def test_an_item_without_a_catalogue_has_a_key_and_no_place() -> None:
    row = decoded([interaction("a", "a name", Action.ACTION_VIEW)]).numbers[0]
    assert row["item"] >= 1 << 62
    assert (row["place"], row["play_ms"], row["duration_ms"]) == (UNKNOWN_PLACE, ABSENT, ABSENT)


def test_an_act_is_late_beyond_the_bound_and_not_at_it() -> None:
    log = [entry(interaction("a"), START_MS + LATE_MS), entry(interaction("b"), START_MS + LATE_MS + 1)]
    assert columns(log, [0, 0], CONTEXT).numbers["late"].tolist() == [False, True]


@given(st.floats(-89, 89), st.floats(-179, 179), st.integers(0, 9))
def test_a_location_is_no_finer_than_may_be_kept(latitude: float, longitude: float, resolution: int) -> None:
    context = CONTEXT._replace(location_resolution=resolution)
    row = decoded([interaction("a", location=(latitude, longitude))], context).numbers[0]
    cell = cell_of(latitude, longitude, resolution)
    assert row["cell"] == cell
    assert (row["latitude"], row["longitude"]) == centre_of(cell)
    assert row["popular_cell"] == cell_of(latitude, longitude, min(7, resolution))


def test_without_a_location_there_is_no_cell() -> None:
    row = decoded([interaction("a")]).numbers[0]
    assert (row["cell"], row["popular_cell"]) == (0, 0)
    assert decoded([interaction("a", location=PARIS)]).numbers[0]["cell"] != 0


def test_an_impression_is_no_event_of_the_same_name() -> None:
    assert impression_hash(impression("r", []).impression) != event_hash("r")


def test_no_entries_are_no_rows() -> None:
    found = columns([], [], CONTEXT)
    assert (len(found.numbers), found.acts, found.answering) == (0, [], [])
    assert found.numbers.dtype == decoded([interaction("a")]).numbers.dtype


def test_an_activity_of_an_unknown_kind_holds_nothing() -> None:
    assert message_of(Activity()) is None
    assert np.array([message_of(one) is not None for one in (interaction("a"), impression("r", []), forget())]).all()
