"""Laws of rows as ordinary values, and of the views that are derived from them."""

from pathlib import Path

import numpy as np
import pytest
from feast.repo_operations import get_repo_files
from hypothesis import given

from core.errors import InputError
from feature_repo import values, views
from feature_repo.layouts import CELLS, HISTORY_ROW, ITEMS, USER, user_rows
from feature_repo.services import generator_v1
from feature_repo.values import CELL_VIEW, ITEM_VIEW, USER_VIEWS, VIEWS
from tests.feature_repo.logs import START_MS, Entry, after, exposures, interaction, logs, part, play, positives

HALF_A_PAGE = 3_900  # bytes: two rows of a user on a page of PostgreSQL
ONE_PAGE = 8_000  # with which a row still fits a page at all


def view_values(state: object, view: str) -> dict[str, values.Value]:
    return values.decode(VIEWS[view], part(state, view.removeprefix("user_")).tobytes())  # type: ignore[arg-type]


def test_two_rows_of_users_fit_a_page() -> None:
    assert USER.itemsize < HALF_A_PAGE
    assert max(CELLS.itemsize, ITEMS.itemsize) < ONE_PAGE


def test_a_users_row_is_its_views_one_after_another() -> None:
    assert [USER[name] for name in USER.names or ()] == [view.row for view in USER_VIEWS]
    assert USER.itemsize == sum(view.row.itemsize for view in USER_VIEWS)


def test_records_have_no_holes_and_are_little_endian() -> None:
    for view in VIEWS.values():
        fields = [view.row[name] for name in view.row.names or ()]
        assert view.row.itemsize == sum(field.itemsize for field in fields)
        assert {field.base.str[0] for field in fields} <= {"<", "|"}


def test_parts_of_rows_are_views_of_them() -> None:
    rows = np.zeros(3, USER)
    parts = user_rows(rows)
    parts.history["length"][1] = 7
    assert rows["history"]["length"].tolist() == [0, 7, 0]
    assert parts.found.tolist() == [True] * 3
    assert user_rows(rows, np.zeros(3, bool)).found.tolist() == [False] * 3


@given(logs())
def test_values_are_those_of_the_row(log: list[Entry]) -> None:
    state, _ = play(log)
    shown = view_values(state, "user_history")
    assert shown["applied"] == part(state, "history")["applied"]
    lists = (shown["at_s"], shown["item"], shown["actions"], shown["watch"])
    assert list(zip(*lists, strict=True)) == exposures(state)  # type: ignore[arg-type]
    good = (shown["positive_at_s"], shown["positive_item"], shown["positive_code"])
    assert list(zip(*good, strict=True)) == positives(state)  # type: ignore[arg-type]
    assert shown.keys().isdisjoint({"seen", "seen_count", "length", "positive_length", "updated_ms"})
    assert view_values(state, "user_interests")["long_term"] == part(state, "interests")["long_term"].tolist()
    assert len(view_values(state, "user_places")["cell"]) == part(state, "places")["length"]  # type: ignore[arg-type]


@given(logs())
def test_values_lead_back_to_the_row(log: list[Entry]) -> None:
    row_of_user = play(log)[0].row
    for view, column in zip(USER_VIEWS, user_rows(row_of_user)[:4], strict=True):
        row = column[0].tobytes()
        back = values.encode(view, values.decode(view, row), values.updated_ms(view, row))
        assert values.decode(view, back) == values.decode(view, row)
        if view.row is not HISTORY_ROW:  # which alone hides what cannot be told: the hashes of seen events
            assert back == row


def test_lists_are_as_long_as_what_is_kept() -> None:
    state = after(interaction("a", "1"), interaction("b", "2", 2, play_ms=3_000))
    assert view_values(state, "user_history")["item"] == [1, 2]
    assert view_values(state, "user_watch")["play_ds"] == [30]


def test_sums_read_as_ordinary_values() -> None:
    cell = np.zeros(1, CELLS)
    cell["updated_ms"], cell["length"], cell["weight"] = START_MS, 2, 3.0
    cell["item"][0, :2], cell["score"][0, :2], cell["context"][0, 5] = (4, 9), (2.0, 1.0), 1.5
    shown = values.decode(CELL_VIEW, cell.tobytes())
    assert (shown["popular_item"], shown["popular_score"], shown["context_weight"]) == ([4, 9], [2.0, 1.0], 3.0)
    assert shown["context_vector"] == [*[0.0] * 5, 1.5, *[0.0] * 58]
    assert values.encode(CELL_VIEW, shown, START_MS) == cell.tobytes()
    item = np.zeros(1, ITEMS)
    item["updated_ms"], item["shown"], item["plays"] = START_MS, 4.0, 2.5
    counts = values.decode(ITEM_VIEW, item.tobytes())
    assert counts == {"shown": 4.0, "plays": 2.5, "watched": 0.0, "positives": 0.0, "dislikes": 0.0}
    assert values.encode(ITEM_VIEW, counts, START_MS) == item.tobytes()


def test_a_list_of_the_wrong_length_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"user_history\.item: found 51 values, expected at most 50"):
        values.encode(VIEWS["user_history"], {"item": [1] * 51}, 0)
    with pytest.raises(InputError, match=r"user_watch\.play_ds"):
        values.encode(VIEWS["user_watch"], {"play_ds": [1, 2], "plays_kept": [1]}, 0)
    with pytest.raises(InputError, match=r"user_interests\.interest: found 64 values, expected 192"):
        values.encode(VIEWS["user_interests"], {"interest": [0.0] * 64}, 0)


def test_views_have_the_fields_of_their_layouts() -> None:
    assert [view.name for view in views.views] == list(VIEWS)
    for view in views.views:
        assert [field.name for field in view.features] == list(VIEWS[view.name].fields)
        assert view.description and view.tags["fold"] and view.owner


def test_names_are_distinct_over_all_views() -> None:
    names = [name for view in VIEWS.values() for name in view.fields]
    assert len(names) == len(set(names))


def test_the_service_names_what_the_generator_reads() -> None:
    read = [projection.name for projection in generator_v1.feature_view_projections]
    assert read == ["user_interests", "user_history", "user_places", "cell_popularity"]


def test_feast_imports_one_file() -> None:
    folder = Path(values.__file__).parent
    assert [path.name for path in get_repo_files(folder)] == ["definitions.py"]
