"""The stored form of every view: one fixed little-endian record per entity.

A row of the packed store is `key, event time, layout version, tokenizer version, one bytes value`;
the value is exactly one record of the view's dtype below. Fixed layouts make packing a memory copy
in both directions and a batch of rows one array. Rounding (float16, uint8, deciseconds) happens in
the fold at every record, so what is stored is the state itself, not a picture of it.

A changed dtype is a new LAYOUT_VERSION and a replay of the log, never a reinterpretation.

Sizes stay below 2,000 bytes a row: above that PostgreSQL moves the value out of line.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

LAYOUT_VERSION: Final = 1

DIM: Final = 64  # width of an item vector, and so of an interest vector
HISTORY: Final = 50  # acts a user's history keeps
POSITIVES: Final = 30  # positive acts kept beyond the history's reach
SEEN_EVENTS: Final = 64  # event-id hashes kept to recognise a client's retry
WATCH_BUCKETS: Final = 12  # floor(log2(duration in seconds)), clipped to 0 .. 11
WATCH_PEERS: Final = 24  # newest plays kept per bucket
PLACE_CELLS: Final = 8  # cells a user is remembered in
POPULAR: Final = 48  # items a cell's popularity row keeps

INTERESTS: Final = np.dtype(
    [
        ("updated_ms", "<i8"),  # newest act folded in, event time
        ("tokenizer", "<u4"),  # version that the vectors were computed with
        ("weight", "<f4"),  # decayed sum of engagement weights behind long_term
        ("short_weight", "<f4"),  # the same behind short_term: how much recent evidence there is
        ("long_term", "<f2", (DIM,)),  # decayed, engagement-weighted mean of item vectors
        ("short_term", "<f2", (DIM,)),  # the same with a half-life of minutes
    ]
)

HISTORY_ROW: Final = np.dtype(
    [
        ("updated_ms", "<i8"),
        ("applied", "<u4"),  # interactions of the user applied, ever
        ("duplicates", "<u4"),  # interactions skipped because their event_id was seen
        ("log_partition", "<i4"),  # activity.v1 record that the row reflects
        ("log_offset", "<i8"),
        ("length", "<u2"),  # entries used below, oldest first
        ("item", "<i8", (HISTORY,)),  # core.ids.item_key
        ("at_s", "<u4", (HISTORY,)),  # first act of the exposure, seconds since 1970
        ("actions", "<u2", (HISTORY,)),  # bit (Action - 1) set for each kind of act
        ("watch", "u1", (HISTORY,)),  # 100 * play / duration, at most 250; 255 = not known
        ("positive_length", "<u2"),
        ("positive_item", "<i8", (POSITIVES,)),
        ("positive_at_s", "<u4", (POSITIVES,)),
        ("seen_length", "<u2"),
        ("seen", "<u8", (SEEN_EVENTS,)),  # core.ids.event_hash, oldest first
    ]
)

WATCH: Final = np.dtype(
    [
        ("updated_ms", "<i8"),
        ("count", "<u4", (WATCH_BUCKETS,)),  # plays ever, per duration bucket
        ("length", "u1", (WATCH_BUCKETS,)),
        ("play_ds", "<u2", (WATCH_BUCKETS, WATCH_PEERS)),  # play times, tenths of a second, oldest first
    ]
)

PLACES: Final = np.dtype(
    [
        ("updated_ms", "<i8"),
        ("last_cell", "<u8"),  # H3 index; 0 = none
        ("last_latitude", "<f4"),
        ("last_longitude", "<f4"),
        ("home_cell", "<u8"),  # the cell of most night-time acts; 0 = not known
        ("work_cell", "<u8"),  # the cell of most working-hour acts that is not home; 0 = not known
        ("radius_m", "<f4"),  # decayed mean distance from the decayed mean position
        ("mean_latitude", "<f4"),
        ("mean_longitude", "<f4"),
        ("length", "u1"),
        ("cell", "<u8", (PLACE_CELLS,)),
        ("night", "<u2", (PLACE_CELLS,)),
        ("day", "<u2", (PLACE_CELLS,)),
    ]
)

# Popularity of items in an H3 cell, or everywhere (entity "global"). Written as partial sums, one
# per source partition, and merged into the Feast row.
CELLS: Final = np.dtype(
    [
        ("updated_ms", "<i8"),
        ("length", "<u2"),
        ("item", "<i8", (POPULAR,)),
        ("score", "<f4", (POPULAR,)),  # decayed engagement at updated_ms
    ]
)

GLOBAL_CELL: Final = "global"


class UserRows(NamedTuple):
    """The stored rows of B users, in the order asked for; zeros where a user was not found."""

    interests: NDArray[np.void]  # (B,) INTERESTS
    history: NDArray[np.void]  # (B,) HISTORY_ROW
    watch: NDArray[np.void]  # (B,) WATCH
    places: NDArray[np.void]  # (B,) PLACES
    found: NDArray[np.bool_]  # (B,)
