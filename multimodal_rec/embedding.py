"""The offline job: items in, rows of the store out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from multimodal_rec.config import MODALITIES
from multimodal_rec.content import ItemContent
from multimodal_rec.errors import ItemError
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.features import ContentFeatures, PreparedMemory
from multimodal_rec.model import ModalityFeatures, RecommenderModel
from multimodal_rec.rows import ItemRows, ModalityRows, check_unique, to_json
from multimodal_rec.schema import Schema
from multimodal_rec.store import ItemStore
from multimodal_rec.vocabulary import Vocabulary

_CHUNK = 1024


@dataclass(frozen=True)
class EmbedReport:
    """What an embedding run did."""

    embedded: int
    """Items that were written."""
    unchanged: int
    """Items whose content, attributes and model were those of their row."""
    failed: dict[str, str] = field(default_factory=dict)
    """Item id → why it could not be embedded; also in the store's `failures`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EmbeddingJob:
    """All that turning items into rows needs of a trained model."""

    model: RecommenderModel
    vocabulary: Vocabulary
    schema: Schema
    behaviour: Mapping[str, np.ndarray]
    """Item id → behaviour features and what the item is to the collaborative scores, for those that somebody took."""
    cache: FeatureCache
    num_workers: int = 0
    prepared: PreparedMemory | None = None
    """What training has made ready already, of the same items."""

    def run(self, items: pd.DataFrame, store: ItemStore) -> EmbedReport:
        """Embed what is new or changed among `items`, in chunks, each committed as it is done.

        A run that is killed loses the chunk it was at and is taken up by the next run. An item that cannot be
        embedded is left out and noted in the store's failures; the others of its chunk are written.
        """
        check_unique(items["item_id"].tolist())
        fingerprint = self.fingerprint
        current = store.read_items(model=fingerprint)
        attributes = dict(zip(current.ids, map(to_json, current.attributes), strict=True))
        stored = store.embedded(fingerprint).set_index("item_id")
        embedded, unchanged, failed = 0, 0, {}
        for start in range(0, len(items), _CHUNK):
            chunk = items.iloc[start : start + _CHUNK]
            content = self.model.content_of(chunk, self.schema)
            rows, hashes = self._changed(chunk, content, attributes, stored, failed)
            unchanged += len(chunk) - len(rows) - sum(1 for item_id in chunk["item_id"] if item_id in failed)
            if rows:
                embedded += self._embed(
                    chunk.iloc[rows], content, rows, hashes, store=store, stored=stored, failed=failed
                )
        if failed:
            store.record_failures(failed)
        return EmbedReport(embedded, unchanged, failed)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the model whose rows these are; its weights do not change while a job holds it."""
        return self.model.item_fingerprint()

    @cached_property
    def _tower_fingerprints(self) -> dict[str, str]:
        return {name: self.model.modality_fingerprint(name) for name in self.model.towers}

    def _changed(
        self,
        chunk: pd.DataFrame,
        content: ItemContent,
        attributes: Mapping[str, str],
        stored: pd.DataFrame,
        failed: dict[str, str],
    ) -> tuple[list[int], dict[str, list[str | None]]]:
        modalities = list(self.model.towers)
        rows: list[int] = []
        hashes: dict[str, list[str | None]] = {name: [] for name in modalities}
        own = self._attributes(chunk)
        for row, item_id in enumerate(chunk["item_id"]):
            try:
                found = {name: content.content_hash(row, name) for name in modalities}
            except OSError as error:
                failed[item_id] = str(error)
                continue
            if attributes.get(item_id) == to_json(own[row]) and all(
                (stored.at[item_id, f"{name}_hash"] or None) == found[name] for name in modalities
            ):
                continue
            rows.append(row)
            for name in modalities:
                hashes[name].append(found[name])
        return rows, hashes

    def _nothing(self, content: ItemContent, row: int) -> str:
        has = [name for name in MODALITIES if _holds(content, row, name)]
        read = ", ".join(f"'{name}'" for name in self.model.towers)
        held = ", ".join(f"'{name}'" for name in has) or "no modality at all"
        return (
            f"has none of this model's modalities ({read}), no known attribute, and nobody took it; it has {held}. "
            "Give it one of them, or leave it out."
        )

    def _embed(
        self,
        chunk: pd.DataFrame,
        content: ItemContent,
        rows: Sequence[int],
        hashes: Mapping[str, list[str | None]],
        *,
        store: ItemStore,
        stored: pd.DataFrame,
        failed: dict[str, str],
    ) -> int:
        model, layout = self.model, store.layout
        device = model.log_temperature.device
        ids = chunk["item_id"].tolist()
        reader = ContentFeatures(
            {name: model.tower(name) for name in model.towers},
            content,
            cache=self.cache,
            num_workers=self.num_workers,
            prepared=self.prepared,
        )
        numbers: list[np.ndarray] = []
        present: list[np.ndarray] = []
        model.eval()
        with torch.inference_mode():
            for name in model.towers:
                token, here = self._modality(name, ids, rows, hashes[name], reader=reader, store=store, stored=stored)
                numbers.append(token)
                present.append(here)
            attributes, known = self.vocabulary.item_attributes(chunk)
            numbers.append(model.attribute_numbers(torch.from_numpy(attributes).to(device)).cpu().numpy())
            behaviour, taken = self._behaviour(ids)
            numbers.append(model.behaviour_numbers(torch.from_numpy(behaviour).to(device)).cpu().numpy())
            present += [known, taken]
            all_present = np.stack(present, axis=1)
            good = [i for i, row in enumerate(rows) if row not in reader.reasons and all_present[i].any()]
            for i, row in enumerate(rows):
                if row in reader.reasons:
                    failed[ids[i]] = reader.reasons[row]
                elif not all_present[i].any():
                    failed[ids[i]] = self._nothing(content, row)
            if not good:
                return 0
            # What is scored later are the stored, rounded numbers: the item embedding is made of the same.
            kept = [torch.from_numpy(part[good].astype(np.float16).astype(np.float32)).to(device) for part in numbers]
            shown = torch.from_numpy(all_present[good]).to(device)
            dim = layout.embedding_dim
            said = torch.stack([part[:, dim:] for part in kept[:-1]], dim=1)
            tokens = torch.stack([part[:, :dim] for part in kept], dim=1)
            embeddings = model.embeddings(tokens, shown, model.item_vectors(said, shown, kept[-1][:, dim:]))
        modalities = {
            name: ModalityRows(
                numbers[index][good],
                all_present[good, index],
                [hashes[name][i] for i in good],
                self._tower_fingerprints[name],
            )
            for index, name in enumerate(model.towers)
        }
        own = self._attributes(chunk)
        store.write_items(
            ItemRows(
                ids=[ids[i] for i in good],
                modalities=modalities,
                attribute_tokens=numbers[-2][good],
                attributes_present=all_present[good, -2],
                behaviour_tokens=numbers[-1][good],
                behaviour_present=all_present[good, -1],
                embeddings=embeddings.cpu().numpy(),
                model=self.fingerprint,
                attributes=[own[i] for i in good],
            )
        )
        return len(good)

    def _modality(
        self,
        name: str,
        ids: Sequence[str],
        rows: Sequence[int],
        hashes: Sequence[str | None],
        *,
        reader: ContentFeatures,
        store: ItemStore,
        stored: pd.DataFrame,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and presence of one modality; only items whose content or tower changed run through the tower."""
        tower = self._tower_fingerprints[name]
        same = [
            item_id in stored.index
            and stored.at[item_id, f"{name}_tower"] == tower
            and stored.at[item_id, f"{name}_hash"] == content_hash
            for item_id, content_hash in zip(ids, hashes, strict=True)
        ]
        numbers = np.zeros((len(ids), store.layout.width_of(name)), dtype=np.float32)
        present = np.zeros(len(ids), dtype=bool)
        old = [index for index, is_same in enumerate(same) if is_same]
        if old:
            numbers[old], present[old] = store.read_modality(
                name, [ids[index] for index in old], model=self.fingerprint
            )
        new = [index for index, is_same in enumerate(same) if not is_same]
        if new:
            device = self.model.log_temperature.device
            windows, there = reader.features([rows[index] for index in new], name)
            row, here = self.model.modality_numbers(name, ModalityFeatures(windows.to(device), there.to(device)))
            numbers[new], present[new] = row.cpu().numpy(), here.cpu().numpy()
        return numbers, present

    def _behaviour(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        features = np.zeros((len(ids), self.model.shape.behaviour_width + self.model.vector_width), dtype=np.float32)
        taken = np.array([item_id in self.behaviour for item_id in ids], dtype=bool)
        for index, item_id in enumerate(ids):
            if taken[index]:
                features[index] = self.behaviour[item_id]
        return features, taken

    def _attributes(self, chunk: pd.DataFrame) -> list[dict[str, object]]:
        names = [name for name in self.schema.attributes if name in chunk]
        return [{str(name): value for name, value in row.items()} for row in chunk.loc[:, names].to_dict("records")]


def _holds(content: ItemContent, row: int, modality: str) -> bool:
    try:
        return content.content_hash(row, modality) is not None
    except OSError:
        # Named by a column, and no file: there is something, if nothing that anybody could read.
        return True


def check_failures(report: EmbedReport) -> None:
    """Raise `ItemError` with every item of the report that could not be embedded; the others stay written."""
    if report.failed:
        raise ItemError(
            f"{len(report.failed)} items could not be embedded; the other {report.embedded + report.unchanged} are in "
            "the store. Expected media that can be read and one of the model's modalities each. Mend them, or pass "
            "on_error='quarantine' to go on without them.",
            report.failed,
        )
