"""The verbs that change something, and what is asked of a test part: fit, embed, update, publish, evaluate, save."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
import pandas as pd

from multimodal_rec.blending import Choice
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig, TrainingConfig
from multimodal_rec.embedding import EmbedReport, check_failures
from multimodal_rec.errors import ItemError, NotFittedError
from multimodal_rec.evaluation import Evaluation
from multimodal_rec.evaluation.leaks import check_disjoint, check_role, check_written
from multimodal_rec.evaluation.protocol import Protocol
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.fine_tuning import FineTune
from multimodal_rec.fitting import check_catalogue, fit_model
from multimodal_rec.index_folder import index_path
from multimodal_rec.index_table import index_at
from multimodal_rec.item_stream import Items
from multimodal_rec.judging import judge, known_before
from multimodal_rec.parts import less, together, with_given
from multimodal_rec.quantisation import quantised
from multimodal_rec.ray_engine import Engine, ray_engine
from multimodal_rec.service import ServiceVerbs
from multimodal_rec.staleness import check_complete
from multimodal_rec.store import ItemStore
from multimodal_rec.trained import Trained, store_layout
from multimodal_rec.training import Epoch
from multimodal_rec.updating import UpdateReport, update
from towers import Tower


class Recommender(ServiceVerbs):
    """A recommender over one catalogue: train it, embed items offline, score people in contexts.

    `store`: folder or URI of the item store; None keeps the same tables in memory.
    """

    def __init__(self, config: RecommenderConfig, *, store: str | Path | None = None) -> None:
        super().__init__(store)
        self.config = config
        self.epochs: list[Epoch] = []
        self.set_aside: dict[str, str] = {}
        self._trained: Trained | None = None
        self._choice: Choice | None = None
        self._writing = Lock()

    def fit(
        self,
        train_part: Catalogue,
        *,
        valid: Catalogue | None = None,
        training: TrainingConfig | None = None,
        refit: bool = False,
        on_error: Literal["raise", "quarantine"] = "raise",
    ) -> Recommender:
        """Train on a catalogue, then embed its items; self.

        `valid` chooses the number of epochs; what it tells is known afterwards: interactions, people, and items that
        come up there first, which are embedded as any that arrive later. `refit=True` then trains
        once more, from the start, on both for that many epochs. A catalogue without interactions trains the
        alignment of its modalities alone. `on_error="quarantine"` learns nothing from items that cannot be read, nor
        from what was done with them, and lists them in `set_aside`.

        Raises `ItemError` where media cannot be read, `ConfigError` where a tower finds no weights, `CatalogueError`
        where a tower's modality has no column, `LeakError` where a part of a split is not what it is passed as, shares
        interactions with the other, or was written too late (`leaks`).
        """
        training = TrainingConfig() if training is None else training
        check_catalogue(train_part, self.config)
        check_role(train_part, "train")
        check_written(train_part, train_part.interactions)
        if valid is not None:
            check_role(valid, "choose")
            check_disjoint({"train": train_part.interactions, "valid": valid.interactions})
            check_written(valid, train_part.interactions)
        cache = FeatureCache(training.cache_dir)
        self.set_aside = {}
        try:
            self._fit_once(train_part, valid, training, cache)
        except ItemError as error:
            if on_error == "raise" or not error.reasons:
                raise
            self.set_aside = error.reasons
            whole, train_part = train_part, less(train_part, error.reasons)
            valid = None if valid is None else less(valid, error.reasons)
            self._fit_once(train_part, valid, training, cache)
            # Nothing was learned from it, and yet it is known who took what.
            self._note_fitted(whole.interactions)
        if refit and valid is not None:
            both = together(train_part, valid)
            values = [epoch.valid for epoch in self.epochs if epoch.valid is not None]
            best = int(np.argmax(values)) + 1 if values else len(self.epochs)
            # In a folder of its own: the checkpoint of the first fit is no beginning for the second.
            folder = None if training.checkpoint_dir is None else str(Path(training.checkpoint_dir) / "refit")
            self._fit_once(both, None, replace(training, epochs=best, checkpoint_dir=folder), cache, self._choice)
        elif valid is not None:
            self._take_in(valid, set(train_part.item_ids), on_error=on_error)
        self._scorer = None
        return self

    def embed(
        self,
        items: Items,
        *,
        on_error: Literal["raise", "quarantine"] = "raise",
        retry_failed: bool = False,
        num_workers: int | None = None,
        progress: bool = False,
        engine: Engine = "local",
    ) -> EmbedReport:
        """Bring the store up to date with these items; only what is new or changed runs through a tower.

        `items`: a frame as `Catalogue.items` holds it (media columns are lists of absolute paths), several of them one
        after another, or the path of a catalogue's folder or of a parquet or CSV file of items; files are streamed and
        never held whole. `retry_failed`: try again what failed and did not change. `num_workers`: processes that
        decode media, by default as in training. `progress`: a bar with items a second and the time left. `engine`: this
        process, or workers of Ray (`RayEngine`), which fill the same store with the same rows. Raises `ItemError` for
        items that cannot be embedded and rows that are no items, after all others were written;
        `on_error="quarantine"` reports them instead.
        """
        trained, workers = self._fitted(), ray_engine(engine)
        job = trained.job if num_workers is None else replace(trained.job, num_workers=num_workers)
        with self._writing:
            if workers is None:
                report = job.run(items, trained.store, retry_failed=retry_failed, progress=progress)
            else:
                report = workers.embed(items, trained, store=self._store_uri, retry_failed=retry_failed)
            self._scorer = None
        if on_error == "raise":
            check_failures(report)
        return report

    def stale(self) -> list[str]:
        """The ids, sorted, that other models embedded in this store and this one did not; they are never scored."""
        return self.store.stale(self._fitted().job.fingerprint)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove items from the store; who took them stays known. What was published keeps them until withdrawn."""
        self.store.delete_items(ids)
        self._scorer = None

    def publish(self, name: str, *, alias: str | None = None, partial: bool = False) -> str:
        """Keep the store's present state, with this model's items, as a release to `load`; its name.

        `alias`: a name such as 'live' that stands for it from the same moment. Raises `StoreError` where the name is
        taken, or items of other models are not embedded by this one; `partial=True` publishes without those.
        """
        model = self._fitted().job.fingerprint
        check_complete(self.store, model=model, partial=partial)
        return self.store.publish(name, model=model, alias=alias)

    def evaluate(
        self,
        test: Catalogue,
        *,
        candidates: Collection[str] | None = None,
        score: Literal["ranking", "retrieval"] = "ranking",
        without: Sequence[str] = (),
        protocol: Protocol = "full",
    ) -> Evaluation:
        """How well what people took in `test` is ranked, given everything fitted or validated on.

        Items of `test` that are not embedded yet are embedded first; one that cannot be stays a candidate that is
        never found (`store.failures()` says why). A query is a person in a context; disliked items are no positives.
        `candidates` ranks only these items; `without` hides parts of items ('image', 'behaviour', ...) or the
        'context' at scoring. `protocol="mmrec"`: only what was trained on is known, so that validation positives are
        ranked and speak for nobody. Raises `LeakError` where a test interaction was fitted or validated on, where the
        log is not older than a test part of a split by time, or where that part's items or people were written too
        late.
        """
        trained = self._fitted()
        known = known_before(trained, test, protocol)
        late = test.items.loc[~test.items["item_id"].isin(self._ready().ids)]
        if len(late):
            self.embed(late, on_error="quarantine")
        whole = protocol == "full" and (test.part is None or test.part.given is None)
        return judge(
            self._ready() if whole else trained.scorer(known),
            test,
            known=known,
            vocabulary=trained.vocabulary,
            candidates=candidates,
            retrieval=score == "retrieval",
            without=without,
        )

    def update(
        self, interactions: pd.DataFrame, *, users: pd.DataFrame | None = None, fine_tune: FineTune | None = None
    ) -> UpdateReport:
        """Learn from what people did since: histories, statistics and the people's side, without any tower.

        `interactions` as in a catalogue, of known or new people and items; what is stored already is passed over.
        `users`: attributes and profiles that are new or have changed. `fine_tune` trains shortly besides. An index is
        not built anew; the report says where one should be. Whoever asks
        meanwhile is answered from the old state; a call that was cut off is made good by the next. `updating.update`
        has the details, and what it raises.
        """
        with self._writing:
            self._ready()  # What is loaded here answers until all tables are written.
            index = index_at(index_path(self._store_uri, self._fitted().job.fingerprint))
            self._trained, self._scorer, report = update(self._fitted(), interactions, users=users, fine_tune=fine_tune)
        changed = report.items > 0 or report.fine_tune is not None
        return replace(report, index_outdated=changed and index is not None and index.exists)

    def quantised(self) -> Recommender:
        """A recommender over the same store whose towers' linear layers have int8 weights; this one stays as it is.

        It is another model: `embed` its items before it is asked. Raises `ConfigError` where nothing can be quantised.
        """
        recommender = Recommender(self.config, store=self._store_uri)
        recommender._trained = quantised(self._fitted())
        return recommender

    def save(self, path: str | Path) -> Path:
        """Write configuration, vocabulary and weights to a folder: JSON and safetensors, and the log in a store."""
        self._fitted().write(Path(path), with_store=self._store_uri is None)
        return Path(path)

    @classmethod
    def load(
        cls, path: str | Path, *, store: str | Path | None = None, device: str = "auto", release: str | None = None
    ) -> Recommender:
        """The recommender that `save` wrote. No weight file but its own is read, and no code runs from it.

        `store`: where its items are or shall be; None takes what was in memory when it was saved, in memory again.
        `release`: serve the store as it was when this name was published, whatever is written to it since. Raises
        `NotFittedError` where the folder holds no saved recommender, `StoreError` where there is no such release or it
        holds another model's items.
        """
        trained = Trained.read(Path(path), store=store, device=device, release=release)
        recommender = cls(trained.config, store=store)
        recommender._trained = trained
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
        self,
        part: Catalogue,
        valid: Catalogue | None,
        training: TrainingConfig,
        cache: FeatureCache,
        choice: Choice | None = None,
    ) -> None:
        fitted = fit_model(self.config, part, valid, training=training, cache=cache, choice=choice)
        self.epochs, self._choice, self._scorer = fitted.epochs, fitted.choice, None
        layout, earlier = store_layout(fitted.model), self._trained
        store = ItemStore.open(self._store_uri, layout) if earlier is None else earlier.store
        store.layout = layout
        self._trained = Trained(
            self.config,
            fitted.model,
            fitted.vocabulary,
            part.schema,
            behaviour=fitted.behaviour,
            scale=fitted.scale,
            store=store,
            cache=cache,
            num_workers=training.num_workers,
        )
        self._note_fitted(part.interactions)
        if part.users is not None:
            store.write_users(part.users)
        job = replace(self._trained.job, prepared=fitted.prepared)
        report = job.run(part.items, store)
        if earlier is not None and earlier.job.fingerprint != job.fingerprint:
            store.retire(earlier.job.fingerprint)
        check_failures(report)

    def _take_in(self, valid: Catalogue, known: Collection[str], *, on_error: str) -> None:
        trained = self._fitted()
        trained.store.append_interactions(with_given(valid))
        if valid.users is not None:
            trained.store.write_users(valid.users)
        report = trained.job.run(valid.items.loc[~valid.items["item_id"].isin(list(known))], trained.store)
        if on_error == "raise":
            check_failures(report)
        self.set_aside = {**self.set_aside, **report.failed}

    def _note_fitted(self, log: pd.DataFrame) -> None:
        self._fitted().store.append_interactions(log)
        count = self.store.num_interactions
        self._trained = replace(self._fitted(), num_fitted=count, num_folded=count)

    def _fitted(self) -> Trained:
        if self._trained is None:
            raise NotFittedError("this recommender is not trained. Call fit(...) first, or Recommender.load(path).")
        return self._trained
