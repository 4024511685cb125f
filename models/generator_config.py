"""The shape of a generator, as numbers that its manifest keeps."""

from dataclasses import dataclass

from models.batches import TOKENS


@dataclass(frozen=True)
class GeneratorConfig:
    """The shape of a generator. Stored in the manifest; two shapes never share weights."""

    codebook_size: int = 64
    """V, codes per level."""
    d_model: int = 64
    """Width of the decoder."""
    layers: int = 3
    """Decoder blocks."""
    heads: int = 4
    """Query heads; d_head = d_model / heads."""
    kv_groups: int = 4
    """G_kv: key/value heads, shared by heads / kv_groups query heads each."""
    kv_sets: int = 1
    """L_kv: distinct key/value sets; block l reads set floor(l * L_kv / layers)."""
    kv_split: int = 1
    """S_kv: 1 = keys are the values, 2 = separate values."""
    tokens: int = TOKENS
    """Context tokens at most that name an item; a batch may have fewer, and then lacks the last positions."""
    d_feature: int = 16
    """Width of one small feature of a context token (actions, watch share, age)."""
    experts: int = 0
    """Routed experts of a feed-forward, beside a shared one; 0 = one dense feed-forward."""
    experts_chosen: int = 3
    """Routed experts of each position."""
    d_expert: int = 0
    """Width inside an expert; 0 = 4 d_model / (experts_chosen + 1), which costs a position what the dense one does."""
    dense_blocks: int = 2
    """Blocks before the first with experts."""
    context_blocks: int = 0
    """Blocks of self-attention over the context; they need one key/value set as wide as the model."""
    items: int = 0
    """Rows of the table of items: the catalogue when the model is made; later items have none. 0 = no table."""
    item_head: bool = False
    """Whether items are scored as wholes beside their codes; needs the table of items."""
    words: float = 0.0
    """What the words of an item without a row in the table count when it is scored as a whole, beside its evidence;
    below 1, for they foretell new items less well than those that they have learned from. 0 = its codes count instead;
    else it needs the item head."""
    new_items: float = 1.0
    """What evidence counts for an item without a row in the table of items, beside 1 for those with one. Above 1 new
    items are shown before anybody has taken them, and known ones less; docs/log.md has what it gave and cost."""
    value_items: int = 0
    """Items with a rate of their own in the value head; 0 = no value head."""
    prior: bool = False
    """Whether neighbour evidence moves the logits."""
    dropout: float = 0.0
    """Share of features hidden inside the model while it trains."""
    item_dropout: float = 0.1
    """Share of rows of the table of items hidden at each step of training."""

    def __post_init__(self) -> None:
        if self.d_model % self.heads or self.heads % self.kv_groups:
            raise ValueError(
                f"found d_model {self.d_model}, heads {self.heads}, kv_groups {self.kv_groups}; "
                "heads must divide d_model and kv_groups must divide heads"
            )
        if self.kv_split not in (1, 2) or not 1 <= self.kv_sets <= self.layers:
            raise ValueError(
                f"found kv_split {self.kv_split} and kv_sets {self.kv_sets} with {self.layers} layers; "
                "expected kv_split 1 or 2 and 1 <= kv_sets <= layers"
            )
        if self.experts and not 1 <= self.experts_chosen <= self.experts:
            raise ValueError(
                f"found experts_chosen {self.experts_chosen} of {self.experts} experts; expected 1 to all of them"
            )
        if self.context_blocks and self.d_context != self.d_model:
            raise ValueError(
                f"found context_blocks {self.context_blocks} with d_context {self.d_context}; expected d_context "
                f"{self.d_model}, the width of the model: one set, not split, as many groups as heads"
            )
        if self.item_head and not self.items:
            raise ValueError("found an item head without a table of items; set items to the size of the catalogue")
        if self.words and not self.item_head:
            raise ValueError("found words without an item head; set item_head")
        if self.new_items <= 0 or (self.new_items != 1 and not (self.items and self.prior)):
            raise ValueError(
                f"found new_items {self.new_items} with {self.items} rows of items, prior {self.prior}; expected a "
                "number above 0, and both, for it weighs the evidence of items without a row"
            )

    @property
    def d_head(self) -> int:
        return self.d_model // self.heads

    @property
    def d_context(self) -> int:
        """Elements that one context token leaves behind: S_kv * L_kv * G_kv * d_head."""
        return self.kv_split * self.kv_sets * self.kv_groups * self.d_head
