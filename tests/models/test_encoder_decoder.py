"""The twin: as many weights, the same questions and answers, a context that is encoded."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.context_processor import context_tensors
from models.encoder_decoder import EncoderDecoder
from models.export import export_generator
from models.generator import Generator
from models.train_arguments import TrainArguments
from models.train_generator import train_generator
from tests.models.example_worlds import CODES, SIZE, random_examples
from tests.models.worlds import random_context, random_paths, random_trie, small_config

CONFIG = small_config(SIZE, layers=4, kv_groups=4)


def twin(seed: int = 0) -> EncoderDecoder:
    torch.manual_seed(seed)
    return EncoderDecoder(CONFIG).eval()


def matrices(generator: Generator) -> int:
    """Weights without norms and the small vectors of the context."""
    return sum(weight.numel() for weight in generator.parameters() if weight.ndim > 1)


@pytest.mark.parametrize("layers", [2, 4, 6])
def test_it_has_as_many_weights_as_the_lazy_decoder(layers: int) -> None:
    config = small_config(SIZE, layers=layers, kv_groups=4)
    assert matrices(EncoderDecoder(config)) == matrices(Generator(config))


def test_one_context_token_changes_what_the_others_say() -> None:
    """The lazy decoder's keys of a token depend on that token alone; the twin's do not."""
    batch = random_context(np.random.default_rng(0), 1, SIZE)._replace(mask=np.ones((1, 80), bool))
    other = batch._replace(codes=batch.codes.copy())
    other.codes[0, 7] = (other.codes[0, 7] + 1) % SIZE
    for generator, moved in ((twin(), True), (Generator(CONFIG), False)):
        before, after = (generator.encode(context_tensors(each)).keys[0][0] for each in (batch, other))
        differs = (before - after).abs().amax(-1) > 1e-6
        differs[7] = False
        assert bool(differs.any()) == moved


def test_a_masked_token_says_nothing() -> None:
    batch = random_context(np.random.default_rng(4), 2, SIZE)
    hidden = batch._replace(mask=np.zeros_like(batch.mask))
    noise = random_context(np.random.default_rng(5), 2, SIZE)
    other = hidden._replace(codes=noise.codes, actions=noise.actions, watch=noise.watch, age=noise.age)
    targets = torch.from_numpy(random_paths(np.random.default_rng(1), 2, SIZE))[:, None]
    with torch.no_grad():
        first, second = (twin()(context_tensors(each), targets) for each in (hidden, other))
    assert torch.allclose(first, second, atol=1e-6)


def test_it_trains_searches_and_exports_as_a_generator_does(tmp_path: Path) -> None:
    generator = twin()
    args = TrainArguments(config=generator.config, epochs=5, batch_size=16)
    trained = train_generator(random_examples(40), CODES, args, generator=generator)
    assert trained.curve[-1].loss < trained.curve[0].loss
    trie, _, _ = random_trie(np.random.default_rng(0), 20, SIZE)
    golden = random_context(np.random.default_rng(1), 4, SIZE)
    beams = export_generator(trained.generator, tmp_path / "model.onnx", golden, trie, beam_width=5)
    assert (beams.items >= 0).any()


@pytest.mark.parametrize("changes", [{"layers": 3}, {"kv_groups": 2}, {"kv_sets": 2}, {"kv_split": 2}])
def test_a_shape_without_an_equal_twin_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="a twin of equal weights needs"):
        EncoderDecoder(small_config(SIZE, **({"layers": 4, "kv_groups": 4} | changes)))
