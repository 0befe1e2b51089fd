"""Stored items with other behaviour: what changes of their rows, and what stays as it lies there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from multimodal_rec.model import RecommenderModel
from multimodal_rec.rows import ItemRows, ItemTable, ModalityRows


@torch.inference_mode()
def with_behaviour(
    model: RecommenderModel, table: ItemTable, ids: Sequence[str], behaviour: Mapping[str, np.ndarray]
) -> ItemTable:
    """These items of the table, in this order, as `model` makes them: fused again from the tokens that are there.

    `behaviour`: item id → behaviour features and vectors, float32 (width,); an item that is not in it keeps what it
    has. No tower runs. Numbers are rounded as the store keeps them.
    """
    device = model.log_temperature.device
    rows = [table.position[item_id] for item_id in ids]
    tokens, present, vectors, content = (a[rows] for a in (table.tokens, table.present, table.vectors, table.content))
    places = [place for place, item_id in enumerate(ids) if item_id in behaviour]
    if places:
        features = torch.from_numpy(np.stack([behaviour[ids[place]] for place in places])).to(device)
        numbers = rounded(model.behaviour_numbers(features).float().cpu().numpy())
        dim = tokens.shape[2]
        tokens[places, -1], vectors[places], present[places, -1] = numbers[:, :dim], numbers[:, dim:], True
    return ItemTable(
        ids=list(ids),
        tokens=tokens,
        present=present,
        embeddings=rounded(fused(model, tokens, present, content=content[:, :-1], vectors=vectors)),
        attributes=[table.attributes[row] for row in rows],
        content=content,
        vectors=vectors,
    )


def rows_to_write(model: RecommenderModel, table: ItemTable, marks: Mapping[str, Mapping[str, str | None]]) -> ItemRows:
    """The items of a table as the store takes them, to be the rows of `model`.

    `marks`: as `ItemStore.read_marks` gives them; what an item was embedded from stays as it is.
    """
    part = {
        name: np.concatenate([table.tokens[:, index], table.content[:, index]], axis=1)
        for index, name in enumerate(model.parts[:-1])
    }
    return ItemRows(
        ids=table.ids,
        modalities={
            name: ModalityRows(
                part[name],
                table.present[:, index],
                [marks[item_id][f"{name}_hash"] for item_id in table.ids],
                model.modality_fingerprint(name),
            )
            for index, name in enumerate(model.towers)
        },
        attribute_tokens=part["attributes"],
        attributes_present=table.present[:, -2],
        behaviour_tokens=np.concatenate([table.tokens[:, -1], table.vectors], axis=1),
        behaviour_present=table.present[:, -1],
        embeddings=table.embeddings,
        model=model.item_fingerprint(),
        attributes=table.attributes,
    )


@torch.inference_mode()
def fused(
    model: RecommenderModel, tokens: np.ndarray, present: np.ndarray, *, content: np.ndarray, vectors: np.ndarray
) -> np.ndarray:
    """Item embeddings, float32 (item, width), of numbers as the store keeps them.

    `tokens`: (item, part, dim); `present`: bool (item, part); `content`: (item, part but behaviour, rank) and
    `vectors`: (item, width), what an item is to the collaborative scores.
    """
    device = model.log_temperature.device
    shown, said, learned = (torch.from_numpy(array).to(device) for array in (present, content, vectors))
    made = model.embeddings(torch.from_numpy(tokens).to(device), shown, model.item_vectors(said, shown, learned))
    return made.float().cpu().numpy()


def rounded(numbers: np.ndarray) -> np.ndarray:
    """The numbers as they come back from the store, float32: item embeddings are made of these."""
    return numbers.astype(np.float16).astype(np.float32)
