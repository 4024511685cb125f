"""Laws of the RQ-VAE: it learns, its codes stay alive, the same seed gives the same codebook."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.errors import InputError
from models.item_vectors import unit_rows
from models.rq_vae import RqVae, RqVaeArgs, fit_rq_vae
from models.semantic_ids import nearest_paths

QUICK = RqVaeArgs(hidden=16, latent=4, epochs=15, batch=64, learning_rate=5e-3)


def islands(items: int = 256) -> np.ndarray:
    rng = np.random.default_rng(0)
    return unit_rows(np.repeat(rng.normal(size=(16, 8)), items // 16, axis=0) + 0.1 * rng.normal(size=(items, 8)))


def test_training_spells_vectors_more_closely() -> None:
    errors = [
        fit_rq_vae(islands(), np.random.default_rng(0), replace(QUICK, epochs=epochs), levels=2, size=8).error
        for epochs in (1, 30)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_the_codes_of_the_model_are_the_nearest_paths_of_its_latents() -> None:
    learned = fit_rq_vae(islands(), np.random.default_rng(0), QUICK, levels=2, size=8)
    assert learned.codebook.centroids.shape == (2, 8, 4) and learned.latents.shape == (256, 4)
    model = RqVae(8, QUICK, levels=2, size=8)
    with torch.no_grad():
        model.codebooks.copy_(torch.from_numpy(learned.codebook.centroids))
        found = torch.stack([code for *_, code in model.quantize(torch.from_numpy(learned.latents))], dim=1)
    np.testing.assert_array_equal(found.numpy(), nearest_paths(learned.latents, learned.codebook))


def test_most_codes_stay_alive() -> None:
    learned = fit_rq_vae(islands(), np.random.default_rng(0), QUICK, levels=2, size=8)
    assert len(set(nearest_paths(learned.latents, learned.codebook)[:, 0].tolist())) >= 6


def test_gradients_reach_encoder_decoder_and_codes() -> None:
    model = RqVae(8, QUICK, levels=2, size=8)
    torch.nn.init.normal_(model.codebooks)
    model.loss(torch.from_numpy(islands()), 0.25).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


def test_the_same_seed_gives_the_same_codebook() -> None:
    first, again = (fit_rq_vae(islands(), np.random.default_rng(3), QUICK, levels=2, size=8) for _ in range(2))
    np.testing.assert_array_equal(first.codebook.centroids, again.codebook.centroids)


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match="only finite numbers"):
        fit_rq_vae(np.full((4, 8), np.nan, np.float32), np.random.default_rng(0), QUICK, levels=2, size=8)
