"""A short training on what is new, and on some of what is old, from the weights that are there."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from multimodal_rec.behaviour import BehaviourScale, ItemBehaviour, item_behaviour, turn_onto
from multimodal_rec.collaborative.score import ContentBlock, Log
from multimodal_rec.config import RecommenderConfig, TrainingConfig
from multimodal_rec.content import ItemContent
from multimodal_rec.errors import ConfigError
from multimodal_rec.evaluation import evaluate_ranking
from multimodal_rec.features import ContentFeatures
from multimodal_rec.history import Events, Histories
from multimodal_rec.model import ItemFeatures, ModalityFeatures, RecommenderModel
from multimodal_rec.people import People, person_features
from multimodal_rec.placing import place, scored_items
from multimodal_rec.profiles import ProfileReader
from multimodal_rec.refitting import Pace, refitted
from multimodal_rec.refreshing import rows_to_write, with_behaviour
from multimodal_rec.rows import ItemTable
from multimodal_rec.scorer import Scorer
from multimodal_rec.splits import interaction_order
from multimodal_rec.steps import TrainingData
from multimodal_rec.trained import Trained
from multimodal_rec.training import train


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """How a trained recommender learns on."""

    epochs: int = 2
    """Passes over what is told."""
    learning_rate: float = 1e-3
    """Peak, of all that is learned here; a tenth of what `fit` takes by itself."""
    replay: float = 0.5
    """Share of what is told that is old, drawn anew by chance: below 1, and 0 tells only what is new."""
    held_back: int = 200
    """Old interactions, one a person, that are told to nobody, to see what is forgotten of the old; 0 measures none."""
    collaborative: bool = True
    """Train the sequence score on and solve for the item-item weights again; how much each counts stays as it is."""
    batch_size: int = 256
    """Interactions a step."""
    seed: int = 0
    """Of what is replayed and held back, and of dropout."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or not self.learning_rate > 0:
            raise ConfigError(
                f"FineTune has epochs {self.epochs}, batch_size {self.batch_size} and learning_rate "
                f"{self.learning_rate}. Expected at least 1, at least 1, and a rate above 0."
            )
        if not 0 <= self.replay < 1 or self.held_back < 0:
            raise ConfigError(
                f"FineTune has replay {self.replay} and held_back {self.held_back}. Expected a share from 0 to below "
                "1, and at least 0."
            )


@dataclass(frozen=True)
class FineTuneReport:
    """What a fine-tune told, and what it did to the old."""

    new_events: int
    """Interactions since training that were told."""
    replayed: int
    """Older ones that were told again."""
    held_back: int
    """Older ones that were asked for, before and after."""
    ndcg_before: float | None
    """Mean NDCG@10 over the people held back, of the model as it was; None where nobody was. That model learned from
    these interactions: what it has by heart of them counts as forgotten, too."""
    ndcg_after: float | None
    """The same, of the model as it is."""
    former: str
    """Fingerprint of the model as it was, whose rows stay beside the new ones until `store.retire(former)`."""

    def __str__(self) -> str:
        told = f"told {self.new_events} new interactions and {self.replayed} old ones"
        if self.ndcg_before is None or self.ndcg_after is None:
            return told
        held_back = f"NDCG@10 of {self.held_back} old ones held back {self.ndcg_before:.4f} before"
        return f"{told}; {held_back}, {self.ndcg_after:.4f} after"


class _Told(NamedTuple):
    log: pd.DataFrame
    """Interactions with stored items in order of time, as `events` has them."""
    events: Events
    weights: np.ndarray
    is_told: np.ndarray
    """Bool (event,)."""
    is_new: np.ndarray
    held_back: np.ndarray
    """Bool (event,)."""


