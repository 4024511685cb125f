"""The health report of semantic ids: what paths cost, how codes are used, what prefixes mean, and what has changed.

Letters used in this file
    I items   D width of a vector   L levels   V codes of one level   d depth of a prefix

Everything is computed from vectors, codebook and paths, so a version published long ago can be judged like a new
build. `require_health` refuses a build that a generator could learn nothing from, before hours are spent on it.

Source: OneRec, arXiv:2506.13695 §2 (reconstruction error, usage, entropy). Added: the price of one path per item,
purity and churn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from core.errors import ArtefactError
from models.k_means import Floats, Ints
from models.semantic_ids import Codebook, nearest_paths, path_errors
from models.trie import path_numbers


class Health(NamedTuple):
    """How good an assignment of paths is. A share is between 0 and 1."""

    items: int
    size: int  # V
    nearest_error: float  # mean squared distance of vector and path when every item takes its nearest codes
    error: float  # the same for the paths as they are; unit vectors, so 1 would be no information
    usage: tuple[float, ...]  # per level, share of the codes that at least one item has
    entropy: tuple[float, ...]  # per level, natural log; ln V is a perfectly even use
    collisions: int  # items beyond the first on their nearest path
    largest_bucket: int  # most items on one nearest path
    moved: int  # items whose path is not their nearest
    spilled: int  # items for whom there is no room behind the nearest prefix of depth L - 1
    purity: tuple[float, ...]  # per d = 0 .. L - 1, share of items whose category is the commonest behind their prefix
    churn: tuple[float, ...] = ()  # per d = 1 .. L, share of items of both versions whose prefix changed; () = no other

    def lines(self) -> list[str]:
        """The report as a person reads it."""
        return [f"{name}: {value}" for name, value in self.rows().items()]

    def rows(self) -> Mapping[str, str]:
        """Every number by its name, as text."""
        even = np.log(self.size)
        told = {
            "items": f"{self.items}",
            "squared error": f"{self.error:.4f} ({self.nearest_error:.4f} with nearest paths)",
            "codes used per level": _listed(self.usage, "{:.1%}"),
            "entropy per level": f"{_listed(self.entropy, '{:.2f}')} (even use: {even:.2f})",
            "collisions": f"{self.collisions}, the fullest nearest path holds {self.largest_bucket}",
            "items not on their nearest path": f"{self.moved}",
            "items without room behind their prefix": f"{self.spilled}",
        }
        if self.purity:
            told["purity of categories at depth 0, 1, ..."] = _listed(self.purity, "{:.2f}")
        if self.churn:
            told["prefixes changed at depth 1, 2, ..."] = _listed(self.churn, "{:.1%}")
        return told


@dataclass(frozen=True)
class HealthLimits:
    """What a build may not cross. Not asked of a catalogue no larger than one level: its items differ by first code."""

    error: float = 0.8
    """At most. Paths that explain a fifth of a unit vector say little; the excerpt has 0.30, random vectors 0.75."""
    usage: float = 0.5
    """At least, on every level. Codes nobody has are outputs that the generator learns to avoid, and nothing else."""
    entropy: float = 0.4
    """At least, on every level, as a share of ln V. The excerpt has 0.95; 5 codes of 64 in even use, 0.4."""
    moved: float = 0.9
    """At most, as a share of the items. A moved item stands where its vector does not say. Balance moves many, and so
    does a small city: 400 places behind 16 codes a level, 0.45 - 0.67."""
    spilled: float = 0.25
    """At most, as a share of the items. They stand behind prefixes that mean something else, so these mean two things.
    Constant vectors spill nearly all; the excerpt none."""
    churn: float = 1.0
    """At most, at depth 1. Codes of two builds are numbered apart, so all may change; lower it where they may not."""


def health_of(
    vectors: Floats,
    codebook: Codebook,
    codes: Ints,
    *,
    categories: Sequence[str] = (),
    before: tuple[Ints, Ints] | None = None,
) -> Health:
    """The report on I items with `vectors` (I, D) and paths `codes` (I, L).

    Args:
        categories: (I,) one name per item; items of the name "" have none and do not count. () = purity is left out.
        before: the paths of items known to both versions, (n, L) in the earlier one and (n, L) now.
    """
    paths = nearest_paths(vectors, codebook)
    counts = np.unique(path_numbers(paths, codebook.size), return_counts=True)[1]
    usage, entropy = zip(*(_use(codes[:, level], codebook.size) for level in range(codebook.levels)), strict=True)
    return Health(
        items=len(vectors),
        size=codebook.size,
        nearest_error=float(path_errors(vectors, paths, codebook).mean()),
        error=float(path_errors(vectors, codes, codebook).mean()),
        usage=usage,
        entropy=entropy,
        collisions=int(len(vectors) - len(counts)),
        largest_bucket=int(counts.max()),
        moved=int((paths != codes).any(axis=1).sum()),
        spilled=_spilled(paths, codebook.size),
        purity=purity(codes, categories) if any(categories) else (),
        churn=churn(*before) if before is not None and len(before[0]) else (),
    )


def purity(codes: Ints, categories: Sequence[str]) -> tuple[float, ...]:
    """(L,) per depth 0 .. L - 1, share of items whose category is the commonest behind their prefix.

    At depth 0 all items are behind one prefix: what any deeper one has to beat. At depth L every item would be alone.
    """
    names, kinds = np.unique(np.asarray(categories, dtype=object).astype(str), return_inverse=True)
    told = names[kinds] != ""
    codes, kinds = codes[told], kinds[told].astype(np.int64)
    found = []
    prefixes = np.zeros(len(codes), np.int64)
    for depth in range(codes.shape[1]):
        cells, counts = np.unique(prefixes * len(names) + kinds, return_counts=True)
        _, starts = np.unique(cells // len(names), return_index=True)
        found.append(float(np.maximum.reduceat(counts, starts).sum() / len(codes)))
        prefixes = np.unique(prefixes * (int(codes.max()) + 1) + codes[:, depth], return_inverse=True)[1]
    return tuple(found)


def churn(before: Ints, now: Ints) -> tuple[float, ...]:
    """(L,) per depth 1 .. L, share of the items whose prefix of that depth differs between the versions.

    Args:
        before, now: (n, L) paths of the same items, at least one. A version with another number of levels changed all.
    """
    if before.shape != now.shape:
        return tuple(1.0 for _ in now.T)
    changed = np.logical_or.accumulate(before != now, axis=1)
    return tuple(float(share) for share in changed.mean(axis=0))


def require_spread(vectors: Floats, codebook: Codebook, limits: HealthLimits) -> None:
    """Nothing happens when prefixes have room; asked before paths are assigned, which takes long if they have none.

    Raises:
        ArtefactError: so many vectors are alike that their prefixes would mean nothing.
    """
    spilled = _spilled(nearest_paths(vectors, codebook), codebook.size)
    if len(vectors) > codebook.size and spilled > limits.spilled * len(vectors):
        raise ArtefactError(
            f"these semantic ids are not fit to learn from: found {spilled} of {len(vectors)} items without room "
            f"behind their prefix, expected at most {limits.spilled:.0%}; their vectors are (nearly) equal: give items "
            "titles and tags that tell them apart, or use larger codebooks"
        )


def require_health(health: Health, limits: HealthLimits) -> None:
    """Nothing happens when the build is within its limits.

    Raises:
        ArtefactError: naming each number that is not, what was expected, and what to try.
    """
    faults = _faults(health, limits) if health.items > health.size else []
    if health.churn and health.churn[0] > limits.churn:
        wanted = f"expected at most {limits.churn:.0%}"
        faults.append(f"found {health.churn[0]:.0%} of the items under another first code, {wanted}; keep the version")
    if faults:
        raise ArtefactError("these semantic ids are not fit to learn from: " + ". ".join(faults))


def _faults(health: Health, limits: HealthLimits) -> list[str]:
    faults = []
    if health.error > limits.error:
        faults.append(f"found squared error {health.error:.3f}, expected at most {limits.error}; use larger codebooks")
    for level, (used, nats) in enumerate(zip(health.usage, health.entropy, strict=True), start=1):
        if used < limits.usage:
            faults.append(
                f"found {used:.0%} of the codes of level {level} in use, expected at least {limits.usage:.0%}; "
                "use smaller codebooks"
            )
        if nats < limits.entropy * np.log(health.size):
            faults.append(
                f"found entropy {nats:.2f} on level {level}, expected at least "
                f"{limits.entropy * np.log(health.size):.2f}; use smaller codebooks, or the balanced variant"
            )
    if health.moved > limits.moved * health.items:
        faults.append(
            f"found {health.moved} of {health.items} items off their nearest path, expected at most "
            f"{limits.moved:.0%}; use larger codebooks"
        )
    return faults


def _spilled(paths: Ints, size: int) -> int:
    counts = np.unique(path_numbers(paths[:, :-1], size), return_counts=True)[1]
    return int(np.maximum(counts - size, 0).sum())


def _use(codes: Ints, size: int) -> tuple[float, float]:
    shares = np.bincount(codes, minlength=size) / len(codes)
    used = shares[shares > 0]
    return float(len(used) / size), float(-(used * np.log(used)).sum())


def _listed(numbers: Sequence[float], form: str) -> str:
    return " / ".join(form.format(number) for number in numbers)
