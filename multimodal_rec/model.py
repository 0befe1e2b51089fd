"""Towers, fusion, behaviour and context, composed into one model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, final

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusion import FusionKind, build_fusion
from multimodal_rec.collaborative.blend import Blend
from multimodal_rec.content import ItemContent
from multimodal_rec.profiles import ProfileTower
from multimodal_rec.query import QueryEncoder, QueryInput
from multimodal_rec.schema import Schema
from towers import Tower
from towers.backbone import hash_state


class ModalityFeatures(NamedTuple):
    """What a modality's backbone gave for some items."""

    windows: Tensor
    """(item, window, feature dim); 0 where absent."""
    present: Tensor
    """Bool (item, window); an item with no True has nothing of this modality."""


class ItemFeatures(NamedTuple):
    """All that is known of some items before anything learned here reads it."""

    modalities: dict[str, ModalityFeatures]
    attributes: Tensor
    """(item, attribute width)."""
    attributes_present: Tensor
    """Bool (item,)."""
    behaviour: Tensor
    """(item, behaviour width)."""
    behaviour_present: Tensor
    """Bool (item,): False for whoever is new."""
    stored: Tensor | None = None
    """(item, part - 1, dim): tokens of all parts but behaviour, where these are to be taken as they are."""

    def to(self, device: torch.device | str) -> ItemFeatures:
        """The same features on another device."""
        modalities = {name: ModalityFeatures(w.to(device), p.to(device)) for name, (w, p) in self.modalities.items()}
        return ItemFeatures(
            modalities,
            self.attributes.to(device),
            self.attributes_present.to(device),
            self.behaviour.to(device),
            self.behaviour_present.to(device),
            None if self.stored is None else self.stored.to(device),
        )


class ScoredItems(NamedTuple):
    """All that scores read of some items."""

    tokens: Tensor
    """(item, part, dim)."""
    present: Tensor
    """Bool (item, part)."""
    content: Tensor
    """(item, part, content rank), 0 for behaviour: what each part's content lets expect of the item's vectors."""
    vectors: Tensor
    """(item, vector width): what was learned of the items that somebody took."""
    embeddings: Tensor
    """(item, part · dim + score dim)."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The widths that a model is built for."""

    embedding_dim: int
    attribute_width: int
    behaviour_width: int
    context_width: int
    person_width: int
    event_weights: tuple[float, ...]
    """First guess of how much each kind of event speaks for a person; index 0 is for none or unknown."""
    fusion: FusionKind = "attention"
    texts_apart: bool = False
    """Whether each window of text is a column of the catalogue, the same one for every item."""


class Scores(NamedTuple):
    """Both scores of the same queries and items, each (query, item)."""

    retrieval: Tensor
    """⟨q, e(i)⟩: an inner product with the item's own embedding, which an index can search."""
    ranking: Tensor
    """Σ_p weight(p; q, i) ⟨q_p, x(i, p)⟩: exact, with the parts weighed for this query (by `attention`)."""


