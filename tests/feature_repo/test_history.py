"""Laws of user_history."""

from hypothesis import given
from hypothesis import strategies as st

from feature_repo.folds.act import LONG_VIEW_MS
from feature_repo.folds.history import EXPOSURE_S, WATCH_MOST, WATCH_UNKNOWN, watch_share
from feature_repo.layouts import DIM, HISTORY, NO_CODE, POSITIVES
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action
from tests.feature_repo.logs import START_MS, after, exposures, interaction, part, positives, world

START_S = START_MS // 1000
RARE, OFTEN = 5, 9  # first-level codes
TASTES = world([[1.0] * DIM] * 400, [RARE, *[OFTEN] * 399])  # item 0 is of the rare kind


def bit(action: int) -> int:
    return 1 << (action - 1)


def likes(items: range, first_second: int = 0) -> list[Activity]:
    return [interaction(f"e{n}", str(n), at_ms=START_MS + (first_second + n) * 1000) for n in items]


@given(st.permutations(range(80)))
def test_late_acts_take_their_place(order: list[int]) -> None:
    acts = [interaction(f"e{n}", str(100 + n), at_ms=START_MS + n * 1000) for n in range(80)]
    state = after(*(acts[n] for n in order))
    assert [item for _, item, _, _ in exposures(state)] == list(range(180 - HISTORY, 180))
    assert [item for _, item, _ in positives(state)] == list(range(180 - POSITIVES, 180))


@given(st.permutations(range(4)))
def test_acts_of_one_exposure_are_one_entry_in_any_order(order: list[int]) -> None:
    acts = [
        interaction("view", action=Action.ACTION_VIEW, at_ms=START_MS),
        interaction("play", action=Action.ACTION_PLAY, at_ms=START_MS + 2_000, play_ms=5_000),
        interaction("again", action=Action.ACTION_PLAY, at_ms=START_MS + 9_000, play_ms=8_000),
        interaction("like", action=Action.ACTION_LIKE, at_ms=START_MS + 10_000),
    ]
    state = after(*(acts[n] for n in order))
    bits = bit(Action.ACTION_VIEW) | bit(Action.ACTION_PLAY) | bit(Action.ACTION_LIKE)
    assert exposures(state) == [(START_S, 1, bits, 65)]  # 13 s of 20 s
    assert [item for _, item, _ in positives(state)] == [1]


def test_every_kind_of_act_has_its_bit() -> None:
    kinds = [action for action in Action.values() if action]
    state = after(*(interaction(f"e{action}", action=action) for action in kinds))
    assert exposures(state)[0][2] == sum(bit(action) for action in kinds)


def test_a_later_exposure_is_an_entry_of_its_own() -> None:
    near, far = START_MS + EXPOSURE_S * 1000, START_MS + (EXPOSURE_S + 1) * 1000
    assert [item for _, item, _, _ in exposures(after(interaction("a"), interaction("b", at_ms=far)))] == [1, 1]
    assert [item for _, item, _, _ in exposures(after(interaction("a"), interaction("b", at_ms=near)))] == [1]
    assert len(positives(after(interaction("a"), interaction("b", at_ms=far)))) == 2


def test_one_item_acted_on_within_the_exposure_of_another_stays_apart() -> None:
    assert len(exposures(after(interaction("a", "1"), interaction("b", "2")))) == 2


def test_positives_outlive_the_history() -> None:
    liked = interaction("like", "4000")
    viewed = [interaction(f"e{n}", str(n), Action.ACTION_VIEW, START_MS + (n + 1) * 1000) for n in range(HISTORY)]
    state = after(liked, *viewed)
    assert 4000 not in [item for _, item, _, _ in exposures(state)]
    assert positives(state) == [(START_S, 4000, NO_CODE)]


def test_a_positive_knows_the_first_level_code_of_its_item() -> None:
    assert positives(after(interaction("a", "3"), interaction("b", "77"))) == [(START_S, 3, 3), (START_S, 77, NO_CODE)]


