"""Laws of user_interests."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.folds.act import ENGAGEMENT
from feature_repo.folds.interests import (
    FADED,
    LONG_HALF_LIFE_MS,
    MOST_WEIGHT,
    NEAR,
    SHORT_HALF_LIFE_MS,
    TIER_ITEMS,
)
from feature_repo.layouts import DIM, FIRST_CODES, INTERESTS_KEPT, NO_CODE, TIERS
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action
from tests.feature_repo.logs import CONTEXT, START_MS, after, interaction, part, positives, world

LIKE = ENGAGEMENT[Action.ACTION_LIKE]
CROWD = world(np.eye(DIM)[np.arange(600) % DIM], np.arange(600) % FIRST_CODES)  # items enough to fill every count


def interests_after(*acts: Activity, context: object = CONTEXT) -> np.ndarray:
    return part(after(*acts, context=context), "interests")  # type: ignore[arg-type]


def likes(count: int, apart_ms: int = 0) -> list[Activity]:
    return [interaction(f"e{n}", str(n), at_ms=START_MS + n * apart_ms) for n in range(count)]


def topics(row: np.ndarray) -> np.ndarray:
    """The interests in use, as unit vectors."""
    means: np.ndarray = row["interest"][row["interest_weight"] > 0].astype(np.float32)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def test_one_like_points_at_its_item() -> None:
    row = interests_after(interaction("a", "2"))
    assert row["long_term"][2] == row["short_term"][2] == row["interest"][0, 2] == 1.0
    assert row["weight"] == row["short_weight"] == row["interest_weight"][0] == LIKE
    assert (row["updated_ms"], row["tokenizer"]) == (START_MS, 1)


def test_a_dislike_points_away_and_is_no_interest() -> None:
    row = interests_after(interaction("a", "2", Action.ACTION_DISLIKE))
    assert row["long_term"][2] == row["short_term"][2] == -1.0
    assert not row["interest_weight"].any() and not row["interest"].any()
    liked = interests_after(interaction("a", "1"))
    both = interests_after(interaction("a", "1"), interaction("b", "2", Action.ACTION_DISLIKE))
    assert both["interest"].tobytes() == liked["interest"].tobytes()
    assert both["interest_weight"].tobytes() == liked["interest_weight"].tobytes()


def test_after_one_half_life_an_act_counts_half() -> None:
    row = interests_after(interaction("a", "1"), interaction("b", "2", at_ms=START_MS + LONG_HALF_LIFE_MS))
    assert row["weight"] == pytest.approx(1.5 * LIKE)
    assert row["long_term"][1] == pytest.approx(1 / 3, abs=1e-3)
    assert row["long_term"][2] == pytest.approx(2 / 3, abs=1e-3)
    assert row["short_term"][1] == pytest.approx(0.0, abs=1e-6)  # many short half-lives ago
    assert row["interest_weight"].tolist() == pytest.approx([LIKE / 2, LIKE, 0.0])


def test_the_short_term_forgets_within_a_session() -> None:
    row = interests_after(interaction("a", "1"), interaction("b", "2", at_ms=START_MS + SHORT_HALF_LIFE_MS))
    assert row["short_term"][2] == pytest.approx(2 / 3, abs=1e-3)
    assert row["long_term"][2] == pytest.approx(1 / 2, abs=1e-2)


@given(st.permutations(range(6)))
def test_late_acts_take_their_place(order: list[int]) -> None:
    acts = [interaction(f"e{n}", str(n % 5), at_ms=START_MS + n * SHORT_HALF_LIFE_MS // 2) for n in range(6)]
    row, in_order = interests_after(*(acts[n] for n in order)), interests_after(*acts)
    for name in ("long_term", "short_term"):
        np.testing.assert_allclose(row[name], in_order[name], atol=2e-3)
    for name in ("weight", "short_weight", "updated_ms", "tier_items"):
        assert row[name] == pytest.approx(in_order[name])
    assert row["tiers"].tolist() == in_order["tiers"].tolist()


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([2, 4, 9, 11]), st.integers(0, 10**9)), max_size=40))
def test_a_mean_never_leaves_the_unit_ball(drawn: list[tuple[int, int, int]]) -> None:
    acts = [interaction(f"e{n}", str(item), do, START_MS + at) for n, (item, do, at) in enumerate(drawn)]
    row = interests_after(*acts)
    for mean in (row["long_term"], row["short_term"], *row["interest"]):
        assert np.linalg.norm(mean.astype(np.float32)) <= 1.005  # rounded at every act


def test_an_unknown_item_changes_nothing() -> None:
    assert not any(interests_after(interaction("a", "77")).tobytes())


def test_an_act_that_says_nothing_moves_no_vector() -> None:
    row = interests_after(interaction("a", "1", Action.ACTION_PLAY, play_ms=0))
    assert not row["long_term"].any() and row["weight"] == row["updated_ms"] == 0


def test_two_alternating_topics_are_two_interests() -> None:
    rng = np.random.default_rng(11)
    centres = np.eye(DIM)[[3, 40]]
    vectors = centres[np.arange(60) % 2] + rng.normal(size=(60, DIM)) * 0.05
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    row = interests_after(*likes(60, apart_ms=60_000), context=world(vectors, np.zeros(60)))
    assert (row["interest_weight"] > 0).tolist() == [True, True, False]
    assert (topics(row) @ centres.T).round(1).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert np.linalg.norm(row["long_term"].astype(np.float32)) < 0.75  # the one mean is near neither


@pytest.mark.parametrize(("cosine", "used"), [(NEAR - 0.01, 2), (NEAR + 0.01, 1)])
def test_an_act_farther_than_near_begins_an_interest_of_its_own(cosine: float, used: int) -> None:
    vectors = np.eye(2, DIM)
    vectors[1, :2] = cosine, np.sqrt(1 - cosine**2)
    row = interests_after(*likes(2), context=world(vectors, [0, 0]))
    assert (row["interest_weight"] > 0).sum() == used


def test_with_every_place_taken_an_act_joins_the_nearest() -> None:
    vectors = np.eye(4, DIM)
    vectors[3] = [0.1, 0.1, 0.4, *[0.0] * (DIM - 4), 0.9]  # farther than NEAR from each, and least from the third
    row = interests_after(*likes(4), context=world(vectors, range(4)))
    assert row["interest_weight"].tolist() == [LIKE, LIKE, 2 * LIKE]
    assert row["interest"][2, -1] == pytest.approx(0.45, abs=1e-3)


def test_a_faded_interest_gives_its_place_free() -> None:
    taken = likes(INTERESTS_KEPT)
    halvings = np.log2(LIKE / FADED)

    def later(half_lives: float) -> np.ndarray:
        return interests_after(*taken, interaction("new", "4", at_ms=START_MS + int(half_lives * LONG_HALF_LIFE_MS)))

    kept, freed = later(halvings - 0.1), later(halvings + 0.1)
    assert (kept["interest_weight"] > 0).all()
    assert freed["interest_weight"].tolist() == [LIKE, 0.0, 0.0]
    assert freed["interest"][0].tolist() == np.eye(DIM)[4].tolist()  # nothing of what stood there is left


def test_tier_counts_are_those_of_all_positives() -> None:
    count = TIER_ITEMS - 1
    row = interests_after(*likes(count), context=CROWD)
    assert row["tier_items"] == count
    tiers = CROWD.items.table.tiers[:count]
    assert row["tiers"].tolist() == [
        np.bincount(tiers[:, code], minlength=TIERS).tolist() for code in range(FIRST_CODES)
    ]
    assert (row["tiers"].sum(1) == count).all()


def test_full_tier_counts_are_halved() -> None:
    whole = interests_after(*likes(TIER_ITEMS), context=CROWD)
    tiers = CROWD.items.table.tiers[:TIER_ITEMS]
    batch = np.stack([np.bincount(tiers[:, code], minlength=TIERS) for code in range(FIRST_CODES)])
    assert whole["tier_items"] == TIER_ITEMS // 2
    assert whole["tiers"].tolist() == (batch // 2).tolist()
    assert interests_after(*likes(600), context=CROWD)["tiers"].sum(1).max() < TIER_ITEMS


def test_only_the_first_positive_act_of_an_exposure_counts_in_tiers() -> None:
    again = [
        interaction("view", "1", Action.ACTION_VIEW),
        interaction("like", "1"),
        interaction("share", "1", Action.ACTION_SHARE, START_MS + 1),
        interaction("dislike", "2", Action.ACTION_DISLIKE),
    ]
    assert interests_after(*again)["tier_items"] == 1


def test_another_tokenizer_begins_anew_and_forgets_its_codes() -> None:
    before = after(interaction("a", "1"), interaction("b", "2"))
    newer = world(np.eye(5, DIM)[::-1], range(5), tokenizer=2)
    state = after(interaction("c", "3", at_ms=START_MS + 1000), state=before, context=newer)
    alone = after(interaction("c", "3", at_ms=START_MS + 1000), context=newer)
    assert part(state, "interests").tobytes() == part(alone, "interests").tobytes()
    assert part(state, "interests")["tokenizer"] == 2
    assert [code for _, _, code in positives(state)] == [NO_CODE, NO_CODE, 3]


def test_an_exposure_keeps_the_code_that_it_began_with() -> None:
    newer = world(np.eye(5, DIM), range(5), tokenizer=2)
    state = after(
        interaction("b", "1", Action.ACTION_SHARE, START_MS + 1), state=after(interaction("a", "1")), context=newer
    )
    assert [code for _, _, code in positives(state)] == [NO_CODE]
    assert part(state, "interests")["tier_items"] == 0


def test_an_item_that_no_tokenizer_knows_ends_nothing() -> None:
    before = after(interaction("a", "1"))
    newer = world(np.eye(5, DIM), range(5), tokenizer=2)
    state = after(interaction("b", "77"), state=before, context=newer)
    assert part(state, "interests").tobytes() == part(before, "interests").tobytes()


def test_the_weight_behind_a_mean_is_bounded() -> None:
    acts = [interaction(f"e{n}", "1", Action.ACTION_ORDER) for n in range(int(MOST_WEIGHT / 5) + 50)]
    row = interests_after(*acts)
    assert row["weight"] == row["short_weight"] == row["interest_weight"][0] == MOST_WEIGHT
    moved = part(after(interaction("other", "2", Action.ACTION_ORDER), state=after(*acts)), "interests")
    assert moved["long_term"][2] > 0.0  # one act more is still seen


def test_acts_too_old_to_count_leave_no_nan() -> None:
    row = interests_after(interaction("a"), interaction("b", at_ms=START_MS - 10**12))
    for name in ("long_term", "short_term", "interest", "interest_weight"):
        assert np.isfinite(row[name]).all()
