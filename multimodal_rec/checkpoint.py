"""Where a training run stands, on disk: what a run that was cut off needs to go on as if nothing had happened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from multimodal_rec.errors import ConfigError


class Checkpoint:
    """One checkpoint in `folder`, replaced whole: a process killed while it writes leaves the one before.

    Accelerate writes model, optimiser, schedule and random states; beside them go the loop's values as JSON and its
    tensors as safetensors. `run` tells runs apart: a checkpoint of another configuration or other data is refused.
    """

    def __init__(self, folder: str | Path, accelerator: Accelerator, run: Mapping[str, Any]) -> None:
        self._last, self._draft = Path(folder) / "last", Path(folder) / "draft"
        self._accelerator = accelerator
        self._run: dict[str, Any] = json.loads(json.dumps(run))

    def save(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write the state of everything prepared by the accelerator, with the loop's own values and tensors."""
        if self._accelerator.is_main_process:
            shutil.rmtree(self._draft, ignore_errors=True)
        self._accelerator.wait_for_everyone()
        self._accelerator.save_state(str(self._draft))
        self._accelerator.wait_for_everyone()
        if self._accelerator.is_main_process:
            # Copies, since a module's tensors may share memory, or lie in another order, which safetensors refuses.
            copies = {
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in tensors.items()
            }
            save_file(copies, self._draft / "loop")
            # Written last: a folder without it is not whole.
            (self._draft / "loop.json").write_text(json.dumps({"run": self._run, **values}), encoding="utf-8")
            shutil.rmtree(self._last, ignore_errors=True)
            self._draft.rename(self._last)
        self._accelerator.wait_for_everyone()

    def load(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The loop's values and tensors, after bringing back everything else; None where there is no checkpoint.

        Raises `ConfigError` where the checkpoint comes from another run.
        """
        # Both: a process can be killed after the last one was removed and before the draft took its name.
        for folder in (self._last, self._draft):
            if not (folder / "loop.json").exists():
                continue
            values = json.loads((folder / "loop.json").read_text(encoding="utf-8"))
            theirs = values.pop("run")
            other = [name for name, value in self._run.items() if theirs.get(name) != value]
            if other:
                raise ConfigError(
                    f"the checkpoint in '{folder.parent}' comes from another run: its {', '.join(other)} differ. "
                    "Expected one of the same configuration and data. Take another checkpoint_dir, or remove it."
                )
            self._accelerator.load_state(str(folder))
            return values, load_file(folder / "loop")
        return None
