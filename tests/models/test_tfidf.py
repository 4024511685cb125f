"""Rows of text: a word says the more the fewer items have it, and items that come later change nobody's row."""

from collections import Counter
from math import log, sqrt

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.tfidf import TextRows, item_words
from protos.catalog.v1.catalog_pb2 import Item

titles = st.lists(st.sampled_from(["rose", "soap", "Rose", "nail", "new"]), max_size=4).map(" ".join)


def items_of(said: list[str]) -> list[Item]:
    return [Item(item_id=str(number), title=title, tags=title.split()[:1]) for number, title in enumerate(said)]


@given(first=st.lists(titles, max_size=5), later=st.lists(titles, max_size=4))
def test_what_a_word_counts_is_settled_by_the_first_items(first: list[str], later: list[str]) -> None:
    items, come = items_of(first), items_of(later)
    holders = Counter(word for item in items for word in set(item_words(item)))
    text = TextRows(items)
    before = text.rows.toarray()
    joined = text.join(come).toarray()
    np.testing.assert_array_equal(text.rows.toarray()[: len(items), : before.shape[1]], before)
    np.testing.assert_array_equal(text.rows.toarray()[len(items) :], joined)
    for item, row in zip((*items, *come), text.rows.toarray(), strict=True):
        worth = {
            word: (1 + log(times)) * (1 + log((1 + len(items)) / (1 + max(holders[word], 1))))
            for word, times in Counter(item_words(item)).items()
        }
        length = sqrt(sum(value**2 for value in worth.values())) or 1.0
        expected = sorted(value / length for value in worth.values())
        np.testing.assert_allclose(np.sort(row[row > 0]), expected, rtol=1e-5)


def test_items_that_come_later_may_share_a_word_that_nobody_had() -> None:
    text = TextRows(items_of(["rose"]))
    text.join(items_of(["bread"]))
    text.join(items_of(["bread and rose"]))
    alike = (text.rows @ text.rows.T).toarray()
    assert alike[1, 2] > 0
    assert alike[0, 1] == 0