def fine_tuned(trained: Trained, log: pd.DataFrame, how: FineTune) -> tuple[Trained, FineTuneReport]:
    """The recommender after a short training on the whole log, its items' rows in the store, and what it did.

    `log`: as the store keeps it, all of it folded in. Learned are the person's query, what behaviour says, how parts
    are weighed, and the collaborative scores but for the graph's; towers, attributes and the space of search stay, so
    that items are read as they are stored. Statistics are computed anew from the whole log, turned onto the axes that
    the model knows. Nothing of `trained` changes, nor its rows; the new ones are written once all is computed, in one
    commit.
    """
    store, table = trained.store, trained.store.read_items(model=trained.job.fingerprint)
    told = _chosen(trained, log, table, how)
    behaviour = _behaviour(trained, told, table, seed=how.seed)
    data = _data(trained, told, behaviour, table)
    # Towers stay with the model that goes on answering: training would switch them to its mode.
    memo = {id(module): nn.ModuleDict() for module in (trained.model.towers, trained.model.aligners)}
    model: RecommenderModel = copy.deepcopy(trained.model, memo)
    model.blend = None
    if told.is_told.any():
        _train(model, data, trained.config, how)
    model.towers, model.aligners = trained.model.towers, trained.model.aligners
    model.blend, vectors = trained.model.blend, table.vectors
    if how.collaborative and model.blend is not None:
        log_now = _log(trained, told, data, table)
        pace = Pace(how.epochs, how.learning_rate / TrainingConfig.learning_rate, how.seed)
        model.blend, vectors = refitted(model.blend, log_now, vectors, settings=trained.config.collaborative, pace=pace)
    features = np.concatenate([behaviour.features, vectors], axis=1)
    taken = behaviour.present
    learned = {item_id: features[row] for row, item_id in enumerate(table.ids) if taken[row]}
    fused = with_behaviour(model.eval(), table, table.ids, learned)
    if model.blend is not None and model.blend.placement.learned:
        model.blend = copy.deepcopy(model.blend)
        place(model, scored_items(fused, model.log_temperature.device))
    before = _remembered(trained, told, table)
    tuned = replace(
        trained,
        model=model,
        behaviour=learned,
        scale=behaviour.scale,
        num_fitted=len(log),
        num_folded=len(log),
        updated={},
    )
    after = _remembered(tuned, told, fused)
    marks = store.read_marks(fused.ids, model=trained.job.fingerprint)
    store.write_items(rows_to_write(model, fused, marks))
    counts = (int((told.is_told & told.is_new).sum()), int((told.is_told & ~told.is_new).sum()))
    return tuned, FineTuneReport(*counts, int(told.held_back.sum()), before, after, trained.job.fingerprint)


def _chosen(trained: Trained, log: pd.DataFrame, table: ItemTable, how: FineTune) -> _Told:
    arrived = np.arange(len(log))
    known = log["item_id"].isin(table.ids).to_numpy()
    log, arrived = log.loc[known], arrived[known]
    order = interaction_order(log)
    if order is not None:
        log, arrived = log.iloc[order], arrived[order]
    users = {user_id: row for row, user_id in enumerate(dict.fromkeys(log["user_id"]))}
    events, weights = trained.vocabulary.encode_events(log, users, table.position)
    is_new = arrived >= trained.num_fitted
    random = np.random.default_rng(how.seed)
    held_back = np.zeros(len(log), dtype=bool)
    old = random.permutation(np.flatnonzero(~is_new & (weights > 0)))
    _, first = np.unique(events.user_index[old], return_index=True)
    held_back[random.permutation(old[first])[: how.held_back]] = True
    tellable = weights != 0
    is_told = is_new & tellable
    rest = np.flatnonzero(~is_new & tellable & ~held_back)
    count = round(int(is_told.sum()) * how.replay / (1 - how.replay))
    is_told[random.permutation(rest)[:count]] = True
    return _Told(log, events, weights, is_told, is_new, held_back)


def _behaviour(trained: Trained, told: _Told, table: ItemTable, *, seed: int) -> ItemBehaviour:
    """Features of the whole log, in the axes of those that the model learned from."""
    taken = told.weights > 0
    found = item_behaviour(
        told.events.user_index[taken],
        told.events.item_index[taken],
        num_users=int(told.events.user_index.max(initial=-1)) + 1,
        num_items=len(table.ids),
        rank=trained.config.behaviour_rank,
        num_folds=5,
        seed=seed,
    )
    width = found.features.shape[1]
    known = np.zeros((len(table.ids), width))
    for item_id, features in trained.behaviour.items():
        if item_id in table.position:
            known[table.position[item_id]] = features[:width]
    turn = turn_onto(found.features[:, :-1].astype(np.float64), known[:, :-1])
    whole = np.eye(width)
    whole[:-1, :-1] = turn
    # In units of training: what is younger than that keeps to its content, as in an update.
    takers = np.bincount(np.unique(np.stack([told.events.user_index, told.events.item_index])[:, taken], axis=1)[1])
    counts = np.zeros(len(table.ids))
    counts[: len(takers)] = takers
    popularity = (np.log1p(counts) - trained.scale.mean) / trained.scale.std
    old = np.array([item_id in trained.behaviour for item_id in table.ids], dtype=bool)
    shown = found.present & (old | (popularity >= trained.folding.least_popularity))
    return ItemBehaviour(
        (found.features @ whole * shown[:, None]).astype(np.float32),
        (found.folds @ whole * shown[:, None]).astype(np.float32),
        found.fold_of_user,
        shown,
        BehaviourScale(turn.T @ found.scale.to_people @ turn, found.scale.mean, found.scale.std),
    )