def test_a_rare_taste_survives_any_number_of_likes_of_a_frequent_one() -> None:
    state = after(*likes(range(400)), context=TASTES)
    kept = positives(state)
    assert kept[0] == (START_S, 0, RARE)
    assert [item for _, item, _ in kept[1:]] == list(range(400 - POSITIVES + 1, 400))  # of the frequent, the newest
    assert {code for _, _, code in kept[1:]} == {OFTEN}


def test_among_codes_of_equal_number_the_lowest_gives_up_its_oldest() -> None:
    half = POSITIVES // 2
    codes = world([[1.0] * DIM] * 100, [n % 2 for n in range(100)])
    state = after(*likes(range(POSITIVES)), interaction("new", "77", at_ms=START_MS + 99_000), context=codes)
    assert [code for _, _, code in positives(state)].count(1) == half  # 25 of the new one's code: its own oldest left
    assert 1 not in [item for _, item, _ in positives(state)]
    unknown = interaction("new", "700", at_ms=START_MS + 99_000)
    state = after(*likes(range(POSITIVES)), unknown, context=codes)
    assert [code for _, _, code in positives(state)].count(0) == half - 1  # 24 and 24: the lower code's oldest left
    assert 0 not in [item for _, item, _ in positives(state)]


def test_a_positive_older_than_all_of_the_fullest_code_is_not_kept() -> None:
    newer = likes(range(1, POSITIVES + 1), first_second=100)
    state = after(*newer, interaction("old", "399"), context=TASTES)
    assert [item for _, item, _ in positives(state)] == list(range(1, POSITIVES + 1))
    assert 399 in [item for _, item, _, _ in exposures(state)]


@given(st.permutations(range(70)))
def test_what_positives_keep_does_not_depend_on_the_order_of_arrival(order: list[int]) -> None:
    codes = world([[1.0] * DIM] * 70, [n * n % 11 for n in range(70)])
    acts = likes(range(70))
    assert positives(after(*(acts[n] for n in order), context=codes)) == positives(after(*acts, context=codes))


def test_a_long_view_is_positive_and_a_short_one_is_not() -> None:
    def count(play_ms: int, duration_ms: int) -> int:
        view = interaction("e", action=Action.ACTION_PLAY, play_ms=play_ms, duration_ms=duration_ms)
        return len(positives(after(view)))

    assert count(9_000, 9_000) == 1  # a short item, to its end
    assert count(8_999, 9_000) == 0
    assert count(LONG_VIEW_MS, 600_000) == 1
    assert count(LONG_VIEW_MS - 1, 600_000) == 0


@given(st.permutations(range(2)))
def test_an_exposure_with_a_dislike_is_not_positive(order: list[int]) -> None:
    acts = [interaction("like"), interaction("dislike", action=Action.ACTION_DISLIKE, at_ms=START_MS + 1000)]
    state = after(*(acts[n] for n in order))
    assert positives(state) == []
    assert not any(part(state, "history")[name].any() for name in ("positive_at_s", "positive_item", "positive_code"))
    assert exposures(state)[0][2] == bit(Action.ACTION_LIKE) | bit(Action.ACTION_DISLIKE)


def test_a_dislike_takes_back_one_exposure_and_no_other() -> None:
    state = after(
        interaction("a", "1"),
        interaction("b", "2"),
        interaction("again", "1", at_ms=START_MS + 2 * EXPOSURE_S * 1000),
        interaction("no", "1", Action.ACTION_DISLIKE, START_MS + 2 * EXPOSURE_S * 1000),
    )
    assert positives(state) == [(START_S, 1, 1), (START_S, 2, 2)]


def test_watch_share_is_bounded_and_says_when_it_is_unknown() -> None:
    assert watch_share(5_000, 20_000) == 25
    assert watch_share(10**8, 1_000) == WATCH_MOST
    assert watch_share(-1, 20_000) == WATCH_UNKNOWN
    assert watch_share(5_000, -1) == WATCH_UNKNOWN
    assert watch_share(0, 20_000) == 0  # skipped at once: known, and nothing
