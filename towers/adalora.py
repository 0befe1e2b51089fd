"""AdaLoRA's bookkeeping: ranks that are taken from layers where they matter least, step by step."""

from __future__ import annotations

from typing import Any

import torch
from peft import AdaLoraModel
from torch import Tensor


class RankBudget:
    """Hands the rank budget of AdaLoRA round while training goes on; PEFT does the arithmetic.

    Source: arXiv:2303.10512. The first tenth of the steps keeps every rank, the last third no longer changes them.
    """

    def __init__(self, tuner: AdaLoraModel) -> None:
        # In a list: a module would be registered with whoever holds this object, and saved a second time.
        self._tuner = [tuner]
        self._config: Any = tuner.peft_config["default"]
        self._step = 0

    def set_total_steps(self, total: int) -> None:
        """How many steps will be taken in all."""
        # Ranks are given away once at least, and before the last step: PEFT asks for two steps.
        self._config.total_step = total = max(total, 2)
        self._config.tinit, self._config.tfinal = total // 10, total // 3
        self._tuner[0].rankallocator.set_total_step(self._config.total_step)

    def after_step(self) -> None:
        """Call after each optimiser step, before gradients are cleared."""
        self._step += 1
        self._tuner[0].update_and_allocate(self._step)

    def penalty(self) -> Tensor:
        """How far the factors are from orthogonal, a scalar to add to the loss."""
        factors = [
            value if ".lora_A." in name else value.T
            for name, value in self._tuner[0].model.named_parameters()
            if ".lora_A." in name or ".lora_B." in name
        ]
        apart = [torch.linalg.norm(each @ each.T - torch.eye(len(each), device=each.device)) for each in factors]
        return self._config.orth_reg_weight * torch.stack(apart).mean()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold besides the weights; `load_state` reads it."""
        allocator: Any = self._tuner[0].rankallocator
        state = {"step": torch.tensor(self._step)}
        for kind in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
            state |= {f"{kind}/{name}": value for name, value in getattr(allocator, kind).items()}
        pattern: dict[str, list[bool]] = self._config.rank_pattern or {}
        return state | {f"pattern/{name}": torch.tensor(kept) for name, kept in pattern.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        allocator: Any = self._tuner[0].rankallocator
        self._step = int(state["step"])
        for kind in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
            setattr(allocator, kind, _under(state, kind))
        self._config.rank_pattern = {name: kept.tolist() for name, kept in _under(state, "pattern").items()} or None


def _under(state: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {key.partition("/")[2]: value for key, value in state.items() if key.partition("/")[0] == kind}