def _data(trained: Trained, told: _Told, behaviour: ItemBehaviour, table: ItemTable) -> TrainingData:
    """The stored items and the whole log as training reads them; only what is told has a weight."""
    store, vocabulary = trained.store, trained.vocabulary
    num_items, num_modalities = len(table.ids), len(trained.model.towers)
    nothing = torch.zeros(num_items, 1, 0)
    present = torch.from_numpy(table.present)
    modalities = {
        name: ModalityFeatures(nothing, present[:, [index]]) for index, name in enumerate(trained.model.towers)
    }
    users = store.read_users().set_index("user_id")
    ids = list(dict.fromkeys(told.log["user_id"]))
    reader = ProfileReader(trained.model.profile, trained.cache)
    own = users.reindex(ids).reset_index(drop=True)
    nobody = pd.DataFrame({"item_id": pd.Series(dtype=object)})
    return TrainingData(
        items=ItemFeatures(
            modalities,
            torch.zeros(num_items, trained.model.shape.attribute_width),
            present[:, num_modalities],
            torch.from_numpy(behaviour.features),
            torch.from_numpy(behaviour.present),
            torch.from_numpy(table.tokens[:, :-1]),
        ),
        content=ContentFeatures({}, ItemContent(nobody, trained.schema), cache=trained.cache),
        behaviour=behaviour,
        events=told.events,
        weights=np.where(told.is_told, told.weights, 0.0).astype(np.float32),
        histories=Histories(
            told.events,
            length=trained.config.history_length,
            ordered="timestamp" in told.log or "position" in told.log,
        ),
        people=person_features(own, vocabulary, reader),
        trained=(),
    )


def _log(trained: Trained, told: _Told, data: TrainingData, table: ItemTable) -> Log:
    content = {
        name: ContentBlock(table.content[:, index], table.present[:, index])
        for index, name in enumerate(trained.model.parts[:-1])
    }
    return Log(
        events=told.events,
        weights=told.weights,
        num_people=len(data.people),
        num_items=len(table.ids),
        ordered=data.histories.ordered,
        people=data.people.numpy(),
        content=content,
    )


def _train(model: RecommenderModel, data: TrainingData, config: RecommenderConfig, how: FineTune) -> None:
    # What aligns modalities is the space of search, which stays.
    told = replace(config, towers={}, alignment_weight=0.0)
    training = TrainingConfig(
        device=model.log_temperature.device.type,
        epochs=how.epochs,
        batch_size=how.batch_size,
        learning_rate=how.learning_rate,
        seed=how.seed,
        progress=False,
    )
    train(model, data, config=told, training=training)


def _remembered(trained: Trained, told: _Told, table: ItemTable) -> float | None:
    """Mean NDCG@10 of what is held back, from histories that do not hold it."""
    if not told.held_back.any():
        return None
    known = told.log.loc[~told.held_back]
    vocabulary = trained.vocabulary
    people = People(
        known,
        trained.store.read_users(),
        vocabulary=vocabulary,
        item_rows=table.position,
        length=trained.config.history_length,
        profiles=ProfileReader(trained.model.profile, trained.cache),
    )
    scorer = Scorer(trained.model, table, people)
    columns = [name for name in vocabulary.context.columns if name in told.log]

    def score_queries(queries: pd.DataFrame) -> np.ndarray:
        contexts = vocabulary.contexts(queries.loc[:, columns], num_rows=len(queries))
        return scorer.rank(queries["user_id"].tolist(), contexts)

    held_back = told.log.loc[told.held_back]
    taken_again = pd.MultiIndex.from_frame(known.loc[:, ["user_id", "item_id"]])
    asked = ~pd.MultiIndex.from_frame(held_back.loc[:, ["user_id", "item_id"]]).isin(taken_again)
    if not asked.any():
        return None
    evaluation = evaluate_ranking(
        score_queries,
        held_back.loc[asked],
        known=known,
        item_ids=table.ids,
        context_columns=columns,
    )
    return evaluation.means()["ndcg@10"]
