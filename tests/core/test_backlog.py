"""Laws of a backlog: bounded, room comes back, and one thing always fits."""

from hypothesis import given
from hypothesis import strategies as st

from core.backlog import Backlog


def test_no_more_than_its_bytes_and_room_comes_back() -> None:
    backlog = Backlog(10)
    assert backlog.take(6, 0)
    assert not backlog.take(5, 0)
    assert backlog.take(4, 0)
    backlog.give_back(1, 6)
    assert backlog.take(5, 0)
    assert backlog.wait(0) == 2


def test_one_thing_larger_than_all_room_fits_alone() -> None:
    backlog = Backlog(10)
    assert backlog.take(50, 0)
    assert not backlog.take(1, 0)
    backlog.give_back(1, 50)
    assert backlog.take(50, 0)


@given(st.lists(st.integers(1, 20)), st.integers(1, 60))
def test_what_is_inside_never_exceeds_the_limit(sizes: list[int], limit: int) -> None:
    backlog, inside = Backlog(limit), list[int]()
    for size in sizes:
        if backlog.take(size, 0):
            inside.append(size)
            assert sum(inside) <= limit or len(inside) == 1
        elif inside:
            backlog.give_back(1, inside.pop(0))
    assert backlog.wait(0) == len(inside)
