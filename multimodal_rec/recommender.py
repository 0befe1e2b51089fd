"""The verbs: fit, embed, score, recommend, explain, evaluate, save, load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from multimodal_rec.builders import build_model
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig, TrainingConfig
from multimodal_rec.context import Context
from multimodal_rec.embedding import EmbeddingJob, EmbedReport, check_failures
from multimodal_rec.errors import CatalogueError, NotFittedError, UnknownIdError
from multimodal_rec.evaluation import Evaluation, evaluate_ranking
from multimodal_rec.explanation import Explanation
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.model import RecommenderModel
from multimodal_rec.people import OnUnknown, Person
from multimodal_rec.preparation import training_data
from multimodal_rec.retrieval import Query, top_k
from multimodal_rec.schema import Schema
from multimodal_rec.scorer import Scorer
from multimodal_rec.store import ItemStore
from multimodal_rec.training import Epoch, train
from multimodal_rec.validation import Validator
from multimodal_rec.vocabulary import Vocabulary
from towers import Tower

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class _Trained:
    model: RecommenderModel
    vocabulary: Vocabulary
    schema: Schema
    behaviour: dict[str, np.ndarray]
    store: ItemStore
    cache: FeatureCache
    num_workers: int = 0

    @cached_property
    def job(self) -> EmbeddingJob:
        return EmbeddingJob(
            model=self.model,
            vocabulary=self.vocabulary,
            schema=self.schema,
            behaviour=self.behaviour,
            cache=self.cache,
            num_workers=self.num_workers,
        )


class Recommendations(NamedTuple):
    """What to show, best first."""

    ids: list[list[str | None]]
    """k item ids a person; None where there are no more."""
    scores: np.ndarray
    """Float32 (person, k); -inf where the id is None."""


class Recommender:
    """A recommender over one catalogue: train it, embed items offline, score people in contexts.

    `store`: folder or URI of the item store; None keeps the same tables in memory.
    """

    def __init__(self, config: RecommenderConfig, *, store: str | Path | None = None) -> None:
        self.config = config
        self.epochs: list[Epoch] = []
        self._store_uri = store
        self._trained: _Trained | None = None
        self._scorer: Scorer | None = None

    def fit(
        self,
        train_part: Catalogue,
        *,
        valid: Catalogue | None = None,
        training: TrainingConfig | None = None,
        refit: bool = False,
    ) -> Recommender:
        """Train on a catalogue, then embed its items; self.

        `valid` chooses the number of epochs; its interactions count as known afterwards. `refit=True` then trains
        once more, from the start, on both for that many epochs. A catalogue without interactions trains the
        alignment of its modalities alone. Raises `ItemError` where media cannot be read, `ConfigError` where a tower
        finds no weights, `CatalogueError` where a tower's modality has no column.
        """
        training = TrainingConfig() if training is None else training
        self._check(train_part)
        cache = FeatureCache(training.cache_dir)
        self._fit_once(train_part, valid, training, cache)
        if refit and valid is not None:
            both = _together(train_part, valid)
            values = [epoch.valid for epoch in self.epochs if epoch.valid is not None]
            best = int(np.argmax(values)) + 1 if values else len(self.epochs)
            # In a folder of its own: the checkpoint of the first fit is no beginning for the second.
            folder = None if training.checkpoint_dir is None else str(Path(training.checkpoint_dir) / "refit")
            self._fit_once(both, None, replace(training, epochs=best, checkpoint_dir=folder), cache)
        elif valid is not None:
            self._fitted().store.append_interactions(valid.interactions)
        self._scorer = None
        return self

    def embed(self, items: pd.DataFrame, *, on_error: Literal["raise", "quarantine"] = "raise") -> EmbedReport:
        """Bring the store up to date with these items; only what is new or changed runs through a tower.

        `items` as in `Catalogue.items`: media columns hold lists of absolute paths. Raises `ItemError` for items that
        cannot be embedded, after all others were written; `on_error="quarantine"` reports them instead.
        """
        trained = self._fitted()
        report = trained.job.run(items, trained.store)
        self._scorer = None
        if on_error == "raise":
            check_failures(report)
        return report

    def score(
        self,
        people: Sequence[str | Person],
        items: Sequence[str],
        *,
        context: Context = None,
        on_unknown: OnUnknown = "raise",
    ) -> np.ndarray:
        """Context-aware ranking scores, float32 (person, item); higher is better.

        `context`: one dict for all people or one a person. Raises `UnknownIdError` for an item that is not embedded
        (`on_unknown="skip"` gives -inf there) or a person of whom nothing is known, `ContextError` for a context
        column that was never declared.
        """
        scorer = self._ready()
        rows = [scorer.item_rows.get(item_id) for item_id in items]
        missing = [item_id for item_id, row in zip(items, rows, strict=True) if row is None]
        if missing and on_unknown == "raise":
            raise UnknownIdError(
                f"item '{missing[0]}' is not embedded ({len(missing)} of {len(items)} asked for are not). Expected ids "
                "of this model's rows in the store. Embed them first, or pass on_unknown='skip'."
            )
        scores = np.full((len(people), len(items)), -np.inf, dtype=np.float32)
        known = [place for place, row in enumerate(rows) if row is not None]
        answers = scorer.people.answered(people, on_unknown)
        answered = [place for place, is_answered in enumerate(answers) if is_answered]
        contexts = self._contexts(context, len(people))
        if answered and known:
            chosen = [people[place] for place in answered]
            part = scorer.rank(chosen, contexts[answered], [row for row in rows if row is not None])
            scores[np.ix_(np.array(answered), np.array(known))] = part
        return scores

    def recommend(
        self,
        people: Sequence[str | Person],
        *,
        k: int = 10,
        context: Context = None,
        query: Query | None = None,
        on_unknown: OnUnknown = "raise",
    ) -> Recommendations:
        """The k items with the highest ranking scores a person, by default without what the person already took.

        Every embedded item is scored exactly. `query` filters. Arguments and errors otherwise as in `score`.
        """
        scorer = self._ready()
        query = Query() if query is None else query
        answered = np.array(scorer.people.answered(people, on_unknown), dtype=bool)
        scores = np.full((len(people), len(scorer.ids)), -np.inf, dtype=np.float32)
        contexts = self._contexts(context, len(people))
        if answered.any():
            chosen = [person for person, is_answered in zip(people, answered, strict=True) if is_answered]
            scores[answered] = scorer.rank(chosen, contexts[answered])
        excluded = [scorer.people.seen(person) if query.exclude_seen else set() for person in people]
        best = top_k(scores, scorer.ids, k=k, excluded=excluded, allowed=query.allowed_mask(scorer.table))
        return Recommendations(best.ids, best.scores)

    def similar_items(self, items: Sequence[str], *, k: int = 10) -> Recommendations:
        """The k items whose item embeddings e(i) have the highest cosine with each item's, itself left out."""
        scorer = self._ready()
        rows: list[int] = []
        for item_id in items:
            if item_id not in scorer.item_rows:
                raise UnknownIdError(f"item '{item_id}' is not embedded. Expected an id in the store. Embed it first.")
            rows.append(scorer.item_rows[item_id])
        best = top_k(scorer.similarity(rows), scorer.ids, k=k, excluded=[{row} for row in rows])
        return Recommendations(best.ids, best.scores)

    def explain(self, person: str | Person, item: str, *, context: Context = None) -> Explanation:
        """Why the item scores as it does for this person in this context: one part left out at a time."""
        scorer = self._ready()
        if item not in scorer.item_rows:
            raise UnknownIdError(f"item '{item}' is not embedded. Expected an id in the store. Embed it first.")
        scorer.people.answered([person], "raise")
        return scorer.explain(person, item, self._contexts(context, 1))

    def evaluate(
        self,
        test: Catalogue,
        *,
        candidates: Collection[str] | None = None,
        score: Literal["ranking", "retrieval"] = "ranking",
        without: Sequence[str] = (),
    ) -> Evaluation:
        """How well what people took in `test` is ranked, given everything fitted or validated on.

        Items of `test` that are not embedded yet are embedded first. A query is a person in a context; disliked
        items are no positives. `candidates` ranks only these items; `without` hides parts of items ('image',
        'behaviour', ...) or the 'context' at scoring.
        """
        late = test.items.loc[~test.items["item_id"].isin(self._ready().ids)]
        if len(late):
            self.embed(late)
        scorer = self._ready()
        log = test.interactions.loc[test.event_weights > 0]
        columns = self._fitted().vocabulary.context.columns

        def score_queries(queries: pd.DataFrame) -> np.ndarray:
            contexts = None if "context" in without else queries.loc[:, list(columns)]
            encoded = self._contexts(contexts, len(queries))
            return scorer.rank(queries["user_id"].tolist(), encoded, retrieval=score == "retrieval", without=without)

        return evaluate_ranking(
            score_queries,
            log,
            known=self._fitted().store.read_interactions(),
            item_ids=scorer.ids,
            context_columns=columns,
            candidates=candidates,
        )

    def save(self, path: str | Path) -> Path:
        """Write configuration, vocabulary and weights to a folder: JSON and safetensors, and the log in a store."""
        trained, path = self._fitted(), Path(path)
        path.mkdir(parents=True, exist_ok=True)
        about = {
            "format": _FORMAT,
            "config": self.config.to_dict(),
            "schema": trained.schema.to_toml(),
            "vocabulary": trained.vocabulary.to_dict(),
            "behaviour_items": list(trained.behaviour),
        }
        (path / "config.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        for tower in self.towers.values():
            tower.wake_backbone()
        weights = {name: tensor.contiguous().cpu() for name, tensor in trained.model.state_dict().items()}
        width = trained.model.shape.behaviour_width
        features = np.array(list(trained.behaviour.values()), dtype=np.float32).reshape(-1, width)
        save_file({**weights, "behaviour_features": torch.from_numpy(features)}, path / "model.safetensors")
        if self._store_uri is None:
            # What an earlier `save` left there would be found instead of what is in memory now.
            shutil.rmtree(path / "store", ignore_errors=True)
            with self._open(path / "store") as kept:
                trained.store.copy_into(kept)
        return path

    @classmethod
    def load(cls, path: str | Path, *, store: str | Path | None = None, device: str = "auto") -> Recommender:
        """The recommender that `save` wrote. No weight file but its own is read, and no code runs from it.

        `store`: where its items are or shall be; None takes what was in memory when it was saved, in memory again.
        Raises `NotFittedError` where the folder holds no saved recommender.
        """
        path = Path(path)
        if not (path / "config.json").exists():
            raise NotFittedError(
                f"'{path}' holds no saved recommender: 'config.json' is missing. Expected a folder that `save` wrote."
            )
        about = json.loads((path / "config.json").read_text(encoding="utf-8"))
        recommender = cls(RecommenderConfig.from_dict(about["config"]), store=store)
        vocabulary = Vocabulary.from_dict(about["vocabulary"])
        model = build_model(recommender.config, vocabulary, load_weights=False)
        weights = load_file(path / "model.safetensors")
        features = weights.pop("behaviour_features").numpy()
        model.load_state_dict(weights)
        wanted = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        cache = FeatureCache(None if store is None or "://" in str(store) else Path(store) / "cache")
        recommender._trained = _Trained(
            model.to(wanted).eval(),
            vocabulary,
            Schema.from_toml(about["schema"], source=str(path / "config.json")),
            dict(zip(about["behaviour_items"], features, strict=True)),
            recommender._open(store),
            cache,
        )
        if (path / "store").exists() and recommender._trained.store.num_items == 0:
            with recommender._open(path / "store") as kept:
                kept.copy_into(recommender._trained.store)
        return recommender

    @property
    def towers(self) -> dict[str, Tower]:
        """The towers by modality."""
        model = self._fitted().model
        return {name: model.tower(name) for name in model.towers}

    @property
    def store(self) -> ItemStore:
        """The item store."""
        return self._fitted().store

    def close(self) -> None:
        """Let go of the store."""
        if self._trained is not None:
            self._trained.store.close()

    def _fit_once(
        self, part: Catalogue, valid: Catalogue | None, training: TrainingConfig, cache: FeatureCache
    ) -> None:
        vocabulary = Vocabulary.fit(part, self.config)
        model = build_model(self.config, vocabulary, seed=training.seed)
        data = training_data(part, vocabulary, model, config=self.config, training=training, cache=cache)
        item_ids = list(part.item_ids)
        shown = data.items.behaviour_present.numpy()
        behaviour = {item_id: data.behaviour.features[row] for row, item_id in enumerate(item_ids) if shown[row]}
        validate = None
        if valid is not None and len(valid.interactions):
            validator = Validator(model, vocabulary, data, (part, valid), length=self.config.history_length)
            validate = validator.ndcg if validator.usable else None
        self.epochs = train(model, data, config=self.config, training=training, validate=validate)
        self._scorer = None
        store = self._open(self._store_uri) if self._trained is None else self._trained.store
        self._trained = _Trained(model, vocabulary, part.schema, behaviour, store, cache, training.num_workers)
        store.append_interactions(part.interactions)
        if part.users is not None:
            store.write_users(part.users)
        job = replace(self._trained.job, prepared=data.content.prepared)
        check_failures(job.run(part.items, store))

    def _check(self, part: Catalogue) -> None:
        missing = [modality for modality in self.config.towers if modality not in part.schema.modalities]
        if missing:
            raise CatalogueError(
                f"the configuration has a tower for '{missing[0]}', and the catalogue declares no such column. It has "
                f"{', '.join(part.schema.modalities)}. Drop the tower, or name the column under [columns]."
            )

    def _open(self, uri: str | Path | None) -> ItemStore:
        modalities = [name for name in ("text", "image", "audio", "video") if name in self.config.towers]
        return ItemStore.open(uri, modalities=modalities, embedding_dim=self.config.embedding_dim)

    def _fitted(self) -> _Trained:
        if self._trained is None:
            raise NotFittedError("this recommender is not trained. Call fit(...) first, or Recommender.load(path).")
        return self._trained

    def _contexts(self, context: Context, num_rows: int) -> np.ndarray:
        return self._fitted().vocabulary.contexts(context, num_rows=num_rows)

    def _ready(self) -> Scorer:
        trained = self._fitted()
        if self._scorer is None:
            self._scorer = Scorer.of_store(trained.job, trained.store, length=self.config.history_length)
        return self._scorer


def _together(first: Catalogue, second: Catalogue) -> Catalogue:
    log = pd.concat([first.interactions, second.interactions], ignore_index=True)
    return replace(second, interactions=log)
