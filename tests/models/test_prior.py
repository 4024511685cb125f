"""Evidence as a prior: nothing is lost on the way up the trie, and an untrained generator is the neighbour model."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from core.errors import ContractError
from models.batches import LEVELS, Beams
from models.beam import legal_tokens
from models.context_processor import context_tensors
from models.export import beams_of
from models.generator import Generator
from models.generator_config import GeneratorConfig
from models.losses import generation_loss, token_log_probs
from models.prior import NOTHING, Evidence, NeighbourPrior
from models.trie import ROOT, Trie, build_trie
from models.trie_tensors import TrieTensors, children_of, every_code, nodes_of, trie_tensors
from tests.models.worlds import random_context, random_trie

SIZE, ITEMS = 6, 60
seeds = st.integers(0, 1 << 30)


def generator_with(**changes: object) -> Generator:
    torch.manual_seed(0)
    shape: dict[str, object] = {
        "codebook_size": SIZE,
        "d_model": 16,
        "layers": 2,
        "heads": 4,
        "kv_groups": 4,
        "d_feature": 4,
        "prior": True,
    }
    return Generator(GeneratorConfig(**(shape | changes))).eval()  # type: ignore[arg-type]


def world(seed: int, live_share: float = 0.7) -> tuple[Trie, np.ndarray, np.ndarray]:
    return random_trie(np.random.default_rng(seed), ITEMS, SIZE, live_share)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_a_node_has_the_mass_of_its_children_and_the_dead_have_none(seed: int) -> None:
    trie, _, live = world(seed)
    context = context_tensors(random_context(np.random.default_rng(seed), 3, SIZE))
    prior, tensors = NeighbourPrior(), trie_tensors(trie)
    near_live = [any(live[item] for item in row if item >= 0) for row in context.near.numpy()]
    whole = np.array(near_live, float) + live.mean()
    with torch.no_grad():
        evidence = prior.evidence(context.near, context.nearness, tensors)
        of_all = _of_all(prior, evidence, tensors)[:, : len(live)]
        mass = {ROOT: whole}
        for level in range(LEVELS):
            for node in [each for each in mass if _depth(trie, each) == level]:
                of_node = torch.full((3, 1), node, dtype=torch.int32)
                children = children_of(tensors, of_node, tensors.slots if node else every_code(SIZE, of_node))
                below = prior.masses(level, evidence, of_node, children, tensors).numpy()[:, 0]
                np.testing.assert_allclose(below.sum(1), mass[node], atol=1e-4)
                there = children.there.numpy()[0, 0]
                assert not below[:, ~there].any()
                mass |= dict(zip(children.node.numpy()[0, 0, there].tolist(), below[:, there].T, strict=True))
    at_leaves = np.stack([mass[int(leaf)] for leaf in trie.leaf[: len(live)]], axis=1)
    np.testing.assert_allclose(at_leaves, of_all, atol=1e-5)
    assert not at_leaves[:, ~live].any()


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_what_all_items_have_alike_does_not_grow_when_few_are_live(seed: int) -> None:
    rng = np.random.default_rng(seed)
    trie, codes, _ = random_trie(rng, ITEMS, SIZE)
    few = build_trie(codes, len(trie.leaf), codebook_size=SIZE, live=np.arange(len(codes)) < ITEMS // 5)
    nobody = context_tensors(random_context(rng, 1, SIZE))
    prior, nothing = NeighbourPrior(), torch.full_like(nobody.near, -1)
    among_all, among_few = (
        _of_all(prior, prior.evidence(nothing, nobody.nearness, tensors), tensors)[0]
        for tensors in map(trie_tensors, (trie, few))
    )
    np.testing.assert_allclose(among_few[: ITEMS // 5], among_all[: ITEMS // 5], rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_the_log_masses_of_all_items_are_those_of_each(seed: int) -> None:
    trie, _, _ = world(seed)
    context = context_tensors(random_context(np.random.default_rng(seed), 3, SIZE))
    prior, tensors = NeighbourPrior(), trie_tensors(trie)
    with torch.no_grad():
        evidence = prior.evidence(context.near, context.nearness, tensors)
        alike, more = prior.logs_of_all(evidence, tensors)
        found = alike.repeat(3, 1).scatter_add(1, evidence.near.clamp(min=0).long(), more)
    np.testing.assert_allclose(found, np.log(_of_all(prior, evidence, tensors) + NOTHING), atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, rows=st.sampled_from([ITEMS, ITEMS // 2]))
def test_training_scores_every_item_as_serving_scores_some(seed: int, rows: int) -> None:
    trie, codes, _ = world(seed)
    generator = generator_with(items=rows, item_head=True)
    context = context_tensors(random_context(np.random.default_rng(seed), 3, SIZE))
    paths, tensors = torch.from_numpy(codes[:rows]), trie_tensors(trie)
    with torch.no_grad():
        every = generator.decode(context, paths[:1].repeat(3, 1, 1), tensors, paths).item_logits
        state = generator.step(0, generator.encode(context), torch.zeros(3, 1, dtype=torch.int64), None).state[:, 0]
        evidence = generator.evidence(context, tensors)
        some = torch.arange(rows, dtype=torch.int32).repeat(3, 1)
        each = generator.score_items(state, some, paths.repeat(3, 1, 1), evidence, tensors)
    assert every is not None
    np.testing.assert_allclose(every, each, atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, times=st.sampled_from([0.5, 4.0]))
def test_evidence_for_an_item_that_came_later_counts_as_often_as_is_asked(seed: int, times: float) -> None:
    tensors, rows = trie_tensors(world(seed)[0]), ITEMS // 2
    context = context_tensors(random_context(np.random.default_rng(seed), 3, SIZE))
    one, other = (generator_with(items=rows, new_items=each) for each in (1.0, times))
    plain, moved = (generator.evidence(context, tensors) for generator in (one, other))
    assert plain is not None and moved is not None
    expected = plain.weight * torch.where(plain.near >= rows, times, 1.0)
    expected = expected / expected.sum(-1, keepdim=True).clamp(min=1e-9)
    torch.testing.assert_close(moved.weight, expected, rtol=1e-3, atol=1e-4)


def test_new_items_are_weighed_by_what_says_something_of_them() -> None:
    for changes in ({"new_items": 2.0}, {"new_items": 0.0, "items": 3}, {"new_items": 2.0, "items": 3, "prior": False}):
        with pytest.raises(ValueError, match="found new_items"):
            generator_with(**changes)


def _of_all(prior: NeighbourPrior, evidence: Evidence, trie: TrieTensors) -> npt.NDArray[np.float32]:
    """(B, I) the mass of every item, asked for one by one."""
    every = torch.arange(len(trie.leaf), dtype=torch.int32).repeat(len(evidence.near), 1)
    masses: npt.NDArray[np.float32] = prior.of_items(evidence, every, trie).detach().numpy()
    return masses


def _depth(trie: Trie, node: int) -> int:
    return 0 if node == ROOT else 1 + _depth(trie, int(trie.parent[node]))


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_with_heads_of_zero_the_beams_are_the_evidence(seed: int) -> None:
    trie, _, live = world(seed)
    generator = generator_with()
    with torch.no_grad():
        for head in generator.heads:
            head.zero_()
    batch = random_context(np.random.default_rng(seed), 2, SIZE)
    beams = beams_of(generator, batch, trie, ITEMS)
    tensors = trie_tensors(trie)
    with torch.no_grad():
        evidence = generator.prior.evidence(
            *(torch.from_numpy(field) for field in (batch.near, batch.nearness)), tensors
        )
        masses = _of_all(generator.prior, evidence, tensors)
    shares = masses / masses.sum(axis=1, keepdims=True)
    for row in range(2):
        found = {
            int(item): float(sums)
            for item, sums in zip(beams.items[row], beams.masked_log_probs[row].sum(-1), strict=True)
        }
        for item in np.flatnonzero(live):
            assert found[int(item)] == pytest.approx(float(np.log(shares[row, item])), abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, live_share=st.sampled_from([0.0, 0.7]), gain=st.sampled_from([0.0, 1.0]))
def test_what_is_said_of_children_is_what_is_said_of_their_codes(seed: int, live_share: float, gain: float) -> None:
    trie, codes, _ = world(seed, live_share)
    generator, tensors = generator_with(items=ITEMS // 2, item_head=True), trie_tensors(trie)
    context = context_tensors(random_context(np.random.default_rng(seed), 2, SIZE))
    nodes = nodes_of(tensors, torch.from_numpy(codes).expand(2, -1, -1), SIZE)
    with torch.no_grad():
        generator.prior.gain.fill_(gain)  # without evidence nothing hides the codes that lead nowhere
        evidence = generator.evidence(context, tensors)
        assert evidence is not None
        for level in range(LEVELS):
            node, logits = nodes[..., level], torch.randn(2, len(codes), SIZE)
            children = children_of(tensors, node, tensors.slots if level else every_code(SIZE, node))
            said, whole = generator.of_children(level, logits, evidence, node, children, tensors)
            expected = generator.with_evidence(level, logits, evidence, node, tensors)
            at_codes = expected.gather(-1, children.token.long())
            torch.testing.assert_close(said[children.there], at_codes[children.there], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(whole, torch.logsumexp(expected, -1, keepdim=True), atol=1e-4, rtol=1e-4)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_search_and_teacher_forcing_agree(seed: int) -> None:
    trie, codes, _ = world(seed)
    generator = generator_with(items=ITEMS, item_head=True, context_blocks=1)
    batch = random_context(np.random.default_rng(seed), 3, SIZE)
    beams = beams_of(generator, batch, trie, 8)
    paths = torch.from_numpy(np.where(beams.codes < 0, 0, beams.codes))
    with torch.no_grad():
        found = generator.decode(context_tensors(batch), paths, trie_tensors(trie), torch.from_numpy(codes))
    legal = torch.from_numpy(legal_tokens(trie, paths.numpy(), SIZE))
    again = token_log_probs(found.logits, paths, legal)
    alive = beams.items >= 0
    np.testing.assert_allclose(again.masked.numpy()[alive], beams.masked_log_probs[alive], atol=1e-3)
    np.testing.assert_allclose(again.full.numpy()[alive], beams.log_probs[alive], atol=1e-3)
    assert found.item_logits is not None
    picked = np.take_along_axis(found.item_logits.numpy(), np.maximum(beams.items, 0), 1)
    np.testing.assert_allclose(picked[alive], beams.item_logits[alive], atol=1e-3)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_nothing_is_learned_against_items_outside_the_trie_of_training(seed: int) -> None:
    rng = np.random.default_rng(seed)
    trie, codes, _ = random_trie(rng, ITEMS, SIZE, 1.0)
    targets = np.arange(5)
    taught = build_trie(codes, ITEMS, codebook_size=SIZE, live=np.isin(np.arange(len(codes)), targets))
    unused = np.setdiff1d(codes[:, 0], codes[targets, 0])
    assume(len(unused))
    pushed = {}
    for name, each in (("all", trie), ("taught", taught)):
        generator = generator_with()
        context = context_tensors(random_context(np.random.default_rng(seed), len(targets), SIZE))
        paths = torch.from_numpy(codes[targets])[:, None]
        generation_loss(generator(context, paths, trie_tensors(each)), paths).backward()
        gradient = generator.heads[0].grad
        assert gradient is not None
        pushed[name] = float(gradient[:, unused].abs().max())
    assert pushed["taught"] < 1e-6 < pushed["all"]


@given(seed=seeds)
def test_a_path_is_walked_node_by_node(seed: int) -> None:
    trie, codes, _ = world(seed)
    nodes = nodes_of(trie_tensors(trie), torch.from_numpy(codes)[None], SIZE)[0].numpy()
    for path, walked, leaf in zip(codes, nodes, trie.leaf, strict=False):
        assert walked[0] == ROOT
        above = [int(trie.parent[leaf])]
        for _ in range(LEVELS - 1):
            above.append(int(trie.parent[above[-1]]))
        assert walked.tolist() == above[::-1], path


def test_a_prior_without_a_trie_is_refused() -> None:
    batch = context_tensors(random_context(np.random.default_rng(0), 1, SIZE))
    with pytest.raises(ContractError, match="hand in the trie"):
        generator_with()(batch, torch.zeros(1, 1, LEVELS, dtype=torch.int32))


def test_an_item_that_came_later_is_scored_by_its_codes() -> None:
    trie, _, _ = world(0, live_share=1.0)
    known = generator_with(items=ITEMS, item_head=True)
    fewer = generator_with(items=ITEMS - 20, item_head=True)
    weights = known.state_dict()
    weights["item_table"], weights["item_head.bias"] = weights["item_table"][: ITEMS - 20], torch.zeros(ITEMS - 19)
    fewer.load_state_dict(weights)
    with torch.no_grad():
        known.item_table[ITEMS - 20 :] = 0
    batch = random_context(np.random.default_rng(0), 2, SIZE)
    batch = batch._replace(items=batch.items % (ITEMS - 20))
    expected, found = (_logits_by_item(beams_of(each, batch, trie, ITEMS)) for each in (known, fewer))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def _logits_by_item(beams: Beams) -> np.ndarray:
    by_item = np.full((len(beams.items), ITEMS), -np.inf)
    np.put_along_axis(by_item, beams.items, beams.item_logits, axis=1)
    return by_item


def test_the_last_code_of_an_item_that_came_later_has_the_evidence_alone() -> None:
    trie, codes, _ = world(0, live_share=1.0)
    known = ITEMS // 2
    generator, tensors = generator_with(items=known, item_head=True), trie_tensors(trie)
    batch = random_context(np.random.default_rng(0), 2, SIZE)
    evidence = generator.evidence(context_tensors(batch), tensors)
    assert evidence is not None
    paths = torch.from_numpy(codes).expand(2, -1, -1)
    nodes, came_later = nodes_of(tensors, paths, SIZE), torch.arange(len(codes)) >= known
    for level in range(LEVELS):
        code = paths[..., level, None].long()
        children = children_of(tensors, nodes[..., level], every_code(SIZE, nodes))
        with torch.no_grad():
            masses = generator.prior.masses(level, evidence, nodes[..., level], children, tensors)
            alone = children.by_code(generator.prior.logits(level, masses), SIZE).gather(-1, code)
            said = torch.ones(2, len(codes), SIZE)
            moved = generator.with_evidence(level, said, evidence, nodes[..., level], tensors).gather(-1, code)
        heads = torch.where(came_later, 0.0, 1.0) if level == LEVELS - 1 else torch.ones(len(codes))
        torch.testing.assert_close((moved - alone)[..., 0], heads.expand(2, -1))


@pytest.mark.parametrize(
    ("changes", "said"), [({"item_head": True}, "table of items"), ({"context_blocks": 1, "kv_groups": 2}, "d_context")]
)
def test_parts_that_need_another_say_so(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        generator_with(**changes)
