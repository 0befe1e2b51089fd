"""Every choice a user can make, as frozen dataclasses that check themselves."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from multimodal_rec.collaborative.settings import SETTINGS, CollaborativeSettings
from multimodal_rec.errors import ConfigError

Modality = Literal["text", "image", "audio", "video"]
Tuning = Literal["frozen", "adapter", "full"]
Adapter = Literal["lora", "dora", "adalora", "bottleneck", "side"]
Pooling = Literal["auto", "mean", "cls", "attention"]
# As in `fusion.kinds`, whose import would bring torch to whoever only reads a configuration.
FusionKind = Literal["attention", "concatenation", "gating", "mean"]

MODALITIES: tuple[str, ...] = get_args(Modality)
"""The modalities in the order in which a model keeps their tokens."""


@dataclass(frozen=True)
class TowerConfig:
    """One tower: which backbone, how it is tuned, and what it reads of an item."""

    backbone: str
    """`hf:NAME`, `open_clip:ARCH/TAG`, `timm:NAME`, `torchaudio:BUNDLE`, `spectrogram:TIMM_NAME`, a local folder
    after the same prefix, `frames:image` (video through the image tower's backbone), or `vectors:` (whatever vectors
    the catalogue declares for the modality, in place of its media; `vectors:COLUMN` or `vectors:COLUMN,COLUMN` takes
    some of them)."""
    _: KW_ONLY
    tuning: Tuning = "frozen"
    """`frozen`: only the projection learns; `adapter`: small weights beside frozen ones; `full`: every weight."""
    adapter: Adapter = "lora"
    """Which, for `tuning="adapter"`: `lora`, `dora` and `adalora` are low-rank matrices beside attention, `bottleneck`
    a small network behind each half of a block, `side` one beside the whole backbone, which then runs once an item."""
    adapter_rank: int = 8
    """Rank of the low-rank matrices, width of a bottleneck, an eighth of a side network's width."""
    top_layers: int | None = None
    """For `tuning="full"`: only the last blocks learn (of a convolutional net: stages), and what follows them."""
    pretrained: bool = True
    """False gives the same class with random weights and reads no weight file."""
    pooling: Pooling = "auto"
    """How a text backbone's token outputs become one; `auto` takes what the folder declares, else mean; `attention`
    learns which tokens matter."""
    prefix: str | None = None
    """Put before every text, such as 'passage: '; None takes what the folder declares, '' none."""
    columns_apart: bool = False
    """Each text column is one window of its own, an empty one included, in place of all joined to one text: what a
    title says is then told apart from what a plot says. A column is cut after `max_tokens`."""
    frames: Literal["even", "scenes"] = "even"
    """Which frames of a video are read: evenly spread ones, or the first of each scene."""
    image_size_px: int | None = None
    """Side of the square picture or frame; None takes the backbone's own."""
    clip_seconds: float = 3.0
    """Length of one window of sound."""
    max_windows: int = 4
    """At most this many pictures, windows of sound or text, or frames of an item are read, spread evenly."""
    max_tokens: int = 256
    """Length of one window of text (or the backbone's own limit, where that is smaller)."""
    learning_rate: float | None = None
    """Of what tuning trains; None takes 1e-3 for random weights and for `bottleneck` and `side`, 2e-4 for other
    adapters, 2e-5 otherwise."""
    weight_decay: float = 0.01
    """Decoupled (AdamW), of what tuning trains; not of biases and norms."""
    layer_decay: float = 1.0
    """The learning rate of a block is this times that of the block after it."""
    gradient_checkpointing: bool = False
    """Compute blocks again in the backward pass instead of keeping what they computed: less memory, more time."""
    compile: bool = False
    """Compile the backbone with torch.compile, which needs a C++ compiler on this machine and a minute or two; it pays
    in long runs only."""

    def __post_init__(self) -> None:
        if ":" not in self.backbone:
            raise ConfigError(
                f"backbone '{self.backbone}' has no prefix. Expected one of 'hf:', 'open_clip:', 'timm:', "
                f"'torchaudio:', 'spectrogram:', 'frames:', 'vectors:' before the name, such as "
                "'hf:bert-base-uncased'."
            )
        _check_choice("tuning", self.tuning, get_args(Tuning))
        _check_choice("adapter", self.adapter, get_args(Adapter))
        _check_choice("pooling", self.pooling, get_args(Pooling))
        _check_choice("frames", self.frames, ("even", "scenes"))
        _check_positive(self, "clip_seconds", "max_windows", "max_tokens", "adapter_rank", "layer_decay")
        if self.layer_decay > 1 or self.weight_decay < 0:
            raise ConfigError(
                f"layer_decay={self.layer_decay}, weight_decay={self.weight_decay}. Expected a layer_decay above 0 and "
                "at most 1, and a weight_decay of at least 0."
            )
        if self.top_layers is not None and (self.tuning != "full" or self.top_layers < 1):
            raise ConfigError(
                f"top_layers={self.top_layers} with tuning='{self.tuning}'. Expected at least 1, with tuning='full'."
            )
        if self.keeps_backbone and self.gradient_checkpointing:
            raise ConfigError(
                f"gradient_checkpointing with {self._tuned}: no gradient goes through the backbone, so there is "
                "nothing to compute again. Leave it out, or take another tuning."
            )
        if self.keeps_backbone and self.pooling == "attention":
            raise ConfigError(
                f"pooling='attention' learns over tokens, and with {self._tuned} only pooled rows are kept. "
                "Take 'mean' or 'cls', or another tuning."
            )
        if self.columns_apart and not self.backbone.startswith("hf:"):
            raise ConfigError(
                f"columns_apart=True with '{self.backbone}', which reads no text. Expected a backbone that starts with "
                "'hf:'. Leave it out."
            )
        if not self.pretrained and self.tuning == "adapter":
            raise ConfigError(
                "tuning='adapter' on random weights (pretrained=False) would adapt noise. "
                "Take tuning='full', or pretrained=True."
            )

    @property
    def keeps_backbone(self) -> bool:
        """Whether the backbone's weights stay as they are, so that its outputs are computed once and cached."""
        return self.tuning == "frozen" or (self.tuning == "adapter" and self.adapter == "side")

    @property
    def _tuned(self) -> str:
        return "tuning='frozen'" if self.tuning == "frozen" else f"adapter='{self.adapter}'"


