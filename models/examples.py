"""What a generator is trained on: requests and the items that turned out good, and where batches of them come from.

Letters used in this file
    n requests   k targets of a request

A source gives the same batches in the same order for the same seed and epoch, and can begin at any of them: so
training that was killed goes on as though nothing had happened. One is here, in memory; `models.example_shards`
reads from disk what memory does not hold.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from models.batches import ContextBatch, Ints, take_rows
from models.checkpoints import digest_of, run_digest


class Examples(NamedTuple):
    """What is learned from."""

    context: ContextBatch  # of n requests
    items: Ints  # (n, k) catalogue index of each target, -1 = padding


class ExampleFacts(NamedTuple):
    """What must be known of examples before hours are spent on them."""

    requests: int  # n
    targets: int  # that are no padding
    tokens: int  # item tokens of a context
    highest_item: int  # -1 = no target
    finite: bool  # no NaN and no infinity among interests and places
    digest: str  # of all the arrays, so that a checkpoint knows its examples

    def joined(self, other: "ExampleFacts") -> "ExampleFacts":
        """Of both together; `tokens` is the larger."""
        return ExampleFacts(
            self.requests + other.requests,
            self.targets + other.targets,
            max(self.tokens, other.tokens),
            max(self.highest_item, other.highest_item),
            self.finite and other.finite,
            run_digest(self.digest, other.digest),
        )


def facts_of(examples: Examples) -> ExampleFacts:
    """The facts of examples in memory."""
    context, items = examples
    return ExampleFacts(
        requests=len(items),
        targets=int((items >= 0).sum()),
        tokens=context.mask.shape[1],
        highest_item=int(items.max(initial=-1)),
        finite=bool(np.isfinite(context.interests).all() and np.isfinite(context.place).all()),
        digest=digest_of([*context, items]),
    )


class ExampleSource(Protocol):
    """Examples as batches."""

    @property
    def facts(self) -> ExampleFacts:
        """Of all the examples."""
        ...

    def batches(self, batch_size: int, *, seed: int, epoch: int, skip: int = 0) -> Iterator[Examples]:
        """Every example once, in an order that depends on nothing but `seed` and `epoch`.

        Args:
            batch_size: requests of a batch; only the last may have fewer.
            skip: batches that are left out at the beginning.
        """
        ...


class ExamplesInMemory:
    """Examples that memory holds."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples
        self._facts = facts_of(examples)

    @property
    def facts(self) -> ExampleFacts:
        return self._facts

    def batches(self, batch_size: int, *, seed: int, epoch: int, skip: int = 0) -> Iterator[Examples]:
        order = np.random.default_rng([seed, epoch]).permutation(self._facts.requests)
        for start in range(skip * batch_size, len(order), batch_size):
            yield rows_of_examples(self._examples, order[start : start + batch_size])


def rows_of_examples(examples: Examples, rows: npt.NDArray[np.int64] | slice) -> Examples:
    """Some of the requests, in the order of `rows`."""
    return Examples(take_rows(examples.context, rows), examples.items[rows])


def joined_examples(parts: list[Examples]) -> Examples:
    """One after the other; at least one part, of equal shapes but for n."""
    contexts = zip(*(part.context for part in parts), strict=True)
    return Examples(
        ContextBatch._make(np.concatenate(fields) for fields in contexts),
        np.concatenate([part.items for part in parts]),
    )
