"""The lazy decoder's twin: an encoder over the context and a decoder that owns its keys and values, of equal weights.

Letters used in this file
    B requests   N context tokens   d width   D d_head   H heads

It is what the paper compares the lazy decoder with (Enc:Dec 1:1): the same inputs, tables, heads and losses. Half the
layers make an encoder block each (full self-attention over the context, feed-forward: 16 d^2 weights), half a decoder
block (as the lazy one, and W_k and W_v of its cross-attention: 20 d^2); so both have 18 d^2 a layer. The decoder reads
keys and values as the lazy one reads its memory, so training, search and export are the same code.

Source: OneRec-V2, arXiv:2508.20900 §3.3 and Table 4.
"""

from dataclasses import replace

from torch import Tensor, nn

from models.context_processor import ContextBlock, ContextProcessor, ContextTensors, Memory
from models.generator import Generator
from models.generator_config import GeneratorConfig
from models.layers import RMSNorm, matrix


class Encoder(ContextProcessor):
    """The lazy decoder's context tokens, mixed by encoder blocks; then keys and values for each decoder block."""

    def __init__(self, config: GeneratorConfig, blocks: int, readers: int) -> None:
        """config: of one key/value set as wide as the model; readers: blocks of the decoder."""
        super().__init__(config)
        self.blocks = nn.ModuleList(ContextBlock(config) for _ in range(blocks))
        self.out_norm = RMSNorm(config.d_model)
        self.w_kv = nn.ParameterList(matrix(config.d_model, 2 * config.d_model) for _ in range(readers))

    def forward(self, context: ContextTensors, code_tables: Tensor, item_table: Tensor | None = None) -> Memory:
        tokens = super().forward(context, code_tables, item_table)
        heads, length = self.config.heads, tokens.bias.shape[-1]
        h = tokens.keys[0].reshape(-1, heads, length, self.config.d_head).transpose(1, 2).flatten(2)
        present = tokens.bias.reshape(-1, heads, length)[:, 0] == 0
        for block in self.blocks:
            h = block(h, present)
        h = self.out_norm(h)
        pairs = [
            (h @ weights).reshape(-1, length, 2, heads, self.config.d_head).permute(2, 0, 3, 1, 4).flatten(1, 2)
            for weights in self.w_kv
        ]
        return Memory([pair[0] for pair in pairs], [pair[1] for pair in pairs], tokens.bias)


class EncoderDecoder(Generator):
    """The twin of `Generator(config)`: as many weights, its context encoded."""

    def __init__(self, config: GeneratorConfig) -> None:
        """config: of the lazy decoder; after this `self.config` is the decoder half's.

        Raises:
            ValueError: the layers cannot be halved, or the lazy decoder would not be the paper's default.
        """
        if config.layers % 2 or config.kv_sets != 1 or config.kv_split != 1 or config.kv_groups != config.heads:
            raise ValueError(
                f"found layers {config.layers}, kv_sets {config.kv_sets}, kv_split {config.kv_split}, "
                f"kv_groups {config.kv_groups}; a twin of equal weights needs an even number of layers, "
                f"one set, keys as values, and kv_groups = heads = {config.heads}"
            )
        half = config.layers // 2
        super().__init__(replace(config, layers=half, kv_sets=half, kv_split=2))
        self.context = Encoder(config, half, half)
