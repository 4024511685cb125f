"""Identities: readable keys for decimals, hashed keys for the rest, and the two kinds never meet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ids import event_hash, item_key, outcome_id

HASHED_FROM = 2**62

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)  # lone surrogates are not UTF-8
canonical = st.integers(0, HASHED_FROM - 1)


@given(canonical)
def test_canonical_decimal_is_its_own_key(number: int) -> None:
    assert item_key(str(number)) == number


@given(names)
def test_key_is_a_decimals_value_or_lies_above_every_decimal(name: str) -> None:
    key = item_key(name)
    assert 0 <= key < 2**63
    if key < HASHED_FROM:
        assert name == str(key)


@pytest.mark.parametrize(
    "name",
    [
        "007",
        "00",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1_000",
        "1.0",
        "",
        "٣",
        "²",
        str(HASHED_FROM),
        str(2**63),
        "9" * 19,
        "1" * 5000,
    ],
)
def test_what_only_looks_like_a_decimal_is_hashed(name: str) -> None:
    assert item_key(name) >= HASHED_FROM


def test_largest_decimal_and_smallest_hash_do_not_meet() -> None:
    assert item_key(str(HASHED_FROM - 1)) == HASHED_FROM - 1
    assert item_key(str(HASHED_FROM)) != HASHED_FROM - 1


def test_keys_stay_the_same_from_release_to_release() -> None:
    """Stored rows hold these numbers: another hash would orphan every row."""
    assert item_key("city-17") == 6474244883547595337
    assert event_hash("e-1") == 11461081932386169649
    assert outcome_id("r-1", "42") == "251e4a68231e1a5b35cdbfc017ead009"


@given(names)
def test_no_name_has_a_key_below_zero_and_no_event_hashes_to_the_empty_slot(name: str) -> None:
    assert item_key(name) >= 0
    assert 0 < event_hash(name) < 2**64


@given(st.lists(st.tuples(st.text("ab", max_size=3), st.text("ab", max_size=3)), min_size=2, max_size=2, unique=True))
def test_outcome_ids_of_different_pairs_differ(pairs: list[tuple[str, str]]) -> None:
    """The border between the two ids is part of what is hashed: ("a", "bc") is not ("ab", "c")."""
    assert outcome_id(*pairs[0]) != outcome_id(*pairs[1])
