"""An adapter on disk, without the backbone that it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file
from torch import Tensor

if TYPE_CHECKING:
    from towers.tower import Tower

_FORMAT = 1
_WEIGHTS, _CARD = "adapter.safetensors", "adapter.json"


def save_adapter(tower: Tower, folder: Path) -> None:
    """Write `adapter.safetensors`, and `adapter.json` with the kind, the rank and the base's fingerprint.

    Raises `ValueError` where the tower has no adapter of its own.
    """
    if tower.adapter is None:
        raise ValueError(f"a tower with tuning='{tower.tuning}' has no adapter to save. Expected tuning='adapter'.")
    backbone = tower.backbone
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in _state(tower).items()}
    save_file(weights, folder / _WEIGHTS)
    card = {
        "format": _FORMAT,
        "adapter": tower.adapter,
        "rank": backbone.adapter_rank,
        "modality": tower.modality,
        "base": backbone.base_fingerprint(),
    }
    (folder / _CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def load_adapter(tower: Tower, folder: Path) -> None:
    """Put the adapter in `folder` on the tower, in place: on a frozen one, or over one of the same kind and rank.

    Raises `ValueError` for another base (with both fingerprints), another kind or rank, another format, or weights
    that do not fit; `OSError` where a file is missing. The tower gives then what it gave before.
    """
    for name in (_CARD, _WEIGHTS):
        if not (folder / name).is_file():
            raise OSError(f"no adapter in '{folder}': '{name}' is missing. Expected a folder that save_adapter wrote.")
    card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
    if card["format"] != _FORMAT:
        raise ValueError(f"the adapter in '{folder}' has format {card['format']}. Expected {_FORMAT}. Save it again.")
    base = tower.backbone.base_fingerprint()
    if card["base"] != base:
        raise ValueError(
            f"the adapter in '{folder}' was trained on the backbone {card['base']}, and this tower's is {base}. "
            f"Expected the same weights and preprocessing. Load it on the backbone that it was trained on."
        )
    theirs = (card["adapter"], card["rank"])
    if tower.adapter is None and tower.tuning == "frozen":
        tower.adapt(*theirs)
    elif (tower.adapter, tower.backbone.adapter_rank) != theirs:
        what = f"adapter '{tower.adapter}' of rank {tower.backbone.adapter_rank}" if tower.adapter else "tuning 'full'"
        raise ValueError(
            f"the adapter in '{folder}' is '{theirs[0]}' of rank {theirs[1]}, and this tower has {what}. "
            f"Expected the same, or a tower with tuning='frozen'."
        )
    weights, state = load_file(folder / _WEIGHTS), _state(tower)
    if {name: value.shape for name, value in weights.items()} != {name: value.shape for name, value in state.items()}:
        raise ValueError(
            f"the weights in '{folder}' are not those of the adapter '{theirs[0]}' of rank {theirs[1]} that '{_CARD}' "
            f"speaks of. Expected the two files of one save_adapter. Save it again."
        )
    for name, value in state.items():
        value.copy_(weights[name])


def _state(tower: Tower) -> dict[str, Tensor]:
    """The adapter's tensors, detached and shared with the tower."""
    state = {f"backbone.{name}": value for name, value in tower.backbone.adapter_state().items()}
    if tower.side is not None:
        state |= {f"side.{name}": value for name, value in tower.side.state_dict().items()}
    return {name: value.detach() for name, value in state.items()}
