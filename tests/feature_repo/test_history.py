"""Laws of user_history."""

from hypothesis import given
from hypothesis import strategies as st

from feature_repo.folds import history
from feature_repo.folds.act import LONG_VIEW_MS
from feature_repo.folds.history import EXPOSURE_S, WATCH_MOST, WATCH_UNKNOWN, watch_share
from feature_repo.layouts import HISTORY, POSITIVES
from protos.events.v1.interaction_pb2 import Action
from tests.feature_repo.logs import START_MS, act

START_S = START_MS // 1000


def after(*acts: history.Act) -> history.HistoryState:
    state = history.EMPTY
    for one in acts:
        state = history.fold(state, one)
    return state


def bit(action: int) -> int:
    return 1 << (action - 1)


@given(st.permutations(range(80)))
def test_late_acts_take_their_place(order: list[int]) -> None:
    acts = [act(f"e{n}", item=str(n), at_ms=START_MS + n * 1000) for n in range(80)]
    state = after(*(acts[n] for n in order))
    assert [entry[1] for entry in state.entries] == list(range(80 - HISTORY, 80))
    assert [item for _, item in state.positives] == list(range(80 - POSITIVES, 80))


@given(st.permutations(range(4)))
def test_acts_of_one_exposure_are_one_entry_in_any_order(order: list[int]) -> None:
    acts = [
        act("view", action=Action.ACTION_VIEW, at_ms=START_MS),
        act("play", action=Action.ACTION_PLAY, at_ms=START_MS + 2_000, play_ms=5_000),
        act("again", action=Action.ACTION_PLAY, at_ms=START_MS + 9_000, play_ms=8_000),
        act("like", action=Action.ACTION_LIKE, at_ms=START_MS + 10_000),
    ]
    state = after(*(acts[n] for n in order))
    bits = bit(Action.ACTION_VIEW) | bit(Action.ACTION_PLAY) | bit(Action.ACTION_LIKE)
    assert state.entries == ((START_S, 1, bits, 65),)  # 13 s of 20 s
    assert [item for _, item in state.positives] == [1]


def test_a_later_exposure_is_an_entry_of_its_own() -> None:
    state = after(act("a"), act("b", at_ms=START_MS + (EXPOSURE_S + 1) * 1000))
    assert [entry[1] for entry in state.entries] == [1, 1]


def test_one_item_acted_on_within_the_exposure_of_another_stays_apart() -> None:
    state = after(act("a", item="1"), act("b", item="2"))
    assert len(state.entries) == 2


def test_positives_outlive_the_history() -> None:
    liked = act("like", item="4000")
    viewed = [
        act(f"e{n}", item=str(n), action=Action.ACTION_VIEW, at_ms=START_MS + (n + 1) * 1000) for n in range(HISTORY)
    ]
    state = after(liked, *viewed)
    assert 4000 not in [entry[1] for entry in state.entries]
    assert [item for _, item in state.positives] == [4000]


def test_a_long_view_is_positive_and_a_short_one_is_not() -> None:
    def positives(play_ms: int, duration_ms: int) -> int:
        return len(after(act(action=Action.ACTION_PLAY, play_ms=play_ms, duration_ms=duration_ms)).positives)

    assert positives(9_000, 9_000) == 1  # a short item, to its end
    assert positives(8_999, 9_000) == 0
    assert positives(LONG_VIEW_MS, 600_000) == 1
    assert positives(LONG_VIEW_MS - 1, 600_000) == 0


@given(st.permutations(range(2)))
def test_an_exposure_with_a_dislike_is_not_positive(order: list[int]) -> None:
    acts = [act("like"), act("dislike", action=Action.ACTION_DISLIKE, at_ms=START_MS + 1000)]
    state = after(*(acts[n] for n in order))
    assert state.positives == ()
    assert state.entries[0][2] == bit(Action.ACTION_LIKE) | bit(Action.ACTION_DISLIKE)


def test_watch_share_is_bounded_and_says_when_it_is_unknown() -> None:
    assert watch_share(5_000, 20_000) == 25
    assert watch_share(10**8, 1_000) == WATCH_MOST
    assert watch_share(-1, 20_000) == WATCH_UNKNOWN
    assert watch_share(5_000, -1) == WATCH_UNKNOWN
    assert watch_share(0, 20_000) == 0  # skipped at once: known, and nothing
