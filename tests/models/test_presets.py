"""Our sizes are the paper's: 18 d^2 a block, the totals of its table, its elements of keys and values."""

import pytest

from models.presets import PRESETS, count_weights, learning_rate_of, memory_elements

PAPER = {  # size: weights of the blocks in 1e9, learning rate, width of a feature
    "0.1B": (0.0885, 5.00e-4, 32),
    "0.2B": (0.173, 3.54e-4, 45),
    "0.5B": (0.500, 2.24e-4, 70),
    "1B": (1.040, 1.58e-4, 90),
    "2B": (2.10, 1.12e-4, 115),
    "4B": (4.06, 7.91e-5, 147),
    "8B": (7.86, 5.59e-5, 179),
}


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "moe-4B"])
def test_a_block_has_18_d_squared_weights(name: str) -> None:
    config = PRESETS[name].config
    assert count_weights(config).blocks == 18 * config.d_model**2 * config.layers


@pytest.mark.parametrize("name", PAPER)
def test_totals_and_learning_rates_are_those_of_the_table(name: str) -> None:
    total, rate, feature = PAPER[name]
    preset = PRESETS[name]
    assert count_weights(preset.config).blocks / 1e9 == pytest.approx(total, rel=0.005)
    assert preset.learning_rate == pytest.approx(rate, rel=0.005)
    assert preset.config.d_feature == feature == round(preset.config.d_model / 20)
    assert preset.config.d_head == (64 if name in ("0.1B", "0.2B") else 128)


def test_experts_make_four_billion_of_which_half_a_billion_works() -> None:
    experts, dense = count_weights(PRESETS["moe-4B"].config), count_weights(PRESETS["0.5B"].config)
    routers = 12 * 1408 * 53
    assert experts.blocks / 1e9 == pytest.approx(4.07, rel=0.005)
    assert experts.active - routers == dense.blocks
    assert PRESETS["moe-4B"].learning_rate == learning_rate_of(0.5e9)


@pytest.mark.parametrize(("groups", "millions"), [(14, 94.0), (7, 47.0), (2, 13.4), (1, 6.7)])
def test_keys_and_values_of_a_batch_are_those_of_the_paper(groups: int, millions: float) -> None:
    config = PRESETS["1B"].config
    shared = type(config)(**(config.__dict__ | {"kv_groups": groups}))
    assert 512 * memory_elements(shared, tokens=512 / 5) / 1e6 == pytest.approx(millions, rel=0.005)
