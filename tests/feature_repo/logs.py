"""A tiny world for fold tests: five items, and logs made of what hypothesis draws."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.ids import ItemKey
from feature_repo.folds import user
from feature_repo.folds.act import Act, act_of
from feature_repo.folds.context import FoldContext, Record
from feature_repo.folds.user import FoldResult, UserState
from feature_repo.layouts import DIM
from protos.events.v1.activity_pb2 import Activity
from protos.events.v1.impression_pb2 import Impression
from protos.events.v1.interaction_pb2 import Action, Interaction, Origin
from protos.events.v1.outcome_pb2 import Outcome

START_MS = 1_750_000_000_000  # a Sunday in June 2025, 15:06 UTC
HORIZON_MS = 60_000
USER = "ann"
PARIS = (48.8566, 2.3522)


class FiveItems:
    """Items 0 .. 4 with unit vectors along five axes; 5 and beyond are unknown."""

    def vector(self, key: ItemKey) -> NDArray[np.float32] | None:
        return np.eye(DIM, dtype=np.float32)[key] if key < 5 else None

    def duration_ms(self, key: ItemKey) -> int:
        return 20_000 if key < 5 else -1

    def location(self, key: ItemKey) -> tuple[float, float] | None:
        return PARIS if key == 0 else None


CONTEXT = FoldContext(FiveItems(), tokenizer_version=1, horizon_ms=HORIZON_MS, location_resolution=9)


class Entry(NamedTuple):
    """One record of one user, as a test writes it."""

    log_time_ms: int
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


def act(event: str = "e", **given: object) -> Act:
    """The Act of `interaction`."""
    return act_of(interaction(event, **given).interaction, CONTEXT.items)  # type: ignore[arg-type]


def play(
    log: Sequence[Entry], state: UserState = user.EMPTY, first_offset: int = 0
) -> tuple[UserState, list[FoldResult]]:
    """The state and results after folding a log, one record after another."""
    results = []
    for offset, entry in enumerate(log, first_offset):
        state, result = user.fold_record(state, entry.activities, Record(0, offset, entry.log_time_ms), CONTEXT)
        results.append(result)
    return state, results


def outcomes_of(results: Sequence[FoldResult]) -> list[Outcome]:
    """All outcomes, in order."""
    return [outcome for result in results for outcome in result.outcomes]


def stored(state: UserState) -> bytes:
    """All that a store keeps of a state, to compare."""
    rows = user.pack([state])
    answers = [user.attribution.pack(answer) for _, answer in sorted(state.attribution.answers.items())]
    return b"|".join([*(column.tobytes() for column in rows), *answers])


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
