"""The generator in the harness: it knows nothing newer than its sample, learns an obvious world, and is kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.quality import generative
from benchmarks.quality.contexts import contexts, learnable, own_evidence
from benchmarks.quality.evaluation import evaluate
from benchmarks.quality.generative import Generative, GenerativeArgs
from benchmarks.quality.split import Ints, Split, good_sequences, seen_pairs
from benchmarks.quality.values import Values
from core.errors import InputError
from models.batches import TABLES
from models.contexts import AREA, HOUR, KNOWN
from models.evidence import RECENCY, near_items
from models.examples import Examples
from models.generator import Generator
from models.neighbours import cooccurrence, text_neighbours
from models.trie import ROOT
from protos.catalog.v1.catalog_pb2 import Item
from protos.events.v1.interaction_pb2 import Location
from tests.benchmarks.quality.worlds import ITEMS, changed_from, walks

CODES = np.arange(ITEMS * 3, dtype=np.int32).reshape(ITEMS, 3) % 7


def small() -> GenerativeArgs:
    args = GenerativeArgs(beam_width=ITEMS)
    config = replace(args.train.config, codebook_size=4, d_model=16, layers=1, heads=2, kv_groups=2, tokens=6)
    return replace(args, train=replace(args.train, config=config, epochs=40.0, batch_size=32, learning_rate=1e-2))


def test_a_context_holds_nothing_of_its_sample_or_later() -> None:
    split = walks()
    sources = [cooccurrence(good_sequences(split), ITEMS), text_neighbours(split.items)]
    for act in split.asked[:5]:
        asked = np.array([act])
        before, after = (contexts(each, asked, CODES, 6, sources) for each in (split, changed_from(split, int(act))))
        for name, one, other in zip(before._fields, before, after, strict=True):
            np.testing.assert_array_equal(one, other, name)


def test_a_context_knows_where_its_user_was_last_and_the_hour_where_it_is_told() -> None:
    split = walks()
    items = [
        Item(item_id=item.item_id, location=Location(latitude=40 + n / 100, longitude=-74), available=True)
        for n, item in enumerate(split.items)
    ]
    split = split._replace(items=items, zone="America/New_York")
    asked = split.asked[:5]
    told = contexts(split, asked, CODES, 6, ())
    last = split.events.items[asked - 1]
    north = told.place[:, AREA][:, 0]
    np.testing.assert_array_equal(np.argsort(north), np.argsort(last))
    assert told.place[:, KNOWN].all()
    for row, act in enumerate(asked):
        mine = split.events.items[(split.events.users == split.events.users[act]) & (np.arange(len(split.learn)) < act)]
        assert set(told.near[row].tolist()) - {-1} == set(mine.tolist())
    hidden = contexts(split._replace(time_known=False), asked, CODES, 6, ())
    assert told.place[:, HOUR].any() and not hidden.place[:, HOUR].any()
    assert told.nearness[..., TABLES + 1].any() and not hidden.nearness[..., TABLES + 1].any()
    np.testing.assert_array_equal(told.place[:, AREA], hidden.place[:, AREA])


def test_where_the_protocol_masks_what_was_had_it_is_no_evidence() -> None:
    split = walks()
    sources = [cooccurrence(good_sequences(split), ITEMS), text_neighbours(split.items)]
    rows, had = seen_pairs(split.events, split.asked)
    named = {
        masked: contexts(split._replace(mask_seen=masked), split.asked, CODES, 6, sources).near
        for masked in (False, True)
    }
    again = {masked: (near[rows] == had[:, None]).any() for masked, near in named.items()}
    assert again == {False: True, True: False}


def test_only_candidates_are_near_where_some_are_asked_for_and_all_are_in_training() -> None:
    split = walks()
    sources = [cooccurrence(good_sequences(split), ITEMS), text_neighbours(split.items)]
    some = split._replace(ranked=np.arange(ITEMS) % 2 == 0)
    asked = contexts(some, some.asked, CODES, 6, sources).near
    assert set(asked.ravel().tolist()) == {-1, *range(0, ITEMS, 2)}
    acts = learnable(some)
    taught, whole = (contexts(each, acts, CODES, 6, sources, seen=each.learn) for each in (some, split))
    np.testing.assert_array_equal(taught.near, whole.near)


def test_a_training_sample_does_not_find_itself_in_its_evidence() -> None:
    """One user alone: of all that was counted, only what stands before the sample is left."""
    split = walks()
    alone = split._replace(learn=split.learn & (split.events.users == 0))
    acts = learnable(alone)
    counted = [cooccurrence(good_sequences(alone), ITEMS, popularity_power=0.3)]
    seen = contexts(alone, acts, CODES, 6, counted * 2)
    assert (seen.near >= 0).any()
    before = contexts(alone, acts, CODES, 6, [*counted], own_evidence(alone, acts, 0.3, RECENCY))
    for row, act in enumerate(acts):
        mine = alone.events.items[(alone.events.users == 0) & (np.arange(len(alone.learn)) < act)]
        assert set(before.near[row].tolist()) - {-1} <= set(mine.tolist())
    assert near_items(np.full((1, 3), -1), counted)[0].max() == -1


def test_it_learns_the_walk_and_is_read_again(tmp_path: Path) -> None:
    split, said = walks(), list[str]()
    model = Generative("generator", small(), tmp_path, 0.0, said.append)
    model.fit(split, seed=0)
    ranks = evaluate(model, split).ranks
    assert np.mean(ranks == 1) > 0.8
    assert list(tmp_path.glob("*/beams-*.npz")), "beams are kept"
    np.testing.assert_array_equal(evaluate(model, split).ranks, ranks)
    trained = len(said)
    again = Generative("generator+items", small(), tmp_path, 1.0, said.append)
    again.fit(split, seed=0)
    assert len(said) == trained, "trained again"
    assert np.mean(evaluate(again, split).ranks == 1) > 0.8
    some = split._replace(ranked=np.arange(ITEMS) % 2 == 0)
    found = again.beams(some, split.asked).items
    assert set(found.ravel().tolist()) == {-1, *range(0, ITEMS, 2)}, "a beam on what is no candidate"


class Enough(Exception):
    """What was to be seen has been seen."""


def test_new_items_are_in_no_part_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is said of them, tokenizer, first weights and examples are the same; and they may be found."""
    split, known, handed = walks(), ITEMS - 3, list[tuple[Examples, Ints, Generator]]()

    def train(examples: Examples, codes: Ints, *_: object, generator: Generator, **__: object) -> None:
        handed.append((examples, codes, generator))
        raise Enough

    monkeypatch.setattr(generative, "train_generator", train)
    for tag in (split.items[0].tags[0], "something else"):
        items = [*split.items[:known], *(Item(item_id=f"new-{n}", tags=[tag], available=True) for n in range(3))]
        new = split._replace(items=items, learn=split.learn & (split.events.items < known), new=3)
        model = Generative("generator", small(), tmp_path, 0.0, lambda line: None)
        with pytest.raises(Enough):
            model.fit(new, seed=0)
        assert model.catalog.trie.live[ROOT] == ITEMS
    one, other = handed
    assert not np.array_equal(one[1], other[1]), "what is said of them decides nothing"
    np.testing.assert_array_equal(one[1][:known], other[1][:known])
    for name, left, right in zip(one[0].context._fields, one[0].context, other[0].context, strict=True):
        np.testing.assert_array_equal(left, right, name)
    for weight, again in zip(one[2].parameters(), other[2].parameters(), strict=True):
        torch.testing.assert_close(weight, again, rtol=0, atol=0)


