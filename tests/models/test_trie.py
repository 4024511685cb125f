"""Laws of the trie: exactly the given paths, in buffers that never move."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from core.errors import ContractError, TooLarge
from models.trie import Trie, build_trie, path_numbers, refill_trie, set_live

SIZE = 4
LEVELS = 3

paths = st.lists(st.integers(0, SIZE**LEVELS - 1), min_size=1, max_size=40, unique=True).map(
    lambda numbers: np.array([(n // 16, n // 4 % 4, n % 4) for n in numbers], np.int32)
)


def spelled(trie: Trie, live_only: bool) -> dict[int, tuple[int, ...]]:
    """Every item the trie leads to, and how: a plain walk over all edges."""
    found: dict[int, tuple[int, ...]] = {}
    open_nodes = [(0, ())]
    while open_nodes:
        node, prefix = open_nodes.pop()
        if len(prefix) == LEVELS:
            found[int(trie.leaf_item[node])] = prefix
            continue
        tokens = trie.token[trie.row_start[node] : trie.row_start[node + 1]].tolist()
        assert tokens == sorted(set(tokens))
        for edge in range(int(trie.row_start[node]), int(trie.row_start[node + 1])):
            child = int(trie.child[edge])
            assert trie.parent[child] == node
            if not live_only or trie.live[child] > 0:
                open_nodes.append((child, (*prefix, int(trie.token[edge]))))
    return found


@given(paths)
def test_every_item_is_reached_by_its_path_and_nothing_else_is(codes: np.ndarray) -> None:
    trie = build_trie(codes, len(codes) + 5, codebook_size=SIZE)
    assert spelled(trie, live_only=False) == {item: tuple(path) for item, path in enumerate(codes.tolist())}


@given(paths, st.data())
def test_live_paths_are_those_of_live_items_however_they_became_so(codes: np.ndarray, data: st.DataObject) -> None:
    live = data.draw(arrays(bool, len(codes)))
    steps = data.draw(st.lists(st.tuples(st.integers(0, len(codes) - 1), st.booleans()), max_size=30))
    stepped = build_trie(codes, len(codes), codebook_size=SIZE, live=live)
    for item, value in steps:
        set_live(stepped, item, value)
        live[item] = value
    built = build_trie(codes, len(codes), codebook_size=SIZE, live=live)
    for ours, theirs in zip(stepped, built, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert set(spelled(stepped, live_only=True)) == set(np.flatnonzero(live).tolist())
    assert stepped.live[0] == live.sum()


@given(paths, paths)
def test_a_refilled_trie_equals_a_new_one_in_the_same_memory(first: np.ndarray, second: np.ndarray) -> None:
    room = 64
    trie = build_trie(first, room, codebook_size=SIZE)
    filled = refill_trie(trie, second, codebook_size=SIZE, live=np.ones(len(second), bool))
    for name, theirs in build_trie(second, room, codebook_size=SIZE)._asdict().items():
        np.testing.assert_array_equal(getattr(filled, name), theirs)
        assert (getattr(filled, name) is getattr(trie, name)) == (name != "slots")


@given(paths)
def test_a_codebook_of_edges_can_be_read_from_any_node(codes: np.ndarray) -> None:
    trie = build_trie(codes, len(codes), codebook_size=SIZE)
    assert trie.row_start.max() + SIZE <= len(trie.token) == len(trie.child)


@given(paths)
def test_the_slots_are_as_many_as_the_widest_prefix_has_children(codes: np.ndarray) -> None:
    trie = build_trie(codes, len(codes), codebook_size=SIZE)
    longer = {tuple(path[:length]) for path in codes.tolist() for length in range(2, LEVELS + 1)}
    widest = max(Counter(prefix[:-1] for prefix in longer).values())
    assert trie.slots.tolist() == list(range(max(widest, 2)))


def test_an_empty_trie_leads_nowhere() -> None:
    trie = build_trie(np.zeros((0, LEVELS), np.int32), 5, codebook_size=SIZE)
    assert spelled(trie, live_only=False) == {}
    assert trie.live[0] == 0


def test_two_items_on_one_path_are_refused_and_nothing_changes() -> None:
    trie = build_trie(np.array([[0, 1, 2]], np.int32), 3, codebook_size=SIZE)
    with pytest.raises(ContractError, match=r"items 0 and 2 share the path \[0, 1, 2\]"):
        refill_trie(
            trie,
            np.array([[0, 1, 2], [1, 1, 1], [0, 1, 2]], np.int32),
            codebook_size=SIZE,
            live=np.ones(3, bool),
        )
    assert spelled(trie, live_only=True) == {0: (0, 1, 2)}


def test_codes_outside_the_codebook_and_too_many_items_are_refused() -> None:
    with pytest.raises(ContractError, match=r"expected 0 \.\. 3"):
        build_trie(np.array([[0, 4, 0]], np.int32), 3, codebook_size=SIZE)
    with pytest.raises(TooLarge, match="expected at most 1"):
        build_trie(np.array([[0, 0, 0], [0, 0, 1]], np.int32), 1, codebook_size=SIZE)


def test_path_numbers_order_paths_as_tuples_do() -> None:
    codes = np.random.default_rng(0).integers(0, SIZE, (200, LEVELS)).astype(np.int32)
    by_number = np.argsort(path_numbers(codes, SIZE), kind="stable")
    assert codes[by_number].tolist() == sorted(codes.tolist())
