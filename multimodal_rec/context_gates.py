"""How context turns each part of taste, from pairs of events of the same person, before anything is trained."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fusion.parts import zero_absent
from multimodal_rec.history import Histories, HistoryBatch

_MOST_PEOPLE = 4_096
"""Whose pairs of events gates are read from."""
_ROUNDS = 30
_SMALLEST = 1e-8
_PRIOR_PAIRS = 1_000.0
"""Pairs of events that say of every context that it changes nothing: what a few pairs say by chance stays small."""


class Gates(NamedTuple):
    """One gate a part, g_p(c) = bias_p + ⟨weight_p, c⟩, of mean square 1 over the events that it is read from."""

    weight: Tensor
    """(part, context width)."""
    bias: Tensor
    """(part,)."""


def histories_to_read(histories: Histories, users: np.ndarray) -> HistoryBatch:
    """The latest events of these people, int64 (user,), or of some thousands spread evenly among more."""
    some = users[:: -(-len(users) // _MOST_PEOPLE)]
    return histories.collate([histories.latest(int(user)) for user in some])


def context_gates(histories: HistoryBatch, tokens: Tensor, present: Tensor) -> Gates:
    """Gates that explain how alike the items are that one person takes in two contexts.

    Where taste is drawn around 0 and context scales it by g_p(c), two items i and j that a person took in contexts c
    and c' are alike in part p, beyond what any two items are, by

        E ⟨x_i − μ, x_j − μ⟩  ∝  g_p(c) · g_p(c')

    so the gate is the rank-one fit of what is alike over all pairs of a person's events, by least squares, one factor
    at a time. It needs no training, and there are many pairs, where gradients, in which gates and tokens wait for each
    other to mean something, found gates noisily (docs/decisions/0016).

    `histories`: a row a person, with the contexts of their events; `tokens`: (item, part, dim), `present`: (item,
    part). A part that nobody took twice, and every part where all contexts are 0, keeps a gate of 1.
    """
    there = histories.present
    num_events = there.shape[1]
    width = histories.context.shape[-1]
    moments = torch.cat([torch.ones_like(histories.context[..., :1]), histories.context], dim=-1)
    moments = moments * there.unsqueeze(-1)
    weights, biases = [], []
    off_diagonal = ~torch.eye(num_events, dtype=torch.bool, device=tokens.device)
    plain = torch.zeros(width + 1, device=tokens.device)
    plain[0] = 1.0
    # A second start, since a part that turns over has nothing to say on average: at (1, 0) the fit may stand still.
    starts = [plain, *_directions(moments, there)] if bool(histories.context.any()) else []
    for part in range(tokens.shape[1]):
        has = present[histories.item_index, part] & there
        taken = zero_absent(tokens[:, part], present[:, part])[histories.item_index]
        mean = (taken * has.unsqueeze(-1)).sum(dim=(0, 1)) / has.sum().clamp(min=1)
        taken = (taken - mean) * has.unsqueeze(-1)
        alike = (taken @ taken.mT) / taken.square().sum(dim=-1)[has].mean().clamp(min=1e-12)
        pairs = has.unsqueeze(2) & has.unsqueeze(1) & off_diagonal
        if not starts or not bool(pairs.any()):
            weights.append(plain[1:])
            biases.append(plain[0])
            continue
        alike = alike * pairs
        fits = [_rank_one(start, moments, alike, pairs.to(alike.dtype)) for start in starts]
        gate = max(fits, key=lambda fit: fit[1])[0]
        size = (moments @ gate)[has].square().mean().sqrt()
        gate = gate / size if bool(size > 1e-6) else plain
        # Of g and -g, which say the same, the one that is above 0 where nothing is known, or nearly so.
        gate = -gate if bool(gate[0] < 0) else gate
        weights.append(gate[1:])
        biases.append(gate[0])
    return Gates(torch.stack(weights), torch.stack(biases))


def _directions(moments: Tensor, there: Tensor) -> list[Tensor]:
    """Directions of the contexts in which they differ most, to start from."""
    rows = moments[there]
    centred = rows - rows.mean(dim=0)
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
    return list(vectors.T[-4:])


def _rank_one(start: Tensor, moments: Tensor, alike: Tensor, pairs: Tensor) -> tuple[Tensor, float]:
    """The factor v of alike ≈ ⟨φ_i, v⟩ ⟨φ_j, v⟩ over pairs, found from a start, and how much it explains."""
    gate = start
    prior = torch.full_like(start, _PRIOR_PAIRS).diag()
    prior[0, 0] = 0.0
    for _ in range(_ROUNDS):
        values = moments @ gate
        other = torch.einsum("uij,uj->ui", pairs, values.square())
        left = torch.einsum("uia,ui,uib->ab", moments, other, moments)
        right = torch.einsum("uia,uij,uj->a", moments, alike, values)
        size = values.square().sum() / pairs.any(dim=2).sum().clamp(min=1)
        if bool(size < _SMALLEST):
            # Nothing of the start is left: where what one person takes is less alike than chance, no gate explains it.
            break
        # Halfway, since whole steps may swing between two scales for ever.
        found = torch.linalg.solve(
            left + prior * size + 1e-6 * left.diagonal().mean() * torch.eye(len(gate), device=gate.device), right
        )
        gate = (gate + found) / 2
    values = moments @ gate
    fitted = values.unsqueeze(2) * values.unsqueeze(1) * pairs
    return gate, float((2 * alike * fitted - fitted.square()).sum())
