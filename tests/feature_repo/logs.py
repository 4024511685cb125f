"""A tiny world for fold tests: five items, and logs made of what hypothesis draws."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from core.ids import ItemKey
from feature_repo.folds import user
from feature_repo.folds.act import UNKNOWN_PLACE, Act, ItemTable, act_of
from feature_repo.folds.context import FoldContext, Record
from feature_repo.folds.entries import Columns, LogEntry, columns
from feature_repo.folds.user import FoldResult, UserState
from feature_repo.layouts import DIM, FIRST_CODES, TIERS
from protos.events.v1.activity_pb2 import Activity, Forget
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Action, Interaction, Origin
from protos.events.v1.outcome_pb2 import Outcome

START_MS = 1_750_000_000_000  # a Sunday in June 2025, 15:06 UTC
HORIZON_MS = 60_000
USER = "ann"
PARIS = (48.8566, 2.3522)


class Shelf:
    """Items 0 .. n-1 of a catalogue, by their unit vectors and first-level codes; all others are unknown."""

    def __init__(self, vectors: ArrayLike, codes: ArrayLike) -> None:
        rows = np.ascontiguousarray(vectors, np.float32)
        tiers = np.random.default_rng(5).integers(0, TIERS, (len(rows), FIRST_CODES))  # what a catalogue makes of them
        self.table = ItemTable(rows, np.asarray(codes, np.uint8), tiers.astype(np.uint8))

    def place(self, key: ItemKey) -> int:
        return int(key) if key < len(self.table.vectors) else UNKNOWN_PLACE

    def duration_ms(self, key: ItemKey) -> int:
        return 20_000 if key < len(self.table.vectors) else -1

    def location(self, key: ItemKey) -> tuple[float, float] | None:
        return PARIS if key == 0 else None


def world(vectors: ArrayLike, codes: ArrayLike, tokenizer: int = 1) -> FoldContext:
    """What folds are told on a platform with these items."""
    return FoldContext(Shelf(vectors, codes), tokenizer, horizon_ms=HORIZON_MS, location_resolution=9)


CONTEXT = world(np.eye(5, DIM), range(5))  # items 0 .. 4: five axes, a code each


class Entry(NamedTuple):
    """One record of one user, as a test writes it."""

    log_time_ms: int  # and the record's own timestamp
    activities: tuple[Activity, ...]


def interaction(
    event: str,
    item: str = "1",
    action: int = Action.ACTION_LIKE,
    at_ms: int = START_MS,
    *,
    play_ms: int | None = None,
    duration_ms: int | None = None,
    request: str = "",
    location: tuple[float, float] | None = None,
    value_micros: int | None = None,
    currency: str = "",
) -> Activity:
    """One act of USER."""
    made = Interaction(
        event_id=event,
        user_id=USER,
        item_id=item,
        action=Action.Name(action),
        play_ms=play_ms,
        duration_ms=duration_ms,
        value_micros=value_micros,
        currency=currency,
        request_id=request,
        origin=Origin.ORIGIN_CLIENT,
    )
    made.occurred_at.FromMilliseconds(at_ms)
    if location is not None:
        made.location.latitude, made.location.longitude = location
    return Activity(interaction=made)


def impression(request: str, items: Sequence[str], at_ms: int = START_MS) -> Activity:
    """One answer to USER that showed `items` in order; the first was generated, explored traffic it is not."""
    made = Impression(request_id=request, user_id=USER, model_version=3, tokenizer_version=1, policy_version="beam@1")
    made.served_at.FromMilliseconds(at_ms)
    for position, item in enumerate(items):
        made.slots.add(item_id=item, position=position, source="generator", candidate_index=position)
        made.candidates.add(item_id=item, codes=[position, 1, 2], masked_log_probs=[-1.0, -2.0, -0.5])
    made.candidates.add(item_id="never shown", codes=[9, 9, 9])
    return Activity(impression=made)


def forget(at_ms: int = START_MS) -> Activity:
    """The wish of USER to be forgotten."""
    wish = Forget(user_id=USER)
    wish.requested_at.FromMilliseconds(at_ms)
    return Activity(forget=wish)


def act(event: str = "e", **given: object) -> Act:
    """The Act of `interaction`."""
    return act_of(interaction(event, **given).interaction, CONTEXT.items)  # type: ignore[arg-type]


def decoded(acts: Sequence[Activity], context: FoldContext = CONTEXT) -> Columns:
    """Acts as entries of the log, each recorded when it happened."""
    entries = [
        LogEntry(Record(0, offset, _at_ms(one), _at_ms(one)), USER, one.interaction) for offset, one in enumerate(acts)
    ]
    return columns(entries, [0] * len(entries), context)


def after(*acts: Activity, state: UserState = user.EMPTY, context: FoldContext = CONTEXT) -> UserState:
    """The state after acts, each of them a record of its own, recorded when it happened."""
    for one in acts:
        state, _ = user.fold_record(state, [one], Record(0, 0, _at_ms(one), _at_ms(one)), context)
    return state


def _at_ms(one: Activity) -> int:
    return one.interaction.occurred_at.ToMilliseconds()


def play(
    log: Sequence[Entry], state: UserState = user.EMPTY, first_offset: int = 0
) -> tuple[UserState, list[FoldResult]]:
    """The state and results after folding a log, one record after another."""
    results = []
    for offset, entry in enumerate(log, first_offset):
        record = Record(0, offset, entry.log_time_ms, entry.log_time_ms)
        state, result = user.fold_record(state, entry.activities, record, CONTEXT)
        results.append(result)
    return state, results


def sweep(state: UserState, log_time_ms: int) -> tuple[UserState, FoldResult]:
    """The state after time has passed, and what that closed."""
    return user.fold_record(state, (), Record(0, 0, log_time_ms, log_time_ms), CONTEXT)


def part(state: UserState, view: str) -> NDArray[np.void]:
    """The fields of one view of the user's row."""
    row: NDArray[np.void] = state.row[view][0]
    return row


