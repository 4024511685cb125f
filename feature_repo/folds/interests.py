"""user_interests: what a person likes, as two vectors in the space of item vectors.

Both are decayed means of the vectors of the items acted on, weighted by engagement: `long_term` with
a half-life of days, `short_term` with one of minutes. The weights count by magnitude while a dislike's
vector counts negative, so a mean stays inside the unit ball and its length says how much the acts agree.
The sums behind the means commute, so a late act takes its place by its own age.

Stored form: vectors float16, weights float32; `seal` rounds to it once per record. The vectors belong
to one tokenizer: the first act under another begins them anew, and a replay restores what was lost.
"""

import struct
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_repo.folds.act import Act
from feature_repo.layouts import DIM

LONG_HALF_LIFE_MS: Final = 7 * 24 * 3600 * 1000  # tastes hold for weeks; one week forgets a phase
SHORT_HALF_LIFE_MS: Final = 20 * 60 * 1000  # about one session

_ROW: Final = struct.Struct(f"<qIff{2 * DIM}s{2 * DIM}s")
_WEIGHTS: Final = struct.Struct("<ff")


class InterestsState(NamedTuple):
    """One row, opened. The arrays are never written in place."""

    updated_ms: int
    tokenizer: int
    weight: float
    short_weight: float
    long_term: NDArray[np.float32]  # (DIM,)
    short_term: NDArray[np.float32]  # (DIM,)


EMPTY: Final = InterestsState(0, 0, 0.0, 0.0, np.zeros(DIM, np.float32), np.zeros(DIM, np.float32))


def fold(state: InterestsState, act: Act, vector: NDArray[np.float32] | None, tokenizer: int) -> InterestsState:
    """The state after `act` on an item with `vector` (DIM,); unchanged when the item is unknown."""
    if vector is None or act.weight == 0.0:
        return state
    if state.tokenizer != tokenizer:
        state = EMPTY._replace(tokenizer=tokenizer)
    newest = max(state.updated_ms, act.at_ms)
    old_age, act_age = newest - state.updated_ms, newest - act.at_ms
    weight, long_term = _mean(state.weight, state.long_term, old_age, act.weight, vector, act_age, LONG_HALF_LIFE_MS)
    short_weight, short_term = _mean(
        state.short_weight, state.short_term, old_age, act.weight, vector, act_age, SHORT_HALF_LIFE_MS
    )
    return InterestsState(newest, tokenizer, weight, short_weight, long_term, short_term)


def seal(state: InterestsState) -> InterestsState:
    """The state as its row will give it back: float16 vectors, float32 weights."""
    weight, short_weight = _WEIGHTS.unpack(_WEIGHTS.pack(state.weight, state.short_weight))
    return InterestsState(
        state.updated_ms,
        state.tokenizer,
        weight,
        short_weight,
        state.long_term.astype(np.float16).astype(np.float32),
        state.short_term.astype(np.float16).astype(np.float32),
    )


def pack(state: InterestsState) -> bytes:
    """The row of a sealed state."""
    return _ROW.pack(
        state.updated_ms,
        state.tokenizer,
        state.weight,
        state.short_weight,
        state.long_term.astype(np.float16).tobytes(),
        state.short_term.astype(np.float16).tobytes(),
    )


def unpack(row: bytes) -> InterestsState:
    """The state that `row` holds."""
    updated_ms, tokenizer, weight, short_weight, long_term, short_term = _ROW.unpack(row)
    return InterestsState(updated_ms, tokenizer, weight, short_weight, _vector(long_term), _vector(short_term))


def _mean(
    weight: float,
    mean: NDArray[np.float32],
    age_ms: int,
    act_weight: float,
    vector: NDArray[np.float32],
    act_age_ms: int,
    half_life_ms: int,
) -> tuple[float, NDArray[np.float32]]:
    old = weight * 0.5 ** (age_ms / half_life_ms)
    new = act_weight * 0.5 ** (act_age_ms / half_life_ms)
    total = old + abs(new)
    if total == 0.0:  # both have decayed to nothing
        return 0.0, mean
    return total, mean * np.float32(old / total) + vector * np.float32(new / total)


def _vector(half: bytes) -> NDArray[np.float32]:
    return np.frombuffer(half, np.float16).astype(np.float32)
