"""A person's history, attributes, profile and context → one query: what they want, part by part, here and now."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusion.parts import zero_absent
from multimodal_rec.context_gates import Gates
from multimodal_rec.history import HistoryBatch


class QueryInput(NamedTuple):
    """Who asks, and when."""

    history: HistoryBatch
    person: Tensor
    """(query, person width): the person's attributes and profile, 0 where unknown."""
    context: Tensor
    """(query, context width): encoded context, 0 where unknown."""


class Taste(NamedTuple):
    """What histories say of whoever they belong to, whatever the context that is asked for."""

    blocks: Tensor
    """(query, part, dim): the weighed sum over events, before the gates of the present."""
    habit: Tensor
    """(query, 2): how far the history is of likes or dislikes, and how long it is."""


@final
class QueryEncoder(nn.Module):
    """One query block a part, (query, part, dim):

        q_p = g_p(c) · Σ_j w_j · g_p(c_j) · (x(i_j, p) − μ_p) / √(1 + Σ_j |w_j|)  +  B_p c + U_p a + b_p

    over the history's items i_j, taken in contexts c_j. The same gate g reads the past and asks for the present, so
    that what was taken at night speaks for the night and, where taste turns over, against the morning; a context
    that is unknown leaves the gate at its bias. A gate is one number a part, and training starts it from what pairs of
    one person's events say (`context_gates`): one a dimension as well was learned noisily. μ is the mean item, so that
    taste is what sets a person apart. The weight w_j of an event is learned from its kind, its value and how long ago
    it was. a: the person's attributes and profile, how far the history is of likes or dislikes, and how long it is.
    """

    centre: Tensor

    def __init__(
        self, embedding_dim: int, num_parts: int, *, context_width: int, person_width: int, event_weights: list[float]
    ) -> None:
        super().__init__()
        self._shape = (num_parts, embedding_dim)
        size = num_parts * embedding_dim
        self.gate = nn.Linear(context_width, num_parts)
        # Away from zero, for whoever trains without a log to start it from: where a gate starts flat, context and taste
        # wait for each other to mean something, and nothing was learned of either (docs/log.md, 2026-11-22).
        nn.init.normal_(self.gate.weight, std=0.5)
        nn.init.ones_(self.gate.bias)
        # Two more: how far the person likes things at all, and how much is known of them.
        self.offset = nn.Linear(context_width + person_width + 2, size)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)
        self.part_scale = nn.Parameter(torch.zeros(num_parts, 1))
        self.event_weight = nn.Parameter(torch.tensor(event_weights))
        self.value_weight = nn.Parameter(torch.zeros(()))
        self.decay = nn.Parameter(torch.full((2,), 0.01))
        self.register_buffer("centre", torch.zeros(num_parts, embedding_dim))

    def forward(self, inputs: QueryInput, tokens: Tensor, present: Tensor) -> Tensor:
        """Queries (query, part, dim) over item `tokens` (item, part, dim), which the histories index."""
        return self.ask(self.taste(inputs.history, tokens, present), inputs.person, inputs.context)

    def taste(self, history: HistoryBatch, tokens: Tensor, present: Tensor) -> Taste:
        """What histories say that index item `tokens` (item, part, dim)."""
        taken = self._taken(history.item_index, tokens, present)
        gate_then = self.gate(history.context).unsqueeze(-1)
        weight = self.weights(history)
        total = torch.einsum("qh,qhpd->qpd", weight, taken * gate_then)
        count = weight.abs().sum(dim=1, keepdim=True)
        blocks = total / (1 + count).sqrt().unsqueeze(-1) * self.part_scale.exp()
        return Taste(blocks, torch.cat([weight.sum(dim=1, keepdim=True) / (1 + count), torch.log1p(count)], dim=1))

    def ask(self, taste: Taste, person: Tensor, context: Tensor) -> Tensor:
        """Queries (query, part, dim); `person` and `context` as of `QueryInput`."""
        gate_now = self.gate(context).unsqueeze(-1)
        offset = self.offset(torch.cat([context, person, taste.habit], dim=-1)).unflatten(-1, self._shape)
        return gate_now * taste.blocks + offset

    def pulls(self, inputs: QueryInput, tokens: Tensor, present: Tensor, item: Tensor) -> Tensor:
        """What each event of each history adds to ⟨q_p, item_p⟩, (query, event, part); `item`: (part, dim)."""
        history = inputs.history
        taken = self._taken(history.item_index, tokens, present)
        gate_then = self.gate(history.context).unsqueeze(-1)
        gate_now = self.gate(inputs.context).unsqueeze(-1)
        weight = self.weights(history)
        weight = weight / (1 + weight.abs().sum(dim=1, keepdim=True)).sqrt()
        asked = gate_now * item * self.part_scale.exp()
        return weight.unsqueeze(-1) * torch.einsum("qhpd,qpd->qhp", taken * gate_then, asked)

    def _taken(self, index: Tensor, tokens: Tensor, present: Tensor) -> Tensor:
        # A few people over a million items: only what they took is touched. A graph that is exported takes one way.
        if torch.compiler.is_exporting() or index.numel() < len(tokens):
            return zero_absent(tokens[index] - self.centre, present[index])
        return zero_absent(tokens - self.centre, present)[index]

    def weights(self, history: HistoryBatch) -> Tensor:
        """How much each event speaks for the person, (query, event); negative where it speaks against."""
        decay = F.relu(self.decay)
        recency = torch.exp(-decay[0] * torch.log1p(history.distance) - decay[1] * torch.log1p(history.age_days))
        weight = (self.event_weight[history.kind] + self.value_weight * history.value) * recency
        return weight * history.present

    @torch.no_grad()
    def set_gates(self, gates: Gates) -> None:
        """Start from these gates."""
        self.gate.weight.copy_(gates.weight)
        self.gate.bias.copy_(gates.bias)

    @torch.no_grad()
    def set_centre(self, tokens: Tensor, present: Tensor) -> None:
        """Make the mean of these items the origin of taste: `tokens` (item, part, dim), `present` (item, part)."""
        count = present.sum(dim=0).clamp(min=1).unsqueeze(-1)
        self.centre.copy_(zero_absent(tokens, present).sum(dim=0) / count)
