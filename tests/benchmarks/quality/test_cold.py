"""Held-out items are nowhere in what is learned, are the same in every stage, and are all that is asked for."""

import numpy as np
import pytest

from benchmarks.quality.cold import held_out, hold_out_items
from benchmarks.quality.evaluation import evaluate
from benchmarks.quality.popularity import Popularity
from benchmarks.quality.split import Split, check_split
from core.errors import InputError
from protos.catalog.v1.catalog_pb2 import Item
from tests.benchmarks.quality.worlds import walks


def world(seed: int = 0) -> Split:
    """Walks whose items have names that put some of them among the held out."""
    split = walks(seed)
    return split._replace(items=[Item(item_id=f"thing-{n}", available=True) for n in range(len(split.items))])


def test_nothing_is_learned_of_held_out_items_and_nothing_else_is_asked() -> None:
    split = world()
    assert 0 < held_out(split).sum() < len(split.items) / 2
    for grown in (True, False):
        cold = hold_out_items(split, grown=grown)
        check_split(cold)
        held = held_out(cold)
        assert not held[cold.events.items[cold.learn]].any()
        new = held[cold.events.items[cold.asked]]
        assert new.any() and new.all() != grown
        for act in cold.asked[new]:
            mine = (cold.events.users == cold.events.users[act]) & (np.arange(len(cold.learn)) < act)
            assert cold.events.items[act] not in cold.events.items[mine]


def test_a_grown_catalogue_is_asked_what_it_was_asked_before_and_for_the_new_items() -> None:
    split = world()
    grown, alone = (hold_out_items(split, grown=grown) for grown in (True, False))
    new, known = grown.groups["new item"], grown.groups["known item"]
    np.testing.assert_array_equal(grown.asked[new], alone.asked)
    np.testing.assert_array_equal(grown.asked[known], split.asked[~held_out(grown)[grown.events.items[split.asked]]])
    np.testing.assert_array_equal(new, ~known)
    assert grown.ranked is None


def test_the_held_out_are_the_same_whatever_is_asked() -> None:
    np.testing.assert_array_equal(held_out(world()), held_out(world(seed=3)))


def test_they_come_last_and_the_acts_are_the_same() -> None:
    split = world()
    cold = hold_out_items(split, grown=True)
    np.testing.assert_array_equal(held_out(cold), np.arange(len(cold.items)) >= len(cold.items) - cold.new)
    assert [cold.items[item].item_id for item in cold.events.items] == [
        split.items[item].item_id for item in split.events.items
    ]


def test_acts_on_new_items_are_nothing_to_learn_from() -> None:
    cold = hold_out_items(world(), grown=True)
    with pytest.raises(InputError, match="acts on new items"):
        check_split(cold._replace(learn=np.ones_like(cold.learn)))


def test_popularity_knows_nothing_of_them() -> None:
    cold = hold_out_items(world(), grown=False)
    model = Popularity()
    model.fit(cold, 0)
    assert (evaluate(model, cold).ranks == held_out(cold).sum()).all()
