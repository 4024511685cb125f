"""The stored form of every view: one fixed little-endian record per entity.

What is kept about a user is one record, USER, made of one part per view: the parts change together, so
they are one row and one write. A row of the packed store is `key, event time, layout version, tokenizer
version, one bytes value`. The folds work on these very records, in place: there is no other form of a
state, nothing is packed or unpacked, and rounding (float16) happens with every activity, so neither
batch borders nor caches leave a trace.

A changed dtype is a new LAYOUT_VERSION and a replay of the log, never a reinterpretation.

A USER row stays below 3,900 bytes: then two fit a page of PostgreSQL, which is twice as fast to write
as one (docs/log.md); values are stored plain, never out of line.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

LAYOUT_VERSION: Final = 2

DIM: Final = 64  # width of an item vector, and so of an interest vector
INTERESTS_KEPT: Final = 3  # several interest vectors, by nearest centre
FIRST_CODES: Final = 64  # first-level codes that states tell apart; of a larger codebook, groups of like codes
TIERS: Final = 4  # similarity tiers per first-level code, GLASS
HISTORY: Final = 50  # exposures a user's history keeps
POSITIVES: Final = 48  # positive exposures kept beyond the history's reach
SEEN_EVENTS: Final = 64  # event-id hashes kept to recognise a client's retry
WATCH_BUCKETS: Final = 12  # floor(log2(duration in seconds)), clipped to 0 .. 11
WATCH_PEERS: Final = 24  # newest plays kept per bucket
PLACE_CELLS: Final = 8  # cells a user is remembered in
POPULAR: Final = 48  # items a cell's popularity row keeps

NO_CODE: Final = 255  # in place of a first-level code: the catalogue did not know the item

INTERESTS: Final = np.dtype(
    [
        ("updated_ms", "<i8"),  # newest act folded in, event time
        ("tokenizer", "<u4"),  # version that vectors, tiers and codes were computed with
        ("weight", "<f4"),  # decayed sum of engagement weights behind long_term
        ("short_weight", "<f4"),  # the same behind short_term: how much recent evidence there is
        ("long_term", "<f2", (DIM,)),  # decayed, engagement-weighted mean of item vectors
        ("short_term", "<f2", (DIM,)),  # the same with a half-life of minutes
        ("interest_weight", "<f4", (INTERESTS_KEPT,)),  # decayed weight behind each interest; 0 = unused
        ("interest", "<f2", (INTERESTS_KEPT, DIM)),  # means of the acts nearest to each
        ("tier_items", "u1"),  # items behind the tier counts; all are halved at 255
        ("tiers", "u1", (FIRST_CODES, TIERS)),  # items per similarity to the code's prototype (GLASS §4)
    ]
)

HISTORY_ROW: Final = np.dtype(
    [
        ("updated_ms", "<i8"),
        ("applied", "<u4"),  # interactions of the user applied, ever
        ("duplicates", "<u4"),  # activities skipped because their id was seen
        ("log_partition", "<i4"),  # activity.v1 record that the row reflects
        ("log_offset", "<i8"),
        ("length", "<u2"),  # entries used below, oldest first
        ("item", "<i8", (HISTORY,)),  # core.ids.item_key
        ("at_s", "<u4", (HISTORY,)),  # first act of the exposure, seconds since 1970
        ("actions", "<u2", (HISTORY,)),  # bit (Action - 1) set for each kind of act
        ("watch", "u1", (HISTORY,)),  # 100 * play / duration, at most 250; 255 = not known
        ("positive_length", "<u2"),
        ("positive_item", "<i8", (POSITIVES,)),  # oldest first
        ("positive_at_s", "<u4", (POSITIVES,)),
        ("positive_code", "u1", (POSITIVES,)),  # first-level code: with it the list is an index; NO_CODE = unknown
        ("seen_count", "<u4"),  # ids remembered, ever; the newest stands at (seen_count - 1) % SEEN_EVENTS
        ("seen", "<u8", (SEEN_EVENTS,)),  # core.ids.event_hash, a ring; 0 = unused
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

USER: Final = np.dtype([("interests", INTERESTS), ("history", HISTORY_ROW), ("watch", WATCH), ("places", PLACES)])

# What many users do to one thing. Each source partition keeps a partial sum of its own; reading adds them.
# Popularity of items in an H3 cell, or everywhere (entity "global"):
CELLS: Final = np.dtype(
    [
        ("updated_ms", "<i8"),
        ("weight", "<f4"),  # decayed engagement behind `context`
        ("context", "<f4", (DIM,)),  # decayed, engagement-weighted sum of the vectors of the items acted on
        ("length", "<u2"),
        ("item", "<i8", (POPULAR,)),
        ("score", "<f4", (POPULAR,)),  # decayed engagement at updated_ms
    ]
)

# Counts of one item, decayed to updated_ms:
ITEMS: Final = np.dtype(
    [
        ("updated_ms", "<i8"),
        ("shown", "<f4"),  # slots in answers
        ("plays", "<f4"),
        ("watched", "<f4"),  # sum of watch shares of the plays of known duration, each at most 2.5
        ("positives", "<f4"),  # likes, shares, orders ... and long views
        ("dislikes", "<f4"),
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


def user_rows(rows: NDArray[np.void], found: NDArray[np.bool_] | None = None) -> UserRows:
    """The parts of USER rows (B,), as views; all are taken as found unless told otherwise."""
    present = np.ones(len(rows), bool) if found is None else found
    return UserRows(rows["interests"], rows["history"], rows["watch"], rows["places"], present)
