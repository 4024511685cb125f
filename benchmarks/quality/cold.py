"""Items that nobody has seen: a tenth of the catalogue is held out of all training, and then asked for.

Which items is a property of their ids, so that they are the same for every model, stage and seed. An item may stand in
the history of somebody who took it before; who took the very item that is asked for is not asked. The held-out items
are the last of the catalogue, as those are that come later.

Among themselves, held-out items tell how well new items are known; in a catalogue that has grown by them all questions
are asked, since what is shown of new items is taken from the known ones.
"""

import hashlib
from typing import Final

import numpy as np

from benchmarks.quality.split import Flags, Split, seen_pairs

SHARE: Final = 0.1


def hold_out_items(split: Split, *, grown: bool) -> Split:
    """The question where only acts on the other items are learned from.

    Args:
        grown: whether all items are candidates and all are asked for, new and known ones apart, too; else the held-out
            ones are.
    """
    held = held_out(split)
    order = np.argsort(held, kind="stable")
    places = np.argsort(order).astype(np.int32)  # where each item stands afterwards
    held, events = held[order], split.events._replace(items=places[split.events.items])
    targets = events.items[split.asked]
    rows, seen = seen_pairs(events, split.asked)
    again = (np.bincount(rows[seen == targets[rows]], minlength=len(targets)) > 0) & held[targets]
    new = held[targets]
    kept = ~again if grown else new & ~again
    return split._replace(
        protocol=f"{split.protocol}, {'a catalogue that has grown' if grown else 'cold items among cold items'}",
        items=[split.items[place] for place in order],
        events=events,
        learn=split.learn & ~held[events.items],
        asked=split.asked[kept],
        groups={"new item": new[kept], "known item": ~new[kept]} if grown else {},
        ranked=None if grown else held,
        new=int(held.sum()),
    )


def held_out(split: Split) -> Flags:
    """(I,) which items nobody may learn from."""
    return np.array([_draw(item.item_id) < SHARE for item in split.items], np.bool_)


def _draw(item_id: str) -> float:
    return int.from_bytes(hashlib.blake2b(item_id.encode(), digest_size=4).digest(), "little") / 2**32