@final
class RecommenderModel(nn.Module):
    """Everything that is learned.

    An item is one token a *part*, in the order of `parts`: its modalities, its attributes, its behaviour. Tokens of
    all parts have the same size (layer-normalised), so that none outweighs another before it has earned to.
    """

    def __init__(
        self,
        towers: Mapping[str, Tower],
        shape: ModelShape,
        *,
        profile: ProfileTower | None = None,
        dropout: float = 0.0,
        temperature: float = 0.5,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.dropout = dropout
        self.parts = (*towers, "attributes", "behaviour")
        dim, num_parts = shape.embedding_dim, len(self.parts)
        self.towers = nn.ModuleDict(towers)
        self.profile = profile
        self.aligners = nn.ModuleDict({name: nn.Linear(dim, dim) for name in towers})
        self.attributes = nn.Linear(shape.attribute_width, dim)
        self.behaviour = nn.Linear(shape.behaviour_width, dim)
        self.query = QueryEncoder(
            dim,
            num_parts,
            context_width=shape.context_width,
            person_width=shape.person_width,
            event_weights=list(shape.event_weights),
        )
        self.fusion, self.ranking = build_fusion(shape.fusion, dim, num_parts)
        self.like = nn.Linear(1, 1)
        nn.init.ones_(self.like.weight)
        nn.init.zeros_(self.like.bias)
        self.rating = nn.Linear(1, 1)
        nn.init.zeros_(self.rating.weight)
        nn.init.zeros_(self.rating.bias)
        self.blend: Blend | None = None
        # Made last, so that every other weight starts as it would without it.
        self.aligners["attributes"] = nn.Linear(dim, dim)
        # Tokens have norm √dim, so ⟨q, x⟩ of like with like is about dim: the temperature is of the mean product.
        self.log_temperature = nn.Parameter(torch.full((2,), temperature * dim).log())

    def tower(self, modality: str) -> Tower:
        """The tower of one modality."""
        tower = self.towers[modality]
        if not isinstance(tower, Tower):
            raise TypeError(f"towers['{modality}'] is a {type(tower).__name__}. Expected a Tower.")
        return tower

    def use_int8(self) -> int:
        """Give the towers' backbones int8 weights, for good, as `Tower.use_int8` does; how many layers have them."""
        return sum(self.tower(name).use_int8() for name in self.towers)

    @property
    def max_windows(self) -> dict[str, int]:
        """Modality → how many pictures, windows or frames of an item its tower reads at most."""
        return {name: self.tower(name).max_windows for name in self.towers}

    @property
    def frames(self) -> str:
        """Which frames of a video its tower reads, for whoever decodes them."""
        return self.tower("video").frames if "video" in self.towers else "even"

    @property
    def vectors(self) -> dict[str, tuple[str, ...]]:
        """Modality → the columns of vectors that its tower reads, for towers that read vectors."""
        return {name: self.tower(name).columns for name in self.towers if self.tower(name).columns}

    def content_of(self, items: pd.DataFrame, schema: Schema) -> ItemContent:
        """What these items give each tower to read, as a `Catalogue` holds them."""
        return ItemContent(
            items,
            schema,
            max_windows=self.max_windows,
            frames=self.frames,
            vectors=self.vectors,
            texts_apart=self.shape.texts_apart,
        )

    def tokens(self, features: ItemFeatures) -> tuple[Tensor, Tensor]:
        """Tokens (item, part, dim) and which are present, bool (item, part)."""
        if features.stored is not None:
            there = [present.any(dim=1) for _, present in features.modalities.values()]
            there += [features.attributes_present, features.behaviour_present]
            behaviour = self.behaviour_token(features.behaviour).unsqueeze(1)
            return torch.cat([features.stored, behaviour], dim=1), torch.stack(there, dim=1)
        pairs = [self.modality_token(name, features.modalities[name]) for name in self.towers]
        tokens = [token for token, _ in pairs]
        tokens += [self.attribute_token(features.attributes), self.behaviour_token(features.behaviour)]
        present = [here for _, here in pairs] + [features.attributes_present, features.behaviour_present]
        return torch.stack(tokens, dim=1), torch.stack(present, dim=1)

    def modality_token(self, modality: str, features: ModalityFeatures) -> tuple[Tensor, Tensor]:
        """The token of one modality, (item, dim), and which items have it, bool (item,)."""
        windows, there = features
        here = there.any(dim=1)
        # An item without the modality goes through as one window of zeros and is masked: no window would be NaN.
        some = there.clone()
        some[:, 0] |= ~here
        return self._normal(self.tower(modality).project(windows, some)), here

    def attribute_token(self, attributes: Tensor) -> Tensor:
        """The token of attributes, (item, dim), from (item, attribute width)."""
        return self._normal(self.attributes(attributes))

    def behaviour_token(self, behaviour: Tensor) -> Tensor:
        """The token of behaviour, (item, dim), from (item, behaviour width)."""
        return self._normal(self.behaviour(behaviour))

    def _normal(self, token: Tensor) -> Tensor:
        return F.layer_norm(token, (self.shape.embedding_dim,))

    @property
    def vector_width(self) -> int:
        """How many numbers an item is to the collaborative scores: 0 without a blend."""
        return 0 if self.blend is None else self.blend.width

    def content_features(self, modality: str, features: ModalityFeatures) -> Tensor:
        """What the content map reads of a modality, (item, width), 0 where absent: the mean of an item's windows, or
        each of them where they are columns of text."""
        windows, present = features
        weights = present.to(windows.dtype).unsqueeze(-1)
        if modality == "text" and self.shape.texts_apart:
            return (windows * weights).flatten(start_dim=1)
        return (windows * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)

    def modality_numbers(self, modality: str, features: ModalityFeatures) -> tuple[Tensor, Tensor]:
        """What is stored of one modality: its token and what it lets expect of the vectors; which items have it."""
        token, here = self.modality_token(modality, features)
        return self._with_expected(token, modality, self.content_features(modality, features)), here

    def attribute_numbers(self, attributes: Tensor) -> Tensor:
        """What is stored of attributes, (item, dim + content rank), from (item, attribute width)."""
        return self._with_expected(self.attribute_token(attributes), "attributes", attributes)

    def behaviour_numbers(self, features: Tensor) -> Tensor:
        """What is stored of behaviour, (item, dim + vector width), from (item, behaviour width + vector width)."""
        width = self.shape.behaviour_width
        return torch.cat([self.behaviour_token(features[:, :width]), features[:, width:]], dim=1)

    def item_vectors(self, content: Tensor, present: Tensor, taken: Tensor) -> Tensor:
        """What each item is to the collaborative scores, (item, vector width).

        `content`: (item, part - 1, content rank), what each part but behaviour lets expect; `present`: bool (item,
        part); `taken`: (item, vector width), what was learned of the items that have behaviour.
        """
        return taken if self.blend is None else self.blend.vectors(content, present[:, :-1], taken, present[:, -1])

    def scored(self, features: ItemFeatures, learned: Tensor) -> ScoredItems:
        """All that scores read of these items; `learned`: (item, vector width), as of `ScoredItems.vectors`."""
        tokens, present = self.tokens(features)
        content = tokens.new_zeros(*present.shape, 0 if self.blend is None else self.blend.content.rank)
        if self.blend is not None:
            for part, name in enumerate(self.towers):
                read = self.content_features(name, features.modalities[name])
                content[:, part] = self.blend.content.part(name, read)
            content[:, -2] = self.blend.content.part("attributes", features.attributes)
        vectors = self.item_vectors(content[:, :-1], present, learned)
        return ScoredItems(tokens, present, content, learned, self.embeddings(tokens, present, vectors))

    def _with_expected(self, token: Tensor, part: str, features: Tensor) -> Tensor:
        return token if self.blend is None else torch.cat([token, self.blend.content.part(part, features)], dim=1)

    def modality_fingerprint(self, name: str) -> str:
        """16 hexadecimal digits over all weights that make a modality's token, and what it lets expect."""
        fingerprint = self.tower(name).fingerprint()
        if self.blend is None:
            return fingerprint
        digest = hashlib.sha256(fingerprint.encode())
        hash_state(digest, self.blend.content.state_dict())
        return digest.hexdigest()[:16]

    def item_fingerprint(self) -> str:
        """16 hexadecimal digits over all weights that make an item's tokens, vectors and embedding."""
        digest = hashlib.sha256()
        for name in self.towers:
            digest.update(self.tower(name).fingerprint().encode())
        made_of = (self.attributes, self.behaviour, self.fusion, *([] if self.blend is None else [self.blend]))
        for module in made_of:
            hash_state(digest, module.state_dict())
        return digest.hexdigest()[:16]

    def score_fingerprint(self) -> str:
        """16 hexadecimal digits over all weights that turn stored items and people into ranking scores."""
        digest = hashlib.sha256(self.item_fingerprint().encode())
        for module in (self.query, self.ranking):
            hash_state(digest, module.state_dict())
        hash_state(digest, {"log_temperature": self.log_temperature})
        return digest.hexdigest()[:16]

    def fuse(self, tokens: Tensor, present: Tensor) -> Tensor:
        """The parts of each item as one, (item, part · dim)."""
        return self.fusion(tokens, present)

    def embeddings(self, tokens: Tensor, present: Tensor, vectors: Tensor) -> Tensor:
        """Item embeddings e(i), (item, part · dim + score dim): what retrieval searches.

        `vectors`: (item, vector width), what each item is to the collaborative scores; anything without a blend.
        """
        fused = self.fuse(tokens, present)
        if self.blend is None:
            return fused
        taken = present[:, -1]
        return torch.cat([fused * self.blend.own(taken).unsqueeze(1), self.blend.items(vectors, taken)], dim=1)

    @property
    def fused_dim(self) -> int:
        """How many numbers the fused parts of an item are."""
        return len(self.parts) * self.shape.embedding_dim

    def fused_side(self, queries: Tensor) -> Tensor:
        """What retrieval multiplies the fused parts of items with, (query, part · dim)."""
        return queries.flatten(start_dim=1) / self.log_temperature.exp()[0]

    def queries(self, inputs: QueryInput, tokens: Tensor, present: Tensor) -> Tensor:
        """Queries (query, part, dim) of people in contexts, over the items that their histories index."""
        return F.dropout(self.query(inputs, tokens, present), self.dropout, self.training)

    def scores(self, queries: Tensor, tokens: Tensor, present: Tensor) -> Scores:
        """Both scores (query, item), each divided by its temperature."""
        retrieval = queries.flatten(start_dim=1) @ self.fuse(tokens, present).T
        ranking = self.ranking(queries, tokens, present)
        temperature = self.log_temperature.exp()
        return Scores(retrieval / temperature[0], ranking / temperature[1])

    def rank(self, queries: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
        """The context-aware ranking score alone, (query, item)."""
        return self.ranking(queries, tokens, present) / self.log_temperature.exp()[1]

    def rank_own(self, queries: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
        """The ranking score of items that each query has of its own: `tokens` (query, item, part, dim)."""
        return self.ranking.of_own(queries, tokens, present) / self.log_temperature.exp()[1]

    def like_logits(self, scores: Tensor) -> Tensor:
        """Ranking scores as logits of like against dislike: one scale and one threshold for all."""
        return self.like(scores.unsqueeze(-1)).squeeze(-1)

    def predicted_rating(self, scores: Tensor) -> Tensor:
        """Ranking scores as standardised ratings or watched shares: one scale and one offset for all."""
        return self.rating(scores.unsqueeze(-1)).squeeze(-1)

    def aligned(self, tokens: Tensor) -> list[Tensor]:
        """Each modality's token, then that of attributes, in the space that they share, a list of (item, dim)."""
        return [head(tokens[:, index]) for index, head in enumerate(self.aligners.values())]
