"""What a training catalogue taught about its columns: how attributes, contexts, people and events become numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig
from multimodal_rec.context import Context, ContextReader
from multimodal_rec.errors import ConfigError
from multimodal_rec.fields import FieldEncoder, column_of, number_values
from multimodal_rec.history import Events
from multimodal_rec.splits import interaction_order
from multimodal_rec.vectors import fit_vectors, vector_columns
from towers import VectorStatistics


@dataclass(frozen=True, eq=False, kw_only=True)
class Vocabulary:
    """Fitted encoders. Widths are at least 1, so that a model without context, say, has a column of zeros for it."""

    attributes: FieldEncoder
    context: ContextReader
    people: FieldEncoder
    events: tuple[str, ...]
    """Kinds of event, in the order of their index, which starts at 1; 0 is for none or unknown."""
    weights: Mapping[str, float]
    """Event → declared weight; events that are not declared weigh 1."""
    value_mean: float
    value_std: float
    vectors: Mapping[str, VectorStatistics] = field(default_factory=dict)
    """Modality → what standardises its vectors, for towers that read vectors."""
    profile: str | None = None
    """The user column with what people say of themselves; None where the model reads no profiles."""

    @classmethod
    def fit(cls, catalogue: Catalogue, config: RecommenderConfig, *, max_categories: int = 512) -> Vocabulary:
        """The vocabulary of a training catalogue. `max_categories` bounds each attribute or context column.

        Raises `CatalogueError` where a tower reads columns of vectors that this catalogue does not have, `ConfigError`
        where profiles are to be read and it declares none.
        """
        schema, log = catalogue.schema, catalogue.interactions
        if config.profile is not None and schema.profile is None:
            raise ConfigError(
                f"the configuration has a profile tower ('{config.profile.backbone}'), and catalogue '{schema.name}' "
                'declares no profile. Expected a user column of text. Name it in catalogue.toml (text = "COLUMN" '
                "under [profile]), or leave RecommenderConfig.profile at None."
            )
        context = FieldEncoder.fit(log, schema.context if config.context else {}, max_categories=max_categories)
        users = pd.DataFrame() if catalogue.users is None else catalogue.users
        kinds = sorted({str(kind) for kind in log["event"].dropna()}) if "event" in log else []
        values = number_values(column_of(log, "value")) if "value" in log else np.zeros(0)
        values = values[np.isfinite(values)]
        return cls(
            attributes=FieldEncoder.fit(
                catalogue.items, schema.attributes if config.attributes else {}, max_categories=max_categories
            ),
            context=ContextReader(context),
            people=FieldEncoder.fit(users, schema.user_attributes if len(users) else {}),
            events=tuple(kinds),
            weights=dict(schema.events),
            value_mean=float(values.mean()) if len(values) else 0.0,
            value_std=max(float(values.std()), 1e-6) if len(values) else 1.0,
            vectors=fit_vectors(catalogue.items, vector_columns(config, schema)),
            profile=schema.profile if config.profile is not None else None,
        )

    @property
    def event_weights(self) -> tuple[float, ...]:
        """First guess of how much each kind of event speaks for a person, by index."""
        return (1.0, *(float(self.weights.get(kind, 1.0)) for kind in self.events))

    def item_attributes(self, items: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Float32 (item, width ≥ 1), and bool (item,): whether any attribute is known."""
        features = self.attributes.transform(items)
        return wide(features), (features != 0).any(axis=1)

    def profiles(self, users: pd.DataFrame) -> list[object]:
        """What each person says of themselves; None for all where the model reads no profiles."""
        return [None] * len(users) if self.profile is None else column_of(users, self.profile).tolist()

    def contexts(self, context: Context, *, num_rows: int) -> np.ndarray:
        """Float32 (num_rows, width ≥ 1). Raises `ContextError` for what was never declared."""
        return wide(self.context.read(context, num_rows=num_rows))

    def encode_events(
        self, log: pd.DataFrame, user_rows: Mapping[str, int], item_rows: Mapping[str, int]
    ) -> tuple[Events, np.ndarray]:
        """A log in each person's order, as arrays, with the declared weight (event,) of each.

        Events of people or items that have no row are left out.
        """
        known = log["user_id"].isin(list(user_rows)) & log["item_id"].isin(list(item_rows))
        log = log.loc[known.to_numpy()]
        order = interaction_order(log)
        if order is not None:
            log = log.iloc[order]
        kinds = {kind: index for index, kind in enumerate(self.events, start=1)}
        names = [str(name) for name in column_of(log, "event")]
        value = number_values(column_of(log, "value")) if "value" in log else np.full(len(log), np.nan)
        seconds = log["timestamp"].to_numpy(dtype=np.float64) if "timestamp" in log else np.zeros(len(log))
        columns = [name for name in self.context.columns if name in log]
        events = Events(
            user_index=np.array([user_rows[user_id] for user_id in log["user_id"]], dtype=np.int64),
            item_index=np.array([item_rows[item_id] for item_id in log["item_id"]], dtype=np.int64),
            kind=np.array([kinds.get(name, 0) for name in names], dtype=np.int64),
            value=np.nan_to_num((value - self.value_mean) / self.value_std).astype(np.float32),
            context=self.contexts(log.loc[:, columns], num_rows=len(log)),
            seconds=np.nan_to_num(seconds),
        )
        return events, self.weights_of(log)

    def weights_of(self, log: pd.DataFrame) -> np.ndarray:
        """The declared weight of each event, float32 (event,), in the log's own order."""
        names = [str(name) for name in column_of(log, "event")]
        return np.array([self.weights.get(name, 1.0) for name in names], dtype=np.float32)

    def to_dict(self) -> dict[str, Any]:
        """This vocabulary as plain JSON values."""
        return {
            "attributes": self.attributes.to_dict(),
            "context": self.context.encoder.to_dict(),
            "people": self.people.to_dict(),
            "events": list(self.events),
            "weights": dict(self.weights),
            "value_mean": self.value_mean,
            "value_std": self.value_std,
            "vectors": {name: statistics.to_dict() for name, statistics in self.vectors.items()},
            "profile": self.profile,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Vocabulary:
        """The vocabulary that `to_dict` described."""
        return cls(
            attributes=FieldEncoder.from_dict(values["attributes"]),
            context=ContextReader(FieldEncoder.from_dict(values["context"])),
            people=FieldEncoder.from_dict(values["people"]),
            events=tuple(values["events"]),
            weights=dict(values["weights"]),
            value_mean=float(values["value_mean"]),
            value_std=float(values["value_std"]),
            # Models that were saved before there were vectors have none.
            vectors={name: VectorStatistics.from_dict(each) for name, each in values.get("vectors", {}).items()},
            profile=values.get("profile"),
        )


def wide(features: np.ndarray) -> np.ndarray:
    """The features, or one column of zeros where there are none."""
    return features if features.shape[1] else np.zeros((len(features), 1), dtype=np.float32)