def exposures(state: UserState) -> list[tuple[int, int, int, int]]:
    """The history: (at_s, item, actions, watch), oldest first."""
    row = part(state, "history")
    used = [row[name][: row["length"]].tolist() for name in ("at_s", "item", "actions", "watch")]
    return list(zip(*used, strict=True))


def positives(state: UserState) -> list[tuple[int, int, int]]:
    """The positive exposures: (at_s, item, first-level code), oldest first."""
    row = part(state, "history")
    names = ("positive_at_s", "positive_item", "positive_code")
    return list(zip(*(row[name][: row["positive_length"]].tolist() for name in names), strict=True))


def outcomes_of(results: Sequence[FoldResult]) -> list[Outcome]:
    """All outcomes, in order."""
    return [outcome for result in results for outcome in result.outcomes]


def stored(state: UserState) -> bytes:
    """All that a store keeps of a state, to compare."""
    answers = [user.attribution.pack(answer) for _, answer in sorted(state.attribution.answers.items())]
    return b"|".join([state.row.tobytes(), *answers])


_SECOND = st.integers(0, 300)
_REQUESTS = ("r0", "r1", "r2", "r3")


@st.composite
def activities(draw: st.DrawFn, number: int, at_ms: int) -> Activity:
    """An act or an impression near `at_ms`; event ids repeat now and then."""
    if draw(st.integers(0, 4)) == 0:
        shown = draw(st.lists(st.sampled_from("0123456"), min_size=1, max_size=3, unique=True))
        return impression(draw(st.sampled_from(_REQUESTS)), shown, at_ms - draw(_SECOND) * 100)
    event = f"e{number}" if draw(st.integers(0, 3)) else f"e{draw(st.integers(0, max(0, number - 1)))}"
    action = draw(st.sampled_from([value for value in Action.values() if value]))
    return interaction(
        event,
        draw(st.sampled_from("0123456")),
        action,
        at_ms - draw(_SECOND) * 1000,
        play_ms=draw(st.integers(0, 60_000)) if action == Action.ACTION_PLAY else None,
        duration_ms=draw(st.none() | st.integers(1, 200_000)),
        request=draw(st.sampled_from(("", *_REQUESTS))),
        location=draw(st.none() | st.sampled_from([PARIS, (48.9, 2.4), (-33.9, 151.2)])),
        value_micros=draw(st.none() | st.integers(0, 10**9)),
        currency="EUR",
    )


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Up to twelve records of one user, some of them empty: their time passes all the same."""
    log, now_ms, number = [], START_MS, 0
    for _ in range(draw(st.integers(1, 12))):
        now_ms += draw(_SECOND) * 200
        count = draw(st.integers(0, 3))
        log.append(Entry(now_ms, tuple(draw(activities(number + k, now_ms)) for k in range(count))))
        number += count
    return log
