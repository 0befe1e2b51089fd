"""How much each of several losses counts, learned."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from multimodal_rec.errors import ConfigError

_PREFIX = "log_variance_"


@final
class TaskWeights(nn.Module):
    """The sum of several losses, each weighed by how noisy its task turns out to be: Σ exp(−s_i) · L_i + s_i.

    s_i is learned, the log of a variance. Where the model has settled it is log L_i, so that a loss of squared errors
    weighs 1 / variance of what cannot be predicted, and a loss that can be brought down counts more the lower it is.
    Training starts from the plain sum, s = 0. The paper halves some terms by kind of loss (½ exp(−s) L + ½ s for
    squared errors, exp(−s) L + ½ s for cross-entropy); here none is halved: for squared errors that is twice the same
    thing, and every kind settles at a weighted loss of 1.

    For losses above 0; one that reaches 0 would have its weight grow without bound. Keep the weights out of weight
    decay, which pulls them towards the plain sum.

    `names`: the tasks, such as ("softmax", "ratings"): distinct, letters, digits and underscores; they name the
    weights in a checkpoint. Raises `ConfigError` for others, and for none.

    Source: Kendall et al. (arXiv:1705.07115).
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        bad = [name for name in self.names if not f"{_PREFIX}{name}".isidentifier()]
        if isinstance(names, str) or not self.names or bad or len(set(self.names)) < len(self.names):
            raise ConfigError(
                f"names are {names!r}. Expected a list of at least one name, each once, of letters, digits and "
                "underscores, such as ['softmax', 'ratings']."
            )
        # One parameter each: of one tensor for all, momentum would move the tasks that are absent in a step as well.
        for name in self.names:
            self.register_parameter(f"{_PREFIX}{name}", nn.Parameter(torch.zeros(())))

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of a step's losses, a scalar.

        `losses`: task → scalar. A task without events in this step is to be left out, rather than to be given as 0:
        its weight then gets no gradient. Raises `ConfigError` for an unknown task and for none at all, `ValueError`
        for a loss that is not a scalar.
        """
        if not losses:
            raise ConfigError(
                f"no losses are given. Expected at least one of {', '.join(self.names)}; skip such steps."
            )
        terms: list[Tensor] = []
        for name, loss in losses.items():
            log_variance = self._log_variance(name)
            if loss.ndim != 0:
                raise ValueError(f"loss '{name}' is of shape {tuple(loss.shape)}. Expected a scalar: take its mean.")
            terms.append(torch.exp(-log_variance) * loss + log_variance)
        return torch.stack(terms).sum()

    def weights(self) -> dict[str, float]:
        """Task → what its loss is multiplied by now, exp(−s)."""
        return {name: float(torch.exp(-self._log_variance(name).detach())) for name in self.names}

    def _log_variance(self, name: str) -> Tensor:
        if name not in self.names:
            near = difflib.get_close_matches(name, self.names, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"It has: {', '.join(self.names)}."
            raise ConfigError(f"loss '{name}' has no weight. {hint}")
        return self.get_parameter(f"{_PREFIX}{name}")
