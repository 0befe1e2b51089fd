"""Objectives as pure functions: scores and embeddings in, one number out.

Losses of events take `weights`, (event,): at least 0, how far each event is to be believed, for logs in which some of
what people did is noise; bool is as good as 1 and 0. The loss is then Σ w · loss / Σ w, so that weights of whole
numbers are the same as that many rows, and 0 (with gradients of 0) where every weight is. Without weights all events
weigh the same. They raise `ValueError` for weights that are not one an event. Scores in half precision are added up
in single precision.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ALIGNMENT_TEMPERATURE = 0.1
"""Divides cosines of aligned parts, here and where wishes are compared with them."""


def softmax_over_items(
    scores: Tensor,
    targets: Tensor,
    *,
    excluded: Tensor,
    log_share: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of the taken items among the candidates, also known as sampled or full softmax.

    `scores`: (event, candidate), already divided by the temperature; `targets`: int64 (event,), the column of each
    event's item; `excluded`: bool (event, candidate), True where a candidate is no negative for this event, such as
    something else the person took (the target itself is never excluded). `log_share`: (candidate,), log of the chance
    with which a candidate came into the batch; subtracted so that popular ones are not punished for coming often
    (Yi et al. 2019, "Sampling-bias-corrected neural modeling"). `weights`: (event,), see above.
    """
    if log_share is not None:
        scores = scores - log_share
    excluded = excluded.scatter(1, targets.unsqueeze(1), value=False)
    masked = _at_least_single(scores).masked_fill(excluded, -torch.inf)
    return _weighted_mean(F.cross_entropy(masked, targets, reduction="none"), weights)


def bpr(scores: Tensor, targets: Tensor, negatives: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Mean of −log σ(score taken − score not taken), Bayesian personalised ranking: the order alone counts.

    `scores`: (event, item); `targets`: int64 (event,), the column taken; `negatives`: int64 (event, n), n at least 1,
    columns not taken, as from `negatives.draw_negatives`; an event's loss is the mean over its n pairs. `weights`:
    (event,), see above. The paper's λ‖Θ‖² is the optimiser's weight decay. Raises `ValueError` without negatives.

    Source: Rendle et al. (arXiv:1205.2618).
    """
    taken, others = _taken_and_others(scores, targets, negatives)
    return _weighted_mean(F.softplus(others - taken).mean(dim=1), weights)


def bce(scores: Tensor, targets: Tensor, negatives: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy of taken (1) against sampled (0) items, also known as pointwise log loss.

    The taken item is one half of an event's loss and the mean over its sampled ones the other: however many are drawn,
    they weigh as much as the positive, more of them lower the variance and nothing else, and scores of 0 give log 2.
    The price: σ(score) is the chance of a click in a world where half of what is shown is taken, not in the log.

    `scores`: logits (event, item); `targets`, `negatives`, `weights` and what it raises: as in `bpr`.

    Source: He et al. (arXiv:1708.05031), there with every sampled item weighing as much as a taken one.
    """
    taken, others = _taken_and_others(scores, targets, negatives)
    return _weighted_mean((F.softplus(-taken).mean(dim=1) + F.softplus(others).mean(dim=1)) / 2, weights)


def liked_or_not(scores: Tensor, liked: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy of likes (True) against dislikes.

    `scores`: logits (event,); `liked`: bool (event,); `weights`: (event,), see above.
    """
    scores = _at_least_single(scores)
    losses = F.binary_cross_entropy_with_logits(scores, liked.to(scores.dtype), reduction="none")
    return _weighted_mean(losses, weights)


def rating_error(predictions: Tensor, ratings: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Mean squared error of predicted ratings, in squared units of the rating.

    `predictions`, `ratings`: float (event,), the same scale; `weights`: (event,), see above. Raises `ValueError`
    where the two differ in shape.
    """
    if predictions.shape != ratings.shape:
        raise ValueError(
            f"predictions are of shape {tuple(predictions.shape)} and ratings of {tuple(ratings.shape)}. Expected "
            "one of each an event; between unequal shapes every prediction would meet every rating."
        )
    return _weighted_mean((_at_least_single(predictions) - ratings).square(), weights)


def alignment(embeddings: list[Tensor], present: list[Tensor], *, temperature: float = ALIGNMENT_TEMPERATURE) -> Tensor:
    """Mean contrastive loss over pairs of modalities, also known as InfoNCE or CLIP's loss (arXiv:2103.00020).

    `embeddings`: one (item, dim) a modality, row i of each the same item; `present`: one bool (item,) a modality.
    Each pair counts the items that have both, in both directions. 0 where no pair shares two items. It reads items,
    not events, and so has no weights.
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


def _taken_and_others(scores: Tensor, targets: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    if negatives.ndim != 2 or len(negatives) != len(scores) or negatives.shape[1] == 0:
        raise ValueError(
            f"negatives are of shape {tuple(negatives.shape)} for scores of {tuple(scores.shape)}. Expected "
            f"({len(scores)}, n) columns with n at least 1; leave events without any out, or weigh them 0."
        )
    columns = torch.cat([targets.unsqueeze(1), negatives], dim=1)
    read = _at_least_single(scores.gather(1, columns))
    return read[:, :1], read[:, 1:]


def _weighted_mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return losses.mean()
    if weights.shape != losses.shape:
        raise ValueError(
            f"weights are of shape {tuple(weights.shape)}. Expected ({len(losses)},), one for each row of scores."
        )
    weights = weights.to(losses.dtype)
    total = weights.sum()
    # No inner product: autocast would take it in half precision.
    return (weights * losses).sum() / total.masked_fill(total == 0, 1)


def _at_least_single(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
