"""Laws of rows as ordinary values, and of the views that are derived from them."""

from pathlib import Path

import numpy as np
import pytest
from feast.repo_operations import get_repo_files
from hypothesis import given

from core.errors import InputError
from feature_repo import values, views
from feature_repo.folds import history, interests, places, popularity, user, watch
from feature_repo.layouts import CELLS, HISTORY_ROW, INTERESTS, PLACES, WATCH
from feature_repo.services import generator_v1
from feature_repo.values import CELL_VIEW, USER_VIEWS, VIEWS
from tests.feature_repo.logs import START_MS, Entry, act, interaction, logs, play

TOAST_BYTES = 2_000  # beyond about this PostgreSQL moves a value out of its row


def test_rows_have_the_size_of_their_layouts() -> None:
    assert len(interests.pack(interests.EMPTY)) == INTERESTS.itemsize
    assert len(history.pack(history.EMPTY)) == HISTORY_ROW.itemsize
    assert len(watch.pack(watch.EMPTY)) == WATCH.itemsize
    assert len(places.pack(places.EMPTY)) == PLACES.itemsize
    assert len(popularity.pack(popularity.EMPTY)) == CELLS.itemsize


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_rows_stay_in_line(view: values.View) -> None:
    assert view.row.itemsize < TOAST_BYTES


@given(logs())
def test_packed_rows_read_as_their_layouts_say(log: list[Entry]) -> None:
    state, _ = play(log)
    rows = user.pack([state])
    entries = state.history.entries
    row = rows.history[0]
    assert row["applied"] == state.history.applied
    assert row["item"][: row["length"]].tolist() == [entry[1] for entry in entries]
    assert row["watch"][: row["length"]].tolist() == [entry[3] for entry in entries]
    assert row["seen"][: row["seen_length"]].tolist() == list(state.history.seen)
    np.testing.assert_array_equal(rows.interests[0]["long_term"], state.interests.long_term.astype(np.float16))
    assert rows.watch[0]["count"].tolist() == list(state.watch.counts)
    assert rows.places[0]["cell"][: rows.places[0]["length"]].tolist() == [cell for cell, _, _ in state.places.cells]


@given(logs())
def test_values_lead_back_to_the_row(log: list[Entry]) -> None:
    rows = user.pack([play(log)[0]])
    for view, column in zip(USER_VIEWS, rows[:4], strict=True):
        row = column[0].tobytes()
        back = values.encode(view, values.decode(view, row), values.updated_ms(view, row))
        assert values.decode(view, back) == values.decode(view, row)
        if view.row is not HISTORY_ROW:  # which alone hides what cannot be told: the hashes of seen events
            assert back == row


def test_lists_are_as_long_as_what_is_kept() -> None:
    state, _ = play([Entry(START_MS, (interaction("a", "1"), interaction("b", "2", 2, play_ms=3_000)))])
    history_values = values.decode(VIEWS["user_history"], history.pack(state.history))
    assert history_values["item"] == [1, 2]
    watch_values = values.decode(VIEWS["user_watch"], watch.pack(state.watch))
    assert watch_values["play_ds"] == [30]
    cell = popularity.fold(popularity.EMPTY, [act()])
    assert values.decode(CELL_VIEW, popularity.pack(cell)) == {"popular_item": [1], "popular_score": [2.0]}


def test_a_list_too_long_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"user_history\.item: found 51 values, expected at most 50"):
        values.encode(VIEWS["user_history"], {"item": [1] * 51}, 0)
    with pytest.raises(InputError, match=r"user_watch\.play_ds"):
        values.encode(VIEWS["user_watch"], {"play_ds": [1, 2], "plays_kept": [1]}, 0)


def test_views_have_the_fields_of_their_layouts() -> None:
    for view in views.views:
        assert [field.name for field in view.features] == list(VIEWS[view.name].fields)
        assert view.description and view.tags["fold"] and view.owner


def test_names_are_distinct_over_the_service() -> None:
    names = [field.name for projection in generator_v1.feature_view_projections for field in projection.features]
    assert len(names) == len(set(names))


def test_feast_imports_one_file() -> None:
    folder = Path(values.__file__).parent
    assert [path.name for path in get_repo_files(folder)] == ["definitions.py"]
