"""The compiled folds amount to the rules as they are told plainly."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.ids import item_key
from feature_repo.folds.context import Record
from feature_repo.folds.entries import LATE_MS, LogEntry, columns, message_of
from feature_repo.folds.user import fold_rows
from feature_repo.layouts import DIM, INTERESTS
from feature_repo.layouts import USER as USER_ROW
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.interaction_pb2 import Action
from tests.feature_repo import plain_folds
from tests.feature_repo.logs import START_MS, forget, impression, interaction, world
from tests.feature_repo.plain_folds import Knowledge, PlainItem, PlainUser

USERS = 3
ITEMS = 400
KINDS = (*(action for action in Action.values() if action), *[Action.ACTION_PLAY] * 6, *[Action.ACTION_LIKE] * 12)
SPOTS = [(48.8566 + 0.01 * n, 2.3522) for n in range(11)] + [(-33.87, 151.21), (-17.0, 179.99), (-17.0, -179.99)]
RESOLUTION = 9


def catalogue(seed: int, tokenizer: int) -> tuple[object, Knowledge]:
    """Items 0 .. ITEMS-1 around a few topics, codes unevenly spread: as the folds and as the rules know them."""
    rng = np.random.default_rng([seed, tokenizer])
    topics = rng.normal(size=(5, DIM))
    vectors = topics[rng.integers(0, 5, ITEMS)] + rng.normal(size=(ITEMS, DIM)) * 0.7
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    context = world(vectors, rng.geometric(0.25, ITEMS) % 64, tokenizer)
    table = context.items.table
    items = {
        item: PlainItem(table.vectors[item], int(table.first_codes[item]), table.tiers[item].tolist(), 20_000)
        for item in range(ITEMS)
    }
    return context, Knowledge(items, tokenizer, RESOLUTION)


def an_activity(rng: random.Random, number: int, now_ms: int, liked: float) -> Activity:
    """Mostly acts; ids repeat, times run back by minutes, by hours, and now and then by more than the late bound."""
    chance = rng.random()
    if chance < 0.002:
        return forget(now_ms)
    late_ms = rng.choice((0, rng.randrange(4_000_000), rng.randrange(LATE_MS), LATE_MS + rng.randrange(2 * LATE_MS)))
    at_ms = now_ms - late_ms
    if chance < 0.08:
        return impression(f"r{rng.randrange(number + 1)}", ["1"], at_ms)
    again = rng.random() < 0.1
    kind = Action.ACTION_LIKE if rng.random() < liked else rng.choice(KINDS)
    return interaction(
        f"e{rng.randrange(max(0, number - 150), number + 1) if again else number}",
        rng.choice(("a name", str(rng.randrange(8)), str(rng.randrange(ITEMS)), str(rng.randrange(ITEMS + 40)))),
        kind,
        at_ms,
        play_ms=rng.randrange(60_000) if kind == Action.ACTION_PLAY or rng.random() < 0.02 else None,
        duration_ms=rng.choice((None, None, rng.randrange(1, 4_000_000), rng.randrange(1, 30_000))),
        location=rng.choice((None, rng.choice(SPOTS), rng.choice(SPOTS[:2]))),
    )


def both(seed: int, count: int, *, liked: float = 0.0, tokenizers: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Rows of USERS after the same random log, by the compiled folds and by the plain rules."""
    rng = random.Random(seed)
    rows = np.zeros(USERS, USER_ROW)
    plain = [PlainUser() for _ in range(USERS)]
    now_ms = START_MS
    number = offset = 0
    context, known = catalogue(seed, 1)
    while number < count:
        if rng.random() < 0.1:
            context, known = catalogue(seed, 1 + rng.randrange(tokenizers))
        entries, slots = [], []
        for _ in range(rng.randrange(1, 60)):  # a batch, in which two entries in a row may be of one record
            number += 1
            offset += rng.random() < 0.7
            now_ms += rng.choice((0, 1_000, 60_000, 60_000, 5_000_000))
            slot = min(rng.randrange(USERS + 2), USERS - 1)  # one user more active than the others
            activity = an_activity(rng, number, now_ms, liked)
            message = message_of(activity)
            assert message is not None
            entries.append(LogEntry(Record(5, offset, now_ms, now_ms), "", message))
            slots.append(slot)
            plain[slot] = plain_folds.fold(plain[slot], activity, (5, offset), now_ms, known)
        fold_rows(rows, columns(entries, slots, context).numbers, 5, context)  # type: ignore[arg-type]
    return rows, np.concatenate([plain_folds.row_of(user) for user in plain])


def assert_same(rows: np.ndarray, told: np.ndarray) -> None:
    """Equal in every field, vectors and the weights behind them as nearly as they are rounded."""
    for view in ("history", "watch", "places"):
        for name in USER_ROW[view].names:
            np.testing.assert_array_equal(rows[view][name], told[view][name], f"{view}.{name}")
    for name in INTERESTS.names or ():
        found, expected = rows["interests"][name], told["interests"][name]
        if INTERESTS[name].base.kind != "f":
            np.testing.assert_array_equal(found, expected, name)
        else:
            np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=1e-3, atol=1e-4, err_msg=name)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 500))
def test_compiled_folds_amount_to_the_plain_rules(seed: int, count: int) -> None:
    assert_same(*both(seed, count))


@pytest.mark.parametrize("liked", [0.0, 0.8])
def test_long_logs_overflow_every_bound_and_stay_equal(liked: float) -> None:
    rows, told = both(7, 4_000, liked=liked, tokenizers=1)
    assert_same(rows, told)


def test_every_rule_is_met_by_the_random_logs() -> None:
    """Were the logs too tame, the twins would agree on nothing."""
    plain = [both(seed, 1_500, liked=0.5, tokenizers=1)[1] for seed in range(3)]
    rows = np.concatenate(plain)
    past, likes = rows["history"], rows["interests"]
    assert past["duplicates"].any() and (past["seen_count"] > 64).any()
    assert (past["length"] == 50).any() and (past["positive_length"] == 48).any()
    assert (np.diff(np.sort(past["positive_code"], axis=1)) != 0).sum() > 20  # many codes
    assert (likes["interest_weight"] > 0).all(1).any()
    assert (rows["watch"]["length"] == 24).any()
    assert (rows["places"]["length"] == 8).any() and rows["places"]["home_cell"].any()
    assert item_key("a name") in past["item"]
