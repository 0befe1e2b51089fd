"""Tiny text encoders of the real classes with real tokenizers, as folders that Transformers saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    BertTokenizer,
    DebertaV2Config,
    DistilBertConfig,
    DistilBertTokenizer,
    ModernBertConfig,
    MPNetConfig,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaTokenizer,
    T5Config,
    XLMRobertaConfig,
    XLMRobertaTokenizer,
)

TEXTS = ["Slow piano in the rain.", "drum", "the LOUD loud drum . Rain, 慢 钢琴曲", "", "café 雨の歌 slow"]
"""Of several lengths, cases and scripts, an empty one among them."""

MAX_TOKENS = 40
"""What every family's position table takes, special tokens included."""

_WORDS = ["a", "slow", "Slow", "piano", "loud", "drum", "in", "the", "rain", "Rain", ".", ",", "caf", "cafe", "##s"]
_CHARACTERS = ["慢", "钢", "琴", "曲", "雨", "歌"]
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def _wordpiece(words: list[str]) -> dict[str, int]:
    return {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}


def _byte_level(specials: list[str]) -> Tokenizer:
    """Byte-pair encoding over bytes, learned from the texts above."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _bert(vocabulary: dict[str, int], *, lower_case: bool) -> tuple[Any, Any]:
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=MAX_TOKENS, **_SIZES)
    return config, BertTokenizer(vocab=vocabulary, do_lower_case=lower_case)


def _bert_uncased() -> tuple[Any, Any]:
    return _bert(_wordpiece([*_WORDS, *_CHARACTERS]), lower_case=True)


def _bert_cased() -> tuple[Any, Any]:
    return _bert(_wordpiece(_WORDS), lower_case=False)


def _bert_chinese() -> tuple[Any, Any]:
    return _bert(_wordpiece(_CHARACTERS), lower_case=False)


def _albert() -> tuple[Any, Any]:
    vocabulary = _wordpiece(_WORDS)
    config = AlbertConfig(
        vocab_size=len(vocabulary), max_position_embeddings=MAX_TOKENS, embedding_size=16, pad_token_id=0, **_SIZES
    )
    return config, BertTokenizer(vocab=vocabulary)


def _distilbert() -> tuple[Any, Any]:
    vocabulary = _wordpiece(_WORDS)
    config = DistilBertConfig(
        vocab_size=len(vocabulary), max_position_embeddings=MAX_TOKENS, dim=32, hidden_dim=64, n_layers=2, n_heads=2
    )
    return config, DistilBertTokenizer(vocab=vocabulary)


def _deberta() -> tuple[Any, Any]:
    vocabulary = _wordpiece(_WORDS)
    # As the published ones are; the last three are read, though no argument of the class.
    attention: dict[str, Any] = {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_biased_input": False,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
    }
    config = DebertaV2Config(vocab_size=len(vocabulary), max_position_embeddings=MAX_TOKENS, **attention, **_SIZES)
    return config, BertTokenizer(vocab=vocabulary)


def _mpnet() -> tuple[Any, Any]:
    words = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>", *_WORDS]
    # Position ids start after the padding's: two rows of the table are never read.
    config = MPNetConfig(vocab_size=len(words), max_position_embeddings=MAX_TOKENS + 2, **_SIZES)
    return config, MPNetTokenizer(vocab={word: index for index, word in enumerate(words)})


def _roberta() -> tuple[Any, Any]:
    model = json.loads(_byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]).to_str())["model"]
    config = RobertaConfig(vocab_size=len(model["vocab"]), max_position_embeddings=MAX_TOKENS + 2, **_SIZES)
    merges: Any = [tuple(merge) for merge in model["merges"]]
    return config, RobertaTokenizer(vocab=model["vocab"], merges=merges)


def _xlm_roberta() -> tuple[Any, Any]:
    pieces = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "▁slow",
        "▁piano",
        "▁rain",
        "▁",
        *"slowpianrudmhtec",
        *_CHARACTERS,
        "<mask>",
    ]
    pieces = list(dict.fromkeys(pieces))
    config = XLMRobertaConfig(vocab_size=len(pieces), max_position_embeddings=MAX_TOKENS + 2, **_SIZES)
    return config, XLMRobertaTokenizer(vocab=[(piece, -float(index)) for index, piece in enumerate(pieces)])


def _modernbert() -> tuple[Any, Any]:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = _byte_level(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # One layer of each kind of attention, and a window smaller than the texts.
    attention: dict[str, Any] = {"global_attn_every_n_layers": 2, "local_attention": 8}
    config = ModernBertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
        **attention,
        **_SIZES,
    )
    return config, PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=MAX_TOKENS,
    )


def _t5() -> tuple[Any, Any]:
    tokenizer = _byte_level(["<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    config = T5Config(
        vocab_size=tokenizer.get_vocab_size(), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, pad_token_id=0
    )
    return config, PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=MAX_TOKENS,
    )


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "bert-uncased": _bert_uncased,
    "bert-cased": _bert_cased,
    "bert-chinese": _bert_chinese,
    "albert": _albert,
    "distilbert": _distilbert,
    "deberta-v2": _deberta,
    "mpnet": _mpnet,
    "roberta": _roberta,
    "xlm-roberta": _xlm_roberta,
    "modernbert": _modernbert,
    "t5": _t5,
}
"""Family → its configuration and tokenizer."""


def write_family(family: str, folder: Path) -> Path:
    """A folder with configuration, tokenizer and random weights large enough for outputs to differ."""
    config, tokenizer = FAMILIES[family]()
    torch.manual_seed(0)
    net = AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.2)
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def declare(folder: Path, *, pooling: str = "mean", limits: dict[str, Any] | None = None, **settings: Any) -> Path:
    """Make a folder a sentence-transformers one. `settings`: of config_sentence_transformers.json."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {"pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean"}
    flags = {"word_embedding_dimension": 32, **modes}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    (folder / "sentence_bert_config.json").write_text(json.dumps(limits or {}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder
