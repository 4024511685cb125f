"""People who act on what they are shown: a user model turned into events.

A slate of short videos is a feed: every slot comes on screen, top first, and is played for as long as
the model says before the next one. Nobody leaves early; position has no effect. Both are left out of
this first simulator, and an estimate made with it says nothing about order within a slate.
"""

from collections.abc import Callable, Sequence
from itertools import compress
from typing import Final, NamedTuple

import numpy as np

from models.catalog import Catalog
from protos.events.v1.interaction_pb2 import ORIGIN_SIMULATED, Action, Interaction, Location
from rl.user_model import ACTS, UNKNOWN_DURATION_MS, UserModel, Viewers, draw

LOOK_MS: Final = 1_000  # an item that is not played stays on screen this long
AFTER_PLAY_MS: Final = 300  # from the end of a play to the tap on like
_SURFACE: Final = "simulator"


class Slate(NamedTuple):
    """An answer, as its user sees it."""

    request_id: str
    served_at_ms: int
    item_ids: Sequence[str]  # top first
    location: Location | None  # where the user is


def slate_acts(
    model: UserModel,
    catalog: Catalog,
    viewers: Viewers,
    slate: Slate,
    *,
    rng: np.random.Generator,
    new_id: Callable[[], str],
) -> list[Interaction]:
    """What one user does with one slate: events in order of time, naming the request, origin simulated.

    Args:
        catalog: the one the model speaks of. An item that it does not know is looked at and not played.
        viewers: the one user.
        rng: decides everything that is left to chance.
        new_id: gives event ids, unique among all events ever.
    """
    indices = [catalog.index_of(item_id) for item_id in slate.item_ids]
    known = [slot for slot, index in enumerate(indices) if index is not None]
    items = np.array([index for index in indices if index is not None], np.int32)
    responses = draw(model.predict(viewers, np.zeros(len(items), np.int64), items), rng)
    events: list[Interaction] = []
    now_ms = slate.served_at_ms

    def add(item_id: str, action: Action.ValueType) -> Interaction:
        event = Interaction(
            event_id=new_id(),
            user_id=viewers.user_ids[0],
            item_id=item_id,
            action=action,
            request_id=slate.request_id,
            surface=_SURFACE,
            origin=ORIGIN_SIMULATED,
            location=slate.location,
        )
        event.occurred_at.FromMilliseconds(now_ms)
        events.append(event)
        return event

    for slot, item_id in enumerate(slate.item_ids):
        place = known.index(slot) if slot in known else None
        share = float(responses.watch_share[place]) if place is not None else 0.0
        if place is None or share == 0.0:
            now_ms += LOOK_MS
            add(item_id, Action.ACTION_VIEW)
        else:
            duration_ms = int(catalog.durations_ms[items[place]])
            play_ms = max(1, round(share * (duration_ms if duration_ms > 0 else UNKNOWN_DURATION_MS)))
            now_ms += play_ms
            played = add(item_id, Action.ACTION_PLAY)
            played.play_ms = play_ms
            if duration_ms > 0:
                played.duration_ms = duration_ms
        for action in compress(ACTS, responses.acts[place]) if place is not None else ():
            now_ms += AFTER_PLAY_MS
            done, described = add(item_id, action), catalog.items[items[place]]
            if action == Action.ACTION_ORDER and described.HasField("price_micros"):
                done.value_micros, done.currency = described.price_micros, described.currency
    return events
