"""One act, decoded once: what attribution and learning read instead of the protobuf message.

Engagement weights stand here because interests and popularity share them. They order the acts by
how much effort and intent they cost a person; a model learns the fine differences from the history.
"""

import math
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from core.ids import ItemKey, event_hash, item_key
from feature_repo.layouts import DIM, FIRST_CODES
from protos.events.v1.interaction_pb2 import Action, Interaction

ABSENT: Final = -1  # of play_ms, duration_ms and value_micros
UNKNOWN_PLACE: Final = -1  # of an item in the catalogue

# KuaiRand's rule: a short video counts as viewed when it was played through, a longer one after 18 s.
LONG_VIEW_MS: Final = 18_000

_PLAY: Final = int(Action.ACTION_PLAY)  # looked up once: generated enums resolve names at every use

ENGAGEMENT: Final[dict[int, float]] = {
    Action.ACTION_VIEW: 0.05,  # on screen: nearly nothing is known
    Action.ACTION_CLICK: 0.5,  # curiosity
    Action.ACTION_LIKE: 2.0,  # one tap, meant
    Action.ACTION_COMMENT: 2.5,
    Action.ACTION_SHARE: 3.0,  # stakes one's name on it
    Action.ACTION_FOLLOW: 3.0,
    Action.ACTION_ADD_TO_CART: 2.0,
    Action.ACTION_ORDER: 5.0,  # paid
    Action.ACTION_CHECK_IN: 4.0,  # went there
    Action.ACTION_DISLIKE: -2.0,  # as strong as a like, against it
}

POSITIVE: Final = frozenset(
    (
        Action.ACTION_LIKE,
        Action.ACTION_SHARE,
        Action.ACTION_COMMENT,
        Action.ACTION_FOLLOW,
        Action.ACTION_ADD_TO_CART,
        Action.ACTION_ORDER,
        Action.ACTION_CHECK_IN,
    )
)


class ItemTable(NamedTuple):
    """What compiled folds know of the I items of a published catalogue."""

    vectors: NDArray[np.float32]  # (I, DIM) of unit length
    first_codes: NDArray[np.uint8]  # (I,) first-level code
    tiers: NDArray[np.uint8]  # (I, FIRST_CODES) tier of the similarity to each code's prototype


class ItemLookup(Protocol):
    """What a published catalogue knows of items; handed in, so that folds stay pure."""

    @property
    def table(self) -> ItemTable:
        """The items' numbers, by place."""

    def place(self, key: ItemKey) -> int:
        """The item's place in `table`; -1 when the item is unknown."""

    def duration_ms(self, key: ItemKey) -> int:
        """Length of the item; -1 when unknown."""

    def location(self, key: ItemKey) -> tuple[float, float] | None:
        """Latitude and longitude in degrees; None when the item is not local or unknown."""


class NoItems:
    """The lookup of a platform without a catalogue yet."""

    table = ItemTable(np.zeros((0, DIM), np.float32), np.zeros(0, np.uint8), np.zeros((0, FIRST_CODES), np.uint8))

    def place(self, key: ItemKey) -> int:
        return UNKNOWN_PLACE

    def duration_ms(self, key: ItemKey) -> int:
        return ABSENT

    def location(self, key: ItemKey) -> tuple[float, float] | None:
        return None


class Act(NamedTuple):
    """An Interaction as the folds see it."""

    user_id: str
    item_key: ItemKey
    item_id: str
    action: int  # Action
    at_ms: int  # occurred_at
    play_ms: int  # ABSENT = not a play
    duration_ms: int  # the event's own, else the catalogue's; ABSENT = unknown
    value_micros: int  # ABSENT = none
    currency: str
    latitude: float  # NaN = unknown, as is longitude then
    longitude: float
    request_id: str
    event_hash: int
    origin: int  # Origin
    weight: float  # engagement; negative = against the item


def act_of(event: Interaction, items: ItemLookup) -> Act:
    """The act that a valid `event` reports."""
    key = item_key(event.item_id)
    at = event.occurred_at
    action = event.action
    play_ms = event.play_ms if event.HasField("play_ms") else ABSENT
    duration_ms = event.duration_ms if event.HasField("duration_ms") else items.duration_ms(key)
    located = event.HasField("location")
    return Act(
        event.user_id,
        key,
        event.item_id,
        action,
        at.seconds * 1000 + at.nanos // 1_000_000,
        play_ms,
        duration_ms,
        event.value_micros if event.HasField("value_micros") else ABSENT,
        event.currency,
        event.location.latitude if located else math.nan,
        event.location.longitude if located else math.nan,
        event.request_id,
        event_hash(event.event_id),
        event.origin,
        engagement(action, play_ms, duration_ms),
    )


def engagement(action: int, play_ms: int, duration_ms: int) -> float:
    """How much one act says for (or, negative, against) its item. A play counts by its share of a long view."""
    if action == _PLAY:
        return min(1.0, play_ms / long_view_ms(duration_ms)) if play_ms > 0 else 0.0
    return ENGAGEMENT.get(action, 0.0)


def long_view_ms(duration_ms: int) -> int:
    """Play time from which a play counts as a long view: the whole of a short item, else 18 s."""
    return min(duration_ms, LONG_VIEW_MS) if duration_ms > 0 else LONG_VIEW_MS


def is_positive(act: Act) -> bool:
    """Whether the act alone makes its exposure a positive one."""
    return act.action in POSITIVE or act.play_ms >= long_view_ms(act.duration_ms)
