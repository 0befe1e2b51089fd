"""What a blend's placement of new items among known ones reads of a catalogue."""

from __future__ import annotations

import torch

from multimodal_rec.model import RecommenderModel, ScoredItems
from multimodal_rec.rows import ItemTable


def scored_items(table: ItemTable, device: torch.device) -> ScoredItems:
    """What scores read of stored items."""
    arrays = (table.tokens, table.present, table.content, table.vectors, table.embeddings)
    return ScoredItems(*(torch.from_numpy(array).to(device) for array in arrays))


@torch.inference_mode()
def place(model: RecommenderModel, items: ScoredItems) -> None:
    """None; tells the model's placement how its scores of these items lie, under the blend's weights as they are.

    Known are those that somebody took, with behaviour. The same items without it stand for new ones, so that nothing
    depends on which new items there are, or whether there are any; those that are nothing but behaviour stay out.
    """
    if model.blend is None:
        return
    tokens, present, content, learned, _ = items
    taken = present[:, -1]
    shown = present.clone()
    shown[:, -1] = False
    some = taken & shown.any(dim=1)
    if not some.any():
        return
    new, known = (
        model.embeddings(tokens[rows], here[rows], model.item_vectors(content[rows, :-1], here[rows], learned[rows]))
        for rows, here in ((some, shown), (taken, present))
    )
    model.blend.placement.learn(new[:, :-1], known[:, :-1])
