"""What a person most probably wants of each kind of content, in which context: a posterior, not a sum."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from multimodal_rec.collaborative.score import CollaborativeScore
from multimodal_rec.collaborative.settings import TasteConfig
from multimodal_rec.history import HistoryBatch

_NEWTON_STEPS = 6
_CONJUGATE_STEPS = 6
_LENGTHS = (1.0, 0.25, 0.0625)
"""Shares of a Newton step that are tried: the cost is convex, and where a whole step goes too far, a part gains."""
_NEVER = -1e4
"""A logit of what is no alternative."""


@final
class TasteScore(CollaborativeScore):
    """score(person, i, context) = Σ_p g_p(context) ⟨t_p, z_p(i)⟩ + ⟨t_r, r(i)⟩ + b(i)

    z_p(i): a few directions of one kind of content p, r(i) what content does not tell of an item, b(i) how popular it
    is. The person's taste t is the most probable one under t ~ N(0, I) and a softmax over items at each event:

        t = argmin ½|t|² − Σ_j [ s(i_j, c_j) − log Σ_k exp s(k, c_j) ]

    found by Newton's method with conjugate gradients. A plain sum over the history is its first step, and counts ten
    alike items ten times; the posterior asks what they say beside each other, and beside what was not taken. k runs
    over a sample of the log's items that is kept here. Gates g are linear in the encoded context.

    An item is [z | r | b]; z is never stored, since content says it of every item, known or new.
    """

    gate_weight: Tensor
    """Buffer (part, context width)."""
    gate_bias: Tensor
    """Buffer (part,)."""
    alternatives: Tensor
    """Buffer (alternative, width): items of the training log."""
    speaks: Tensor
    """Buffer (kind,): 1 for kinds of event that speak for a person, else 0."""

    def __init__(
        self, num_items: int, config: TasteConfig, *, num_parts: int, context_width: int, speaks: Tensor
    ) -> None:
        """`speaks`: as the buffer of that name."""
        super().__init__()
        self.dim, self.num_unexplained, self.window = config.dim, config.num_unexplained, config.window
        width = num_parts * config.dim + config.num_unexplained + 1
        self.register_buffer("vectors", torch.zeros(num_items, width))
        self.register_buffer("gate_weight", torch.zeros(num_parts, context_width))
        self.register_buffer("gate_bias", torch.ones(num_parts))
        self.register_buffer("alternatives", torch.zeros(config.num_alternatives, width))
        self.register_buffer("speaks", speaks.float())
        # Nothing is an alternative before `keep_alternatives`.
        self.alternatives[:, -1] = _NEVER

    @property
    def content_columns(self) -> int:
        """How many of an item's numbers, the first ones, are what its content says."""
        return len(self.gate_bias) * self.dim

    @property
    def turns(self) -> bool:
        """Whether the context turns what a person wants."""
        return True

    @property
    def least_events(self) -> int:
        """As many as are read."""
        return self.window

    def keep_alternatives(self, vectors: Tensor, random: torch.Generator) -> None:
        """None; draws what people are asked to choose among from `vectors` (item, width)."""
        chosen = torch.randperm(len(vectors), generator=random)[: len(self.alternatives)]
        self.alternatives.zero_()
        self.alternatives[:, -1] = _NEVER
        self.alternatives[: len(chosen)] = vectors[chosen]

    def gates(self, context: Tensor) -> Tensor:
        """How much each number of taste counts, (..., width - 1), in contexts (..., context width)."""
        parts = (context @ self.gate_weight.T + self.gate_bias).repeat_interleave(self.dim, dim=-1)
        return torch.cat([parts, parts.new_ones(*parts.shape[:-1], self.num_unexplained)], dim=-1)

    def items(self, vectors: Tensor) -> Tensor:
        """The side of items, (item, width): the vectors themselves."""
        return vectors

    def people(self, history: HistoryBatch, vectors: Tensor, person: Tensor) -> Tensor:
        """The side of people in no context, (person, width): their tastes, and 1 for popularity."""
        del person
        history = self._latest(history)
        kind = torch.where(history.kind < len(self.speaks), history.kind, 0)
        counts = (history.present & (self.speaks[kind] > 0)).to(vectors.dtype)
        taste = self._most_probable(vectors[history.item_index][..., :-1], self.gates(history.context), counts)
        return torch.cat([taste, taste.new_ones(len(taste), 1)], dim=1)

    def turned(self, people: Tensor, context: Tensor) -> Tensor:
        """The side of people in contexts (person, context width), from their side in none."""
        return torch.cat([people[:, :-1] * self.gates(context), people[:, -1:]], dim=1)

    def _most_probable(self, taken: Tensor, gates: Tensor, counts: Tensor) -> Tensor:
        """Tastes (person, width - 1) from what was taken (person, event, width - 1), `counts` (person, event)."""
        others, popularity = self.alternatives[:, :-1], self.alternatives[:, -1]
        wanted = (taken * gates * counts.unsqueeze(-1)).sum(dim=1)
        taste = torch.zeros_like(wanted)

        def logits(of: Tensor) -> Tensor:
            return (gates * of.unsqueeze(1)) @ others.T + popularity

        def cost(of: Tensor, scores: Tensor) -> Tensor:
            return (of * (of / 2 - wanted)).sum(dim=1) + (scores.logsumexp(dim=-1) * counts).sum(dim=1)

        scores = logits(taste)
        for _ in range(_NEWTON_STEPS):
            shares = scores.softmax(dim=-1) * counts.unsqueeze(-1)
            mean = shares @ others
            slope = taste - wanted + (gates * mean).sum(dim=1)
            step = self._solved(slope, gates, shares, mean)
            best = cost(taste, scores)
            # So close to the lowest cost that rounding decides, whole steps still come nearer.
            rounding, here = 1e-5 * (1 + best.abs()), taste
            for length in _LENGTHS:
                tried = here - length * step
                reached = logits(tried)
                paid = cost(tried, reached)
                gains = paid < best + (rounding if length == 1 else -rounding)
                taste = torch.where(gains.unsqueeze(1), tried, taste)
                scores = torch.where(gains[:, None, None], reached, scores)
                best = torch.where(gains, paid, best)
        return taste

    def _solved(self, slope: Tensor, gates: Tensor, shares: Tensor, mean: Tensor) -> Tensor:
        """H⁻¹ slope by conjugate gradients, H = 1 + Σ_j g_j g_jᵀ ∘ Cov_j the curvature of the cost."""
        others = self.alternatives[:, :-1]

        def curved(of: Tensor) -> Tensor:
            along = gates * of.unsqueeze(1)
            spread = shares * (along @ others.T)
            return of + (gates * (spread @ others - spread.sum(dim=-1, keepdim=True) * mean)).sum(dim=1)

        found, rest = torch.zeros_like(slope), slope
        direction, size = rest, (rest * rest).sum(dim=1, keepdim=True)
        for _ in range(_CONJUGATE_STEPS):
            image = curved(direction)
            length = size / (direction * image).sum(dim=1, keepdim=True).clamp(min=1e-12)
            found = found + length * direction
            rest = rest - length * image
            left = (rest * rest).sum(dim=1, keepdim=True)
            direction = rest + left / size.clamp(min=1e-12) * direction
            size = left
        return found

    def _latest(self, history: HistoryBatch) -> HistoryBatch:
        """The last `window` events of each person."""
        length = history.present.shape[1]
        if not torch.compiler.is_exporting() and length <= self.window:
            return history
        count = history.present.sum(dim=1)
        first = (count - self.window).clamp(min=0)
        place = first[:, None] + torch.arange(self.window, device=count.device)

        def chosen(values: Tensor) -> Tensor:
            index = place.reshape(*place.shape, *[1] * (values.ndim - 2))
            return values.gather(1, index.expand(-1, -1, *values.shape[2:]))

        return HistoryBatch(*(chosen(values) for values in history))