@dataclass(frozen=True)
class RecommenderConfig:
    """The model: its towers and what else may speak for an item."""

    towers: Mapping[str, TowerConfig] = field(default_factory=dict)
    """Modality ('text', 'image', 'audio', 'video') → tower. Order does not matter."""
    _: KW_ONLY
    profile: TowerConfig | None = None
    """Which text backbone reads what people say of themselves, always as it is; None reads no profiles."""
    embedding_dim: int = 32
    """Dimension of each part of an item: an item embedding has one block of it a part."""
    fusion: FusionKind = "attention"
    """How parts become one: `attention` weighs them, in the ranking score for each query anew; `gating`,
    `concatenation` and `mean` do so once an item, or not at all."""
    behaviour_rank: int = 16
    """Factors of co-consumption that are read from the log."""
    attributes: bool = True
    """Read the attribute columns that the catalogue declares."""
    behaviour: bool = True
    """Read who consumed what: item statistics, co-consumption, person embeddings."""
    context: bool = True
    """Read the context columns that the catalogue declares."""
    collaborative: Mapping[str, CollaborativeSettings] = field(default_factory=dict)
    """Scores from the log alone, blended with the model's own, and their settings: `sequence` (what came last, for
    logs with an order), `graph` (who took what), `item_item` (closed form). `fit` weighs them by its `valid` part."""
    history_length: int = 50
    """At most this many of a person's latest events speak for the person."""
    temperature: float = 1.0
    """Divides every score before the softmax, in units of `embedding_dim`; a starting value, learned from there."""
    modality_dropout: float = 0.03
    """Chance that a present part of an item is hidden in a training step."""
    behaviour_dropout: float = 0.2
    """Chance that everything learned from an item's own interactions is hidden in a training step."""
    dropout: float = 0.3
    """On item tokens and queries."""
    objective: Literal["softmax", "bpr", "bce"] = "softmax"
    """Of ranking: cross-entropy among all items, or `num_negatives` sampled ones, in pairs with what was taken (`bpr`)
    or one by one (`bce`)."""
    num_negatives: int = 32
    """Items drawn against each one taken, for `bpr` and `bce`."""
    hard_negatives: float = 0.0
    """Share of them that are the best scored of ten times as many."""
    rating_weight: float = 0.0
    """Weight of predicting `value` (a rating, a watched share) from the score, as a squared error in squared standard
    deviations; for catalogues whose interactions have one."""
    task_weights: Literal["fixed", "learned"] = "fixed"
    """`learned`: the losses of ranking, dislikes, ratings and alignment are weighed by how noisy they turn out, and
    the weights given for them here only say where that starts."""
    pointwise_weight: float = 10.0
    """Weight of telling likes from dislikes, where the catalogue declares events of negative weight."""
    alignment_weight: float = 0.1
    """Weight of the contrastive alignment of an item's modalities and attributes, by which `search` compares; 0 turns
    it off."""

    def __post_init__(self) -> None:
        for modality, tower in self.towers.items():
            _check_choice("tower", modality, MODALITIES)
            if not isinstance(tower, TowerConfig):
                raise ConfigError(f"towers['{modality}'] is a {type(tower).__name__}. Expected a TowerConfig.")
        for name, settings in self.collaborative.items():
            _check_choice("collaborative score", name, tuple(SETTINGS))
            if not isinstance(settings, SETTINGS[name]):
                raise ConfigError(
                    f"collaborative['{name}'] is a {type(settings).__name__}. Expected a {SETTINGS[name].__name__}."
                )
        if self.collaborative and not self.behaviour:
            raise ConfigError("collaborative scores read the log, and behaviour=False says not to. Drop one of them.")
        _check_profile(self.profile)
        if not self.towers and not self.attributes and not self.behaviour:
            raise ConfigError(
                "no towers, no attributes and no behaviour: an item would have nothing to show. Keep one."
            )
        _check_choice("fusion", self.fusion, get_args(FusionKind))
        _check_choice("objective", self.objective, ("softmax", "bpr", "bce"))
        _check_choice("task_weights", self.task_weights, ("fixed", "learned"))
        _check_positive(self, "embedding_dim", "behaviour_rank", "history_length", "temperature", "num_negatives")
        _check_share(self, "modality_dropout", "behaviour_dropout", "dropout")
        if not 0 <= self.hard_negatives <= 1:
            raise ConfigError(f"hard_negatives is {self.hard_negatives}. Expected a share from 0 to 1.")
        for name in ("rating_weight", "pointwise_weight", "alignment_weight"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}. Expected a number of at least 0; 0 turns it off.")

    def to_dict(self) -> dict[str, Any]:
        """This configuration as plain JSON values; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RecommenderConfig:
        """A configuration from JSON or TOML values. Raises `ConfigError` naming the nearest key for an unknown one."""
        values = dict(values)
        towers = {name: _construct(TowerConfig, tower) for name, tower in values.pop("towers", {}).items()}
        collaborative = dict(values.pop("collaborative", {}))
        for name, settings in collaborative.items():
            _check_choice("collaborative score", name, tuple(SETTINGS))
            collaborative[name] = _construct(SETTINGS[name], settings)
        profile = values.pop("profile", None)
        if isinstance(profile, Mapping):
            profile = _construct(TowerConfig, profile)
        return _construct(cls, {"towers": towers, "collaborative": collaborative, "profile": profile, **values})


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The loop: where it runs, how long, and from which random state."""

    device: str = "auto"
    """`auto` takes CUDA, then Apple's MPS, then the CPU; or 'cpu', 'cuda' or 'mps'. CUDA_VISIBLE_DEVICES says which."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto` takes bf16 where the accelerator has it, else fp32."""
    epochs: int = 15
    """Passes over the training interactions."""
    batch_size: int = 256
    """Training interactions a step."""
    items_per_step: int = 48
    """Where a tower is trained: at most this many distinct target items pass through it in one step."""
    gradient_accumulation: int = 1
    """Steps whose gradients are averaged before the weights change: a larger batch in the same memory."""
    learning_rate: float = 1e-2
    """Peak, of everything but backbones, which have their own in `TowerConfig`; warmed up, then cosine to zero."""
    weight_decay: float = 1.0
    """Decoupled (AdamW)."""
    max_softmax_items: int = 20_000
    """Up to this many items are all candidates of every step; with more, those of the step are."""
    patience: int = 5
    """Stop after this many epochs without a better validation NDCG@10; without `valid` all epochs are run."""
    seed: int = 0
    """Of weights, sampling and dropout; `fit` seeds Python's, NumPy's and torch's global generators with it. The same
    seed on the same machine gives the same losses."""
    num_workers: int = 0
    """Processes that decode media; 0 decodes in this one."""
    cache_dir: str | None = None
    """Where frozen backbones' outputs are kept; None keeps them in memory for this run."""
    checkpoint_dir: str | None = None
    """Where optimiser, sampler and random states are written after each epoch; a later `fit` resumes there."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        _check_choice("device", self.device, ("auto", "cpu", "cuda", "mps"))
        _check_choice("precision", self.precision, ("auto", "fp32", "bf16", "fp16"))
        _check_positive(self, "epochs", "batch_size", "items_per_step", "patience")
        _check_positive(self, "gradient_accumulation", "learning_rate")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """A configuration from JSON or TOML values. Raises `ConfigError` naming the nearest key for an unknown one."""
        return _construct(cls, values)


def _construct(cls: type, values: Mapping[str, Any]) -> Any:
    names = [f.name for f in fields(cls) if f.init]
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else f" It has: {', '.join(names)}."
            raise ConfigError(f"{cls.__name__} has no setting '{key}'.{hint}")
    return cls(**values)


def _check_profile(profile: object) -> None:
    if profile is None:
        return
    if not isinstance(profile, TowerConfig):
        raise ConfigError(f"profile is a {type(profile).__name__}. Expected a TowerConfig, or None.")
    prefix = profile.backbone.partition(":")[0]
    if prefix != "hf":
        raise ConfigError(
            f"profile has the backbone '{profile.backbone}', and '{prefix}:' reads no text. Expected a text encoder, "
            "such as 'hf:bert-base-uncased'."
        )
    if profile.tuning != "frozen":
        raise ConfigError(
            f"profile has tuning='{profile.tuning}', and the backbone that reads profiles never learns. Expected "
            "tuning='frozen'. Leave it out; what a profile says about taste is learned behind the backbone."
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"{name} '{value}' is unknown. Expected one of {', '.join(map(repr, choices))}.{hint}")


def _check_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not value > 0:
            raise ConfigError(f"{type(config).__name__}.{name} is {value}. Expected a number above 0.")


def _check_share(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < 1:
            raise ConfigError(f"{type(config).__name__}.{name} is {value}. Expected at least 0 and below 1.")
