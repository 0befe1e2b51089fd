"""Which items stand for all those that a person did not take."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from multimodal_rec.errors import ConfigError


class Negatives(NamedTuple):
    """Sampled negatives of some events."""

    columns: Tensor
    """Int64 (event, num): columns of the scores; the event's own target where it has no negative."""
    present: Tensor
    """Bool (event,): False where an event has no negative. As a loss's `weights` it leaves such events out."""


@torch.no_grad()
def draw_negatives(
    scores: Tensor,
    num: int,
    *,
    targets: Tensor,
    excluded: Tensor,
    hard_share: float = 0.0,
    pool_factor: int = 10,
    generator: torch.Generator | None = None,
) -> Negatives:
    """`num` negatives an event, never its target or an excluded item.

    The share 1 − `hard_share` is drawn uniformly. The rest (rounded) is the best scored of a pool `pool_factor` times
    as large, drawn uniformly too: what the model ranks high by mistake teaches most, while the best scored of all are
    often what the person would have taken, had they seen it. The order is easy before hard.

    `scores`: (event, item), read for the hard ones alone; `targets`: int64 (event,); `excluded`: bool (event, item),
    True where an item is no negative, such as something else the person took; `generator`: of the scores' device.
    All that an event draws is without replacement: it gets an item twice only where it has fewer candidates than its
    uniform ones and its pool take together, and with fewer than `num` it must. One without any is told by `present`.
    No event's draw depends on the candidates of another.

    Time goes with event · num · `pool_factor` and not with the number of items, but for events with few candidates.
    Raises `ConfigError` for `num` or `pool_factor` below 1 and for a `hard_share` outside of [0, 1].

    Source: dynamic negative sampling (Zhang et al., SIGIR 2013).
    """
    if num < 1 or pool_factor < 1 or not 0 <= hard_share <= 1:
        raise ConfigError(
            f"num is {num}, pool_factor {pool_factor} and hard_share {hard_share}. Expected at least 1, at least 1, "
            "and a share from 0 to 1."
        )
    num_hard = round(num * hard_share)
    num_easy, num_pool = num - num_hard, num_hard * pool_factor
    drawn, count = _first_free(num_easy + num_pool, targets, excluded, generator)
    easy, pool = drawn[:, :num_easy], drawn[:, num_easy:]
    present = count > 0
    if num_hard:
        # Where candidates are fewer than the pool, its first `count` are each of them and what follows repeats them.
        repeated = torch.arange(num_pool, device=scores.device) >= count.unsqueeze(1)
        best = scores.gather(1, pool).masked_fill(repeated, -torch.inf).topk(num_hard, dim=1).indices
        easy = torch.cat([easy, pool.gather(1, best)], dim=1)
    return Negatives(torch.where(present.unsqueeze(1), easy, targets.unsqueeze(1)), present)


def _first_free(
    num: int, targets: Tensor, excluded: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Columns int64 (event, num), and how many free ones each event has found, (event,).

    All events walk the items in one random order, in a circle, each from a random place. The first n free items on an
    event's way are a uniform sample of n without replacement, as the order of its free ones among themselves is
    uniform. To find them costs a look at about n items, where a running sum over a mask of all items, or a random key
    an item, cost as much as the scores did. An event that finds fewer than `num` has been all around, and its columns
    begin again; without any they are arbitrary.
    """
    (num_events, num_items), device = excluded.shape, excluded.device
    order = torch.randperm(num_items, generator=generator, device=device).repeat(2)
    start = torch.randint(num_items, (num_events, 1), generator=generator, device=device)
    columns, count = targets.new_empty(num_events, num), targets.new_empty(num_events)
    rows, position = torch.arange(num_events, device=device), torch.arange(num, device=device)
    width = num + num // 4 + 8
    while len(rows):
        width = min(width, num_items)
        seen = order.take(start[rows] + torch.arange(width, device=device))
        free = ~excluded[rows].gather(1, seen) & (seen != targets[rows].unsqueeze(1))
        so_far = free.cumsum(dim=1)
        found = so_far[:, -1]
        done = (found >= num) | (width == num_items)
        wanted = position % found[done].clamp(min=1).unsqueeze(1) + 1
        place = torch.searchsorted(so_far[done], wanted).clamp(max=width - 1)
        columns[rows[done]] = seen[done].gather(1, place)
        count[rows[done]] = found[done]
        rows, width = rows[~done], 4 * width
    return columns, count
