"""People who act on what they are shown: a user model turned into events.

A slate of short videos is a feed: every slot comes on screen, top first, and is played for as long as
the model says before the next one. Nobody leaves early; position has no effect. Both are left out of
this first simulator, and an estimate made with it says nothing about order within a slate.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from core.errors import InputError
from models.catalog import Catalog
from protos.events.v1.interaction_pb2 import ORIGIN_SIMULATED, Action, Interaction, Location
from rl.user_model import ACTS, UNKNOWN_DURATION_MS, Responses, UserModel, Viewers, draw

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
        catalog: the one the model speaks of.
        viewers: the one user.
        rng: decides everything that is left to chance.
        new_id: gives event ids, unique among all events ever.

    Raises:
        InputError: the slate holds an item that the catalogue does not know.
    """
    indices = [catalog.index_of(item_id) for item_id in slate.item_ids]
    if None in indices:
        unknown = slate.item_ids[indices.index(None)]
        raise InputError(f"found item {unknown!r} in a slate, expected one of the catalogue's {len(catalog)} items")
    items = np.array(indices, np.int32)
    responses = draw(model.predict(viewers, np.zeros(len(items), np.int64), items), rng)
    return _events(catalog, viewers.user_ids[0], slate, items, responses, new_id)


def _events(
    catalog: Catalog,
    user_id: str,
    slate: Slate,
    items: np.typing.NDArray[np.int32],
    responses: Responses,
    new_id: Callable[[], str],
) -> list[Interaction]:
    events: list[Interaction] = []
    now_ms = slate.served_at_ms

    def add(item: int, action: Action.ValueType) -> Interaction:
        described = catalog.items[item]
        event = Interaction(
            event_id=new_id(),
            user_id=user_id,
            item_id=described.item_id,
            action=action,
            request_id=slate.request_id,
            surface=_SURFACE,
            origin=ORIGIN_SIMULATED,
            location=slate.location,
        )
        event.occurred_at.FromMilliseconds(now_ms)
        if action == Action.ACTION_ORDER and described.HasField("price_micros"):
            event.value_micros, event.currency = described.price_micros, described.currency
        events.append(event)
        return event

    for slot, item in enumerate(items.tolist()):
        share, known_ms = float(responses.watch_share[slot]), int(catalog.durations_ms[item])
        if share > 0.0:
            play_ms = max(1, round(share * (known_ms if known_ms > 0 else UNKNOWN_DURATION_MS)))
            now_ms += play_ms
            played = add(item, Action.ACTION_PLAY)
            played.play_ms = play_ms
            if known_ms > 0:
                played.duration_ms = known_ms
        else:
            now_ms += LOOK_MS
            add(item, Action.ACTION_VIEW)
        for action, done in zip(ACTS, responses.acts[slot], strict=True):
            if done:
                now_ms += AFTER_PLAY_MS
                add(item, action)
    return events
