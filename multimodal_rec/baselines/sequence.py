"""What comes next after what somebody took last: causal self-attention over a history, SASRec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_rec.baselines.baseline import Log
from multimodal_rec.baselines.trained import Schedule, TrainedBaseline
from multimodal_rec.collaborative.sequence import CausalBlock
from multimodal_rec.errors import ConfigError

_SCHEDULE = Schedule(epochs=100, batch_size=64, learning_rate=2e-3, patience=5, every=2)
_PEOPLE_AT_ONCE = 256
"""Histories that are read in one step of scoring; bounds the memory."""


@final
class SASRec(TrainedBaseline):
    """Score = ⟨state after a person's last `max_items` items, item embedding⟩, the state by causal self-attention.

    A history is read as item plus place embeddings through `num_blocks` blocks of attention and a two-layer network,
    each after a layer norm and beside a residual; the output weights are the item embeddings. Every place of every
    history learns the item that came next. The loss is the softmax over all items, not the paper's one negative: that
    choice alone lifts SASRec to the level of its successors (Klenitskiy and Vasilev, arXiv:2309.07602). A history of
    more than `max_items` is learned from in windows; `schedule.batch_size` counts windows. With `num_negatives` the
    softmax is over the item and so many others, drawn evenly for each step and weighted up to all: for catalogues of
    tens of thousands of items, where all of them are most of the work.

    The order is that of `Log`: by timestamp, else position, else rows. `read` extends histories. A stranger scores 0
    everywhere. Source: Kang and McAuley (arXiv:1808.09781).
    """

    def __init__(
        self,
        dim: int = 64,
        *,
        num_blocks: int = 2,
        num_heads: int = 1,
        max_items: int = 50,
        dropout: float = 0.2,
        num_negatives: int | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(_SCHEDULE if schedule is None else schedule)
        if min(dim, num_blocks, num_heads, max_items) < 1 or dim % num_heads:
            raise ConfigError(
                f"dim is {dim}, num_blocks {num_blocks}, num_heads {num_heads} and max_items {max_items}. Expected "
                "each at least 1, and a dim that num_heads divides."
            )
        if not 0 <= dropout < 1 or (num_negatives is not None and num_negatives < 1):
            raise ConfigError(
                f"dropout is {dropout} and num_negatives {num_negatives}. Expected a share from 0 to below 1, and at "
                "least 1 negative, or None for all items."
            )
        self.dim, self.num_blocks, self.num_heads, self.max_items = dim, num_blocks, num_heads, max_items
        self.dropout, self.num_negatives = dropout, num_negatives

    def _build(self, log: Log) -> nn.Module:
        blocks = [CausalBlock(self.dim, self.num_heads, self.dropout) for _ in range(self.num_blocks)]
        return SequenceEncoder(log.num_items, self.max_items, blocks, self.dropout)

    def _losses(self, module: nn.Module, log: Log, rng: np.random.Generator) -> Iterator[Tensor]:
        encoder = cast(SequenceEncoder, module)
        items, starts = log.sequences()
        begin, end = _windows(starts, self.max_items)
        order = rng.permutation(len(begin))
        # Windows of like length share a step, so that little of it is padding.
        order = order[np.argsort((end - begin)[order], kind="stable")]
        batches = [order[i : i + self.schedule.batch_size] for i in range(0, len(order), self.schedule.batch_size)]
        for batch in (batches[i] for i in rng.permutation(len(batches))):
            history, there = _padded(items, begin[batch], end[batch])
            state = encoder(history)[there]
            # What came next: the same windows, one event on.
            wanted = _padded(items, begin[batch] + 1, end[batch] + 1)[0][there]
            if self.num_negatives is None or self.num_negatives >= log.num_items:
                yield F.cross_entropy(state @ encoder.item.weight.T, wanted)
            else:
                others = torch.from_numpy(rng.choice(log.num_items, self.num_negatives, replace=False, shuffle=False))
                yield _sampled(state, wanted, others, encoder.item)

    def _read(self, log: Log) -> None:
        self._in_order, self._starts = log.sequences()

    @torch.no_grad()
    def _score(self, log: Log, user_index: np.ndarray) -> np.ndarray:
        encoder = cast(SequenceEncoder, self._module)
        scores = np.zeros((len(user_index), log.num_items), dtype=np.float32)
        end = self._starts[user_index + 1]
        begin = np.maximum(self._starts[user_index], end - self.max_items)
        known = np.flatnonzero(begin < end)
        for rows in np.split(known, range(_PEOPLE_AT_ONCE, len(known), _PEOPLE_AT_ONCE)):
            if len(rows):
                states = encoder(_padded(self._in_order, begin[rows], end[rows])[0])
                last = states[torch.arange(len(rows)), torch.from_numpy(end[rows] - begin[rows] - 1)]
                scores[rows] = (last @ encoder.item.weight.T).numpy()
        return scores


class SequenceEncoder(nn.Module):
    """What SASRec learns: a state after each item of a history.

    The state at a place depends on the items up to it and on nothing later, so padding goes at the end and needs no
    mask.
    """

    def __init__(self, num_items: int, max_items: int, blocks: list[CausalBlock], dropout: float) -> None:
        super().__init__()
        dim = blocks[0].dim
        self.item = nn.Embedding(num_items, dim)
        self.place = nn.Embedding(max_items, dim)
        for embedding in (self.item, self.place):
            nn.init.normal_(embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, history: Tensor) -> Tensor:
        """States float32 (batch, item, dim); `history`: item index, int64 (batch, item), oldest first."""
        # As outputs, item embeddings are small; as inputs they must stand up to a norm.
        scale = self.item.embedding_dim**0.5
        state = self.item(history) * scale + self.place(torch.arange(history.shape[1]))
        state = self.dropout(state)
        for block in self.blocks:
            state = block(state)
        return self.norm(state)


def _windows(starts: np.ndarray, max_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Begin and end of the windows to learn from, int64 (window,); the event at an end is the last to be learned.

    From the end of each history backwards, at most `max_items` long, so that every event but the first is what came
    next exactly once; histories of one event give none.
    """
    last = starts[1:] - 1
    counts = np.maximum(-(-(last - starts[:-1]) // max_items), 0)
    person = np.repeat(np.arange(len(last)), counts)
    turn = np.arange(len(person)) - np.repeat(np.cumsum(counts) - counts, counts)
    end = last[person] - turn * max_items
    return np.maximum(starts[person], end - max_items), end


def _padded(items: np.ndarray, begin: np.ndarray, end: np.ndarray) -> tuple[Tensor, Tensor]:
    """Int64 (row, item), each row `items[begin:end]` and then anything; and bool (row, item), False from there on."""
    column = np.arange(int((end - begin).max()))
    there = column < (end - begin)[:, None]
    return torch.from_numpy(items[np.where(there, begin[:, None] + column, 0)]), torch.from_numpy(there)


def _sampled(state: Tensor, wanted: Tensor, others: Tensor, item: nn.Embedding) -> Tensor:
    """Cross-entropy of the wanted items, the sum over all others estimated from those drawn evenly."""
    right = (state * item(wanted)).sum(dim=1)
    wrong = state @ item(others).T
    wrong = wrong.masked_fill(others == wanted[:, None], -torch.inf)
    weight = float(np.log((item.num_embeddings - 1) / len(others)))
    return (torch.logaddexp(right, wrong.logsumexp(dim=1) + weight) - right).mean()
