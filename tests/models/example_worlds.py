"""Examples for tests of training: random contexts whose targets can be told apart."""

import numpy as np

from models.batches import Ints
from models.examples import Examples
from tests.models.worlds import random_context, random_paths

SIZE, ITEMS = 5, 30  # codes per level, items of the catalogue
CODES: Ints = random_paths(np.random.default_rng(0), ITEMS, SIZE)


def random_examples(requests: int, seed: int = 0, targets: int = 2) -> Examples:
    """Requests with up to `targets` targets each; the place's first number is the request's."""
    rng = np.random.default_rng(seed)
    context = random_context(rng, requests, SIZE)
    context.place[:, 0] = np.arange(requests)
    items = rng.integers(-1, ITEMS, (requests, targets)).astype(np.int32)
    return Examples(context, items)


def numbers_of(examples: Examples) -> list[int]:
    """Which requests these are."""
    return [int(number) for number in examples.context.place[:, 0]]