def watched(exposed: bool) -> Split:
    """The walk, where half of what is shown is passed over: things on even shelves are watched by everybody."""
    split = walks()
    good = split.events.items // 3 % 2 == 0
    events = split.events._replace(good=good, shares=np.where(good, 0.9, 0.1).astype(np.float32))
    return split._replace(events=events, exposed=exposed)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


def values(kept: Path) -> Values:
    return Values("values", Generative("generator", small(), kept, 0.0, lambda line: None), 1.0)


def test_values_order_what_was_shown_and_choose_among_beams(kept: Path) -> None:
    even = np.arange(ITEMS) // 3 % 2 == 0
    split, model = watched(True), values(kept)
    model.fit(split, seed=0)
    odds = model.scores(split, np.arange(len(split.asked)))
    assert odds[:, even].min() > odds[:, ~even].max()
    assert (odds > 0).all() and (odds < 1).all()
    split, model = watched(False), values(kept)
    model.fit(split, seed=0)
    assert np.isfinite(model.scores(split, np.arange(len(split.asked)))).any(axis=1).all()
    assert len(list(kept.glob("*/model-*.onnx"))) == 1, "both questions share one generator"


def test_values_know_nothing_of_what_they_are_asked_for_or_later(kept: Path) -> None:
    split, model = watched(True), values(kept)
    model.fit(split, seed=0)
    for asked in range(5):
        later = changed_from(split, int(split.asked[asked]))
        one = np.array([asked])
        np.testing.assert_array_equal(model.scores(split, one), model.scores(later, one))


def test_values_without_exposures_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="protocol with exposures"):
        values(tmp_path).fit(walks(), seed=0)
    assert not list(tmp_path.iterdir())
