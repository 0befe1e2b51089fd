"""What collaborative scores are made and trained with. Nothing here needs torch: a configuration is read without."""

from __future__ import annotations

from dataclasses import dataclass

from multimodal_rec.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CollaborativeConfig:
    """What every learned collaborative score is trained with."""

    dim: int = 64
    """Length of an item's embedding."""
    learning_rate: float = 4e-3
    """Of Adam, at the start."""
    last_rate: float = 0.03
    """Share of the rate that a cosine leaves at the end of `epochs`; 1 keeps it as it is."""
    weight_decay: float = 0.0
    """Decoupled, as in AdamW."""
    epochs: int = 13
    """At most so many passes; exactly so many where nobody validates."""
    every: int = 1
    """Epochs between validations."""
    patience: int = 4
    """Validations without a gain after which training stops."""
    max_candidates: int = 20_000
    """Up to so many items the softmax is over all of them; beyond, over a step's targets and as many drawn as fit."""
    seed: int = 0
    """Draws the weights, the order of training and what is hidden."""

    def __post_init__(self) -> None:
        self._check_at_least_one("dim", "epochs", "every", "patience", "max_candidates")
        if not self.learning_rate > 0 or not 0 < self.last_rate <= 1 or not self.weight_decay >= 0:
            raise ConfigError(
                f"learning_rate is {self.learning_rate}, last_rate {self.last_rate} and weight_decay "
                f"{self.weight_decay}. Expected a rate above 0, a share above 0 and up to 1, and at least 0."
            )

    def _check_at_least_one(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}. Expected at least 1.")


@dataclass(frozen=True, kw_only=True)
class SequenceConfig(CollaborativeConfig):
    """The sequence score's sizes and training."""

    num_blocks: int = 2
    """Blocks of attention."""
    num_heads: int = 2
    """Heads of attention; they divide `dim`."""
    window: int = 100
    """At most so many of a person's last events are read."""
    dropout: float = 0.4
    """Share of numbers that is dropped in training."""
    horizon: int = 3
    """How many of the things taken next are to be foretold."""
    decay: float = 0.6
    """Weight of each of them over that of the one before."""
    events_a_step: int = 2400
    """About how many events a step reads."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_at_least_one("num_blocks", "num_heads", "window", "horizon", "events_a_step")
        if self.dim % self.num_heads or not 0 <= self.dropout < 1 or not 0 < self.decay <= 1:
            raise ConfigError(
                f"dim is {self.dim} with {self.num_heads} heads, dropout {self.dropout} and decay {self.decay}. "
                "Expected heads that divide dim, a share from 0 to below 1, and a weight above 0 and up to 1."
            )


@dataclass(frozen=True, kw_only=True)
class GraphConfig(CollaborativeConfig):
    """The graph score's sizes and training."""

    dim: int = 128
    learning_rate: float = 1e-2
    last_rate: float = 1.0
    """A falling rate measured worse: on lastfm-2k .4385 recall@20 in place of .451."""
    weight_decay: float = 0.1
    epochs: int = 60
    every: int = 5
    patience: int = 3
    num_rounds: int = 1
    """How often embeddings go from items to people and back."""
    num_neighbours: int = 10
    """How many items each adds to itself: of the nearest in content, and of those that foretell it best; 0: none."""
    max_predicted: int = 8000
    """Up to so many items, those that foretell an item are sought: their search holds matrices of items by items."""
    temperature: float = 0.2
    """Divides the cosine. Learned, it falls, and the score overfits from the tenth epoch on."""
    hidden: float = 0.2
    """Share of the asked people's edges that the graph does not know while they are asked."""
    people_a_step: int = 2048
    """At most so many people are asked at once; an epoch has at least four steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.num_rounds, self.num_neighbours, self.max_predicted) < 0 or self.people_a_step < 1:
            raise ConfigError(
                f"num_rounds is {self.num_rounds}, num_neighbours {self.num_neighbours}, max_predicted "
                f"{self.max_predicted} and people_a_step {self.people_a_step}. Expected at least 0, 0, 0 and 1."
            )
        if not self.temperature > 0 or not 0 <= self.hidden < 1:
            raise ConfigError(
                f"temperature is {self.temperature} and hidden {self.hidden}. Expected a temperature above 0 and a "
                "share from 0 to below 1."
            )


@dataclass(frozen=True, kw_only=True)
class ItemItemConfig:
    """How weights from item to item are solved for."""

    rank: int = 128
    """Factors that are kept of them."""
    strength: float = 100.0
    """EASE's λ where none can be chosen, or too many items make choosing slow."""
    seed: int = 0
    """Draws the events that are held out to choose."""

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.strength > 0:
            raise ConfigError(
                f"rank is {self.rank} and strength {self.strength}. Expected at least 1, and a number above 0."
            )


CollaborativeSettings = SequenceConfig | GraphConfig | ItemItemConfig

SETTINGS: dict[str, type[CollaborativeSettings]] = {
    "sequence": SequenceConfig,
    "graph": GraphConfig,
    "item_item": ItemItemConfig,
}
"""Name of a collaborative score → the class of its settings."""
