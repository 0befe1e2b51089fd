"""The text half of open_clip's models: words in the space of the pictures that they were trained beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from open_clip.model import _build_text_tower, convert_to_custom_text_state_dict
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from towers.backbone import load_fitting


@final
class ClipText:
    """Texts as rows that can be compared with the picture half's; a row equals `encode_text`, not normalised.

    No part of a tower: it is never trained, saved with none, and in no fingerprint, since nothing that is stored comes
    from it. `architecture`: open_clip's `model_cfg`; `state`: all weights of the whole model. Raises `ValueError` for
    an architecture whose text half is Transformers' or whose tokenizer is, which would come from the network.
    """

    def __init__(self, architecture: Mapping[str, Any], state: Mapping[str, Tensor], *, quick_gelu: bool) -> None:
        text: Any = dict(architecture["text_cfg"])
        if text.get("hf_model_name") or text.get("hf_tokenizer_name"):
            raise ValueError("its texts are read by Transformers. Expected a model with CLIP's own tokenizer.")
        net: Any = _build_text_tower(int(architecture["embed_dim"]), text, quick_gelu)
        converted: dict[str, Tensor] = convert_to_custom_text_state_dict(dict(state))
        own = {name.removeprefix("text."): each for name, each in converted.items() if name.startswith("text.")}
        load_fitting(net, own, file="the weight file", name="its text half", expected="a file of this architecture.")
        self._net: nn.Module = net.eval().requires_grad_(False)
        self._tokenizer = SimpleTokenizer(context_length=net.context_length)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """Float (text, dim) on `device`; what is longer than the model reads is cut."""
        rows = self._net.to(device)(self._tokenizer(list(texts)).to(device))
        return rows[0] if isinstance(rows, tuple) else rows
