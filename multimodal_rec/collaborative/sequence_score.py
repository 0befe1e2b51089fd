"""What somebody takes next, from what they took last and when."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from multimodal_rec.collaborative.score import CollaborativeScore
from multimodal_rec.collaborative.sequence import SequenceEncoder
from multimodal_rec.history import HistoryBatch

GAP_SECONDS = (0.5, 5.0, 20.0, 45.0, 90.0, 200.0, 1e3, 5e3, 5e4, 3.5e5, 1.7e6)
"""Where one class of time between two events ends and the next begins: from the same second to weeks."""
VALUES = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
"""The same for standardised values; 0, a value that is missing, is a class of its own."""
_SECONDS_A_DAY = 86_400.0


@final
class SequenceScore(CollaborativeScore):
    """Score = ⟨state after a person's last events, item⟩, the state by causal self-attention.

    An event is √dim times its item's vector plus embeddings of its kind, of its value's class and of the class of
    time since the event before; what is known of the person is added to every event and to the start. Nothing to read
    gives the state of the start, which scores items by what people take first. `encoder` says how many events are
    read. Sources: SASRec (arXiv:1808.09781); time between events as in TiSASRec (Li et al. 2020), in classes.
    """

    _gap_ends: Tensor
    _value_ends: Tensor

    def __init__(self, encoder: SequenceEncoder, *, num_items: int, num_kinds: int, person_width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.kind = nn.Embedding(num_kinds, encoder.dim)
        self.value = nn.Embedding(len(VALUES) + 2, encoder.dim)
        self.gap = nn.Embedding(len(GAP_SECONDS) + 2, encoder.dim)
        for embedding in (self.kind, self.value, self.gap):
            nn.init.normal_(embedding.weight, std=0.02)
        # Zero at the start: people are alike until the log says otherwise.
        self.person = nn.Parameter(torch.zeros(person_width, encoder.dim))
        self.register_buffer("vectors", torch.zeros(num_items, encoder.dim))
        self.register_buffer("_gap_ends", torch.tensor(GAP_SECONDS), persistent=False)
        self.register_buffer("_value_ends", torch.tensor(VALUES), persistent=False)

    @property
    def least_events(self) -> int:
        """As many as the encoder reads."""
        return self.encoder.max_events

    def items(self, vectors: Tensor) -> Tensor:
        """The side of items, (item, dim): the vectors themselves."""
        return vectors

    def people(self, history: HistoryBatch, vectors: Tensor, person: Tensor) -> Tensor:
        """States (person, dim) after the last events that the encoder reads."""
        count = history.present.sum(dim=1)
        width = min(self.encoder.max_events, history.present.shape[1])
        first = (count - width).clamp(min=0)
        place = first[:, None] + torch.arange(width, device=count.device)
        # Padding follows; the states after it are never read.
        place = place.minimum((count - 1).clamp(min=0)[:, None])
        age = history.age_days
        since = (age[:, :-1] - age[:, 1:]).clamp(min=0) * _SECONDS_A_DAY
        since = torch.cat([since.new_full((len(age), 1), torch.inf), since], dim=1)
        states = self.states(
            vectors[history.item_index.gather(1, place)],
            history.kind.gather(1, place),
            history.value.gather(1, place),
            since.gather(1, place),
            person,
        )
        return states[torch.arange(len(count), device=count.device), count.clamp(max=width)]

    def states(self, items: Tensor, kind: Tensor, value: Tensor, since: Tensor, person: Tensor) -> Tensor:
        """States (person, event + 1, dim), the first before any event.

        `items`: vectors (person, event, dim); the rest is (person, event) but for `person` (person, person width).
        `since`: seconds since the person's event before, infinite for the first.
        """
        # As outputs, item vectors are small; as inputs they must stand up to a norm.
        events = items * items.shape[-1] ** 0.5
        known = torch.where(kind < self.kind.num_embeddings, kind, 0)
        value_class = torch.where(value == 0, len(VALUES) + 1, _classes(value, self._value_ends))
        gap_class = torch.where(since.isinf(), len(GAP_SECONDS) + 1, _classes(since, self._gap_ends))
        events = events + self.kind(known) + self.value(value_class) + self.gap(gap_class)
        return self.encoder(events, person @ self.person)


def _classes(values: Tensor, ends: Tensor) -> Tensor:
    """How many `ends` are below each value: int64 of the shape of `values`."""
    if torch.compiler.is_exporting():
        # ONNX has no bisection.
        return (values.unsqueeze(-1) > ends).sum(dim=-1)
    return torch.bucketize(values.contiguous(), ends)
