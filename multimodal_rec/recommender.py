"""The verbs: fit, embed, score, recommend, explain, evaluate, save, load."""

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
from multimodal_rec.context import Context
from multimodal_rec.embedding import EmbedReport, check_failures
from multimodal_rec.errors import ItemError, NotFittedError, UnknownIdError
from multimodal_rec.evaluation import Evaluation
from multimodal_rec.evaluation.leaks import check_disjoint, check_role, check_written
from multimodal_rec.evaluation.protocol import Protocol
from multimodal_rec.explanation import Explanation
from multimodal_rec.export import ExportReport, Numbers, export_embeddings
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.fine_tuning import FineTune
from multimodal_rec.fitting import check_catalogue, fit_model
from multimodal_rec.index import EXACT_UP_TO
from multimodal_rec.index_folder import index_path
from multimodal_rec.index_report import IndexReport
from multimodal_rec.item_stream import Items
from multimodal_rec.judging import judge, known_before
from multimodal_rec.parts import less, together, with_given
from multimodal_rec.people import OnUnknown, Person
from multimodal_rec.retrieval import Query, Recommendations, top_k
from multimodal_rec.scorer import Scorer
from multimodal_rec.shortlist import Shortlist
from multimodal_rec.staleness import check_complete, not_embedded
from multimodal_rec.store import ItemStore
from multimodal_rec.trained import Trained, store_layout
from multimodal_rec.training import Epoch
from multimodal_rec.updating import UpdateReport, update
from towers import Tower


class Recommender:
    """A recommender over one catalogue: train it, embed items offline, score people in contexts.

    `store`: folder or URI of the item store; None keeps the same tables in memory.
    """

    def __init__(self, config: RecommenderConfig, *, store: str | Path | None = None) -> None:
        self.config = config
        self.epochs: list[Epoch] = []
        self.set_aside: dict[str, str] = {}
        self._store_uri = store
        self._trained: Trained | None = None
        self._choice: Choice | None = None
        self._scorer: Scorer | None = None
        self._shortlist: Shortlist | None = None
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

        `valid` chooses the number of epochs; its interactions count as known afterwards. `refit=True` then trains
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
            self._fitted().store.append_interactions(with_given(valid))
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
    ) -> EmbedReport:
        """Bring the store up to date with these items; only what is new or changed runs through a tower.

        `items`: a frame as `Catalogue.items` holds it (media columns are lists of absolute paths), several of them one
        after another, or the path of a catalogue's folder or of a parquet or CSV file of items; files are streamed and
        never held whole. `retry_failed`: try again what failed and did not change. `num_workers`: processes that
        decode media, by default as in training. `progress`: a bar with items a second and the time left. Raises
        `ItemError` for items that cannot be embedded and rows that are no items, after all others were written;
        `on_error="quarantine"` reports them instead.
        """
        job = self._fitted().job
        job = job if num_workers is None else replace(job, num_workers=num_workers)
        with self._writing:
            report = job.run(items, self.store, retry_failed=retry_failed, progress=progress)
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
            raise not_embedded(missing, len(items), self.store, model=self._fitted().job.fingerprint)
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

        Every embedded item is scored exactly, or with `query.shortlist` as many as the index finds. `query` filters.
        Arguments and errors otherwise as in `score`; `StoreError` where a shortlist is asked and the index is stale.
        """
        scorer = self._ready()
        query = Query() if query is None else query
        answered = np.array(scorer.people.answered(people, on_unknown), dtype=bool)
        if query.shortlist is not None:
            contexts = self._contexts(context, len(people))
            return Recommendations(*self._searched().best(people, contexts, answered.tolist(), k=k, query=query))
        scores = np.full((len(people), len(scorer.ids)), -np.inf, dtype=np.float32)
        contexts = self._contexts(context, len(people))
        if answered.any():
            chosen = [person for person, is_answered in zip(people, answered, strict=True) if is_answered]
            scores[answered] = scorer.rank(chosen, contexts[answered])
        excluded = [scorer.people.seen(person) if query.exclude_seen else set() for person in people]
        best = top_k(scores, scorer.ids, k=k, excluded=excluded, allowed=query.allowed_mask(scorer.table))
        return Recommendations(best.ids, best.scores)

    def similar_items(self, items: Sequence[str], *, k: int = 10) -> Recommendations:
        """The k items whose item embeddings e(i) have the highest cosine with each item's, itself left out.

        Through the index where one was built of many items; else exact.
        """
        scorer = self._ready()
        rows: list[int] = []
        for item_id in items:
            if item_id not in scorer.item_rows:
                raise not_embedded([item_id], len(items), self.store, model=self._fitted().job.fingerprint)
            rows.append(scorer.item_rows[item_id])
        return Recommendations(*self._searched().similar(rows, k=k))

    def build_index(self, *, exact_up_to: int = EXACT_UP_TO) -> IndexReport:
        """Build the index of `Query(shortlist=...)` and `similar_items`, and keep it beside the store.

        Exact up to `exact_up_to` items, beyond that approximate, with its recall measured. Build it after each `embed`.
        """
        return self._searched().build(self._contexts(None, 1), exact_up_to=exact_up_to).report

    def export(
        self, path: str | Path, *, part: str = "item", numbers: Numbers = "float32", dims: int | None = None
    ) -> ExportReport:
        """Write embeddings with their ids for other software, .parquet or .npy; `export_embeddings` has the rest.

        `part`: 'item' for e(i), or one of the model's parts such as 'text'.
        """
        ids, embeddings = self._ready().table.part(part, self._fitted().model.parts)
        return export_embeddings(Path(path), ids, embeddings, numbers=numbers, dims=dims)

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
        same = len(known) == trained.store.num_interactions
        return judge(
            self._ready() if same else trained.scorer(known),
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
        """Learn from what people did since (`updating.update`), and of `users` new or changed; no tower runs.

        Whoever asks meanwhile is answered from the old state; a call that was cut off is made good by the next.
        """
        with self._writing:
            self._ready()  # What is loaded here answers until all tables are written.
            self._trained, self._scorer, report = update(self._fitted(), interactions, users=users, fine_tune=fine_tune)
        return report

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

    def _note_fitted(self, log: pd.DataFrame) -> None:
        self._fitted().store.append_interactions(log)
        count = self.store.num_interactions
        self._trained = replace(self._fitted(), num_fitted=count, num_folded=count)

    def _fitted(self) -> Trained:
        if self._trained is None:
            raise NotFittedError("this recommender is not trained. Call fit(...) first, or Recommender.load(path).")
        return self._trained

    def _contexts(self, context: Context, num_rows: int) -> np.ndarray:
        return self._fitted().vocabulary.contexts(context, num_rows=num_rows)

    def _ready(self) -> Scorer:
        trained = self._fitted()
        if self._scorer is None:
            self._scorer = trained.scorer(trained.store.read_interactions())
        return self._scorer

    def _searched(self) -> Shortlist:
        scorer = self._ready()
        if self._shortlist is None or self._shortlist.scorer is not scorer:
            model = self._fitted().job.fingerprint
            self._shortlist = Shortlist(scorer, index_path(self._store_uri, model), model=model)
        return self._shortlist
