"""Laws of user_interests."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ids import ItemKey
from feature_repo.folds import interests
from feature_repo.folds.act import ENGAGEMENT, Act
from feature_repo.folds.interests import LONG_HALF_LIFE_MS, SHORT_HALF_LIFE_MS, InterestsState
from protos.events.v1.interaction_pb2 import Action
from tests.feature_repo.logs import START_MS, FiveItems, act

ITEMS = FiveItems()
LIKE = ENGAGEMENT[Action.ACTION_LIKE]


def after(*acts: Act, tokenizer: int = 1, state: InterestsState = interests.EMPTY) -> InterestsState:
    for one in acts:
        state = interests.fold(state, one, ITEMS.vector(ItemKey(one.item_key)), tokenizer)
    return state


def test_one_like_points_at_its_item() -> None:
    state = after(act(item="2"))
    assert state.long_term[2] == state.short_term[2] == 1.0
    assert state.weight == state.short_weight == LIKE


def test_a_dislike_points_away() -> None:
    assert after(act(item="2", action=Action.ACTION_DISLIKE)).long_term[2] == -1.0


def test_after_one_half_life_an_act_counts_half() -> None:
    old, new = act("a", item="1"), act("b", item="2", at_ms=START_MS + LONG_HALF_LIFE_MS)
    state = after(old, new)
    assert state.weight == pytest.approx(1.5 * LIKE)
    assert state.long_term[1] == pytest.approx(1 / 3, abs=1e-3)
    assert state.long_term[2] == pytest.approx(2 / 3, abs=1e-3)
    assert state.short_term[1] == pytest.approx(0.0, abs=1e-6)  # many short half-lives ago


def test_the_short_term_forgets_within_a_session() -> None:
    state = after(act("a", item="1"), act("b", item="2", at_ms=START_MS + SHORT_HALF_LIFE_MS))
    assert state.short_term[2] == pytest.approx(2 / 3, abs=1e-3)
    assert state.long_term[2] == pytest.approx(1 / 2, abs=1e-2)


@given(st.permutations(range(6)))
def test_late_acts_take_their_place(order: list[int]) -> None:
    acts = [act(f"e{n}", item=str(n % 5), at_ms=START_MS + n * SHORT_HALF_LIFE_MS // 2) for n in range(6)]
    sorted_state, state = after(*acts), after(*(acts[n] for n in order))
    np.testing.assert_allclose(state.long_term, sorted_state.long_term, atol=1e-5)
    np.testing.assert_allclose(state.short_term, sorted_state.short_term, atol=1e-5)
    assert state.weight == pytest.approx(sorted_state.weight)
    assert state.updated_ms == sorted_state.updated_ms


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([2, 4, 9, 11]), st.integers(0, 10**9)), max_size=40))
def test_a_mean_never_leaves_the_unit_ball(drawn: list[tuple[int, int, int]]) -> None:
    acts = [act(f"e{n}", item=str(item), action=do, at_ms=START_MS + at) for n, (item, do, at) in enumerate(drawn)]
    state = interests.seal(after(*acts))
    assert np.linalg.norm(state.long_term) <= 1.001
    assert np.linalg.norm(state.short_term) <= 1.001


def test_an_unknown_item_changes_nothing() -> None:
    assert after(act(item="77")) is interests.EMPTY


def test_another_tokenizer_begins_anew() -> None:
    state = after(act("b", item="2"), tokenizer=2, state=after(act("a", item="1")))
    assert state.tokenizer == 2
    assert state.long_term[1] == 0.0


def test_acts_too_old_to_count_leave_no_nan() -> None:
    state = after(act("a", at_ms=START_MS), act("b", at_ms=START_MS - 10**12))
    assert np.isfinite(state.short_term).all()


def test_sealing_twice_is_sealing_once() -> None:
    state = interests.seal(after(act("a", item="1"), act("b", item="2", at_ms=START_MS + 12_345)))
    again = interests.seal(state)
    assert interests.pack(again) == interests.pack(state)
