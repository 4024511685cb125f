"""Held-out items are nowhere in what is learned, are the same in every stage, and are all that is asked for."""

import numpy as np

from benchmarks.quality.cold import held_out, hold_out_items
from benchmarks.quality.evaluation import evaluate
from benchmarks.quality.popularity import Popularity
from benchmarks.quality.split import Split, check_split
from protos.catalog.v1.catalog_pb2 import Item
from tests.benchmarks.quality.worlds import walks


def world(seed: int = 0) -> Split:
    """Walks whose items have names that put some of them among the held out."""
    split = walks(seed)
    return split._replace(items=[Item(item_id=f"thing-{n}", available=True) for n in range(len(split.items))])


def test_nothing_is_learned_of_held_out_items_and_nothing_else_is_asked() -> None:
    split = world()
    held = held_out(split)
    assert 0 < held.sum() < len(held) / 2
    for among_all in (True, False):
        cold = hold_out_items(split, among_all=among_all)
        check_split(cold)
        assert not held[cold.events.items[cold.learn]].any()
        assert held[cold.events.items[cold.asked]].all()
        for act in cold.asked:
            mine = (cold.events.users == cold.events.users[act]) & (np.arange(len(cold.learn)) < act)
            assert cold.events.items[act] not in cold.events.items[mine]


def test_the_held_out_are_the_same_whatever_is_asked() -> None:
    np.testing.assert_array_equal(held_out(world()), held_out(world(seed=3)))


def test_popularity_knows_nothing_of_them() -> None:
    cold = hold_out_items(world(), among_all=False)
    model = Popularity()
    model.fit(cold, 0)
    assert (evaluate(model, cold).ranks == held_out(cold).sum()).all()
