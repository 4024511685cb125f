"""Identities: how names from outside become the numbers that states and rows hold.

An item's name is any UTF-8 string; a state row has eight bytes for it. `item_key` is a pure
function of the name, so a worker can fold an act on an item that no catalogue has told it of yet.
Decimal names below 2**62 are their own key, which keeps rows readable for most platforms; every
other name is hashed into 2**62 .. 2**63-1, so that the two kinds never meet (docs/adr/0003).
"""

import hashlib
from typing import NewType

ItemKey = NewType("ItemKey", int)

_HASHED = 1 << 62
_DIGITS = len(str(_HASHED))  # longer is hashed anyway, and int() refuses very long decimals


def item_key(item_id: str) -> ItemKey:
    """The 63-bit key of an item's name. Canonical decimals map to themselves, all else is hashed."""
    if len(item_id) <= _DIGITS and item_id.isascii() and item_id.isdigit() and (item_id == "0" or item_id[0] != "0"):
        number = int(item_id)
        if number < _HASHED:
            return ItemKey(number)
    return ItemKey(_HASHED | (_hash64(item_id) & (_HASHED - 1)))


def event_hash(event_id: str) -> int:
    """The 64-bit hash by which a user's state recognises an event id it has seen; never 0."""
    return _hash64(event_id) or 1


def outcome_id(request_id: str, item_id: str) -> str:
    """The id of the outcome of showing `item_id` in answer to `request_id`: the same at every repeat."""
    return hashlib.blake2b(f"{request_id}\x00{item_id}".encode(), digest_size=16).hexdigest()


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
