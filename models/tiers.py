"""What compiled folds know of a catalogue: vectors, first-level codes, and GLASS's similarity tiers.

Source: GLASS, arXiv:2602.05663 §4. A first-level code's prototype is the mean vector of its items; an item falls, for
each code, into the tier of its similarity to the prototype. Kept from the authors' code: the edges, and the mean of
all items for codes without any. Changed: the cosine of the paper where the code takes a dot product.
"""

import numpy as np
import numpy.typing as npt

from core.errors import ContractError
from feature_repo.folds.act import ItemTable
from feature_repo.folds.interests import TIER_EDGES
from feature_repo.layouts import FIRST_CODES


def item_table(vectors: npt.NDArray[np.float32], first_codes: npt.NDArray[np.int32]) -> ItemTable:
    """The table of I items with unit `vectors` (I, D) and `first_codes` (I,), or the groups of like ones.

    Raises:
        ContractError: there are more first-level codes than a user's row has room for.
    """
    if len(first_codes) and first_codes.max() >= FIRST_CODES:
        raise ContractError(
            f"found first-level code {first_codes.max()}, expected codes below {FIRST_CODES}; "
            "give `models.semantic_ids.code_groups` of them"
        )
    similarity = vectors @ _prototypes(vectors, first_codes).T
    tiers = np.searchsorted(np.array(TIER_EDGES, np.float32), similarity, side="right")
    return ItemTable(np.ascontiguousarray(vectors), first_codes.astype(np.uint8), tiers.astype(np.uint8))


def _prototypes(vectors: npt.NDArray[np.float32], first_codes: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """(FIRST_CODES, D) of unit length; zeros of an empty catalogue."""
    sums = np.zeros((FIRST_CODES, vectors.shape[1]), np.float32)
    np.add.at(sums, first_codes, vectors)
    empty = np.bincount(first_codes, minlength=FIRST_CODES) == 0
    sums[empty] = vectors.sum(0)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(sums / np.maximum(norms, 1e-12), np.float32)
