"""Objectives as pure functions: scores and embeddings in, one number out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def softmax_over_items(scores: Tensor, targets: Tensor, *, excluded: Tensor, log_share: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of the taken items among the candidates, also known as sampled or full softmax.

    `scores`: (event, candidate), already divided by the temperature; `targets`: int64 (event,), the column of each
    event's item; `excluded`: bool (event, candidate), True where a candidate is no negative for this event, such as
    something else the person took (the target itself is never excluded). `log_share`: (candidate,), log of the chance
    with which a candidate came into the batch; subtracted so that popular ones are not punished for coming often
    (Yi et al. 2019, "Sampling-bias-corrected neural modeling").
    """
    if log_share is not None:
        scores = scores - log_share
    excluded = excluded.scatter(1, targets.unsqueeze(1), value=False)
    return F.cross_entropy(scores.masked_fill(excluded, -torch.inf), targets)


def alignment(embeddings: list[Tensor], present: list[Tensor], *, temperature: float = 0.1) -> Tensor:
    """Mean contrastive loss over pairs of modalities, also known as InfoNCE or CLIP's loss (arXiv:2103.00020).

    `embeddings`: one (item, dim) a modality, row i of each the same item; `present`: one bool (item,) a modality.
    Each pair counts the items that have both, in both directions. 0 where no pair shares two items.
    """
    losses: list[Tensor] = []
    unit = [F.normalize(embedding, dim=-1) for embedding in embeddings]
    for first in range(len(unit)):
        for second in range(first + 1, len(unit)):
            both = present[first] & present[second]
            if int(both.sum()) < 2:
                continue
            logits = unit[first][both] @ unit[second][both].T / temperature
            labels = torch.arange(len(logits), device=logits.device)
            losses += [F.cross_entropy(logits, labels), F.cross_entropy(logits.T, labels)]
    if not losses:
        return embeddings[0].sum() * 0 if embeddings else torch.zeros(())
    return torch.stack(losses).mean()


def liked_or_not(scores: Tensor, liked: Tensor) -> Tensor:
    """Binary cross-entropy of likes (True) against dislikes: `scores` are logits (event,), `liked` bool (event,)."""
    return F.binary_cross_entropy_with_logits(scores, liked.to(scores.dtype))
