"""Every family of text encoders gives what its library gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from tests.towers.tiny_text import FAMILIES, MAX_TOKENS, TEXTS, write_family
from towers import Tower
from towers.text import HuggingFaceText

# DeBERTa's module compiles functions with torch.jit as it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


@pytest.fixture(scope="module", params=list(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def backbone(folder: Path) -> HuggingFaceText:
    return HuggingFaceText(str(folder))


@pytest.fixture(scope="module")
def reference(folder: Path) -> tuple[Any, Any]:
    net = AutoModel.from_pretrained(folder).eval()
    return AutoTokenizer.from_pretrained(folder), net.get_encoder() if net.config.is_encoder_decoder else net


def test_mean_pooling_equals_the_librarys_own(backbone: HuggingFaceText, reference: tuple[Any, Any]) -> None:
    tokenizer, net = reference
    texts = [text for text in TEXTS if text]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    with torch.inference_mode():
        tokens = net(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    expected = ((tokens * mask).sum(1) / mask.sum(1)).numpy()
    encoded = Tower(backbone, 8).encode(texts, project=False)
    np.testing.assert_allclose(encoded, expected, atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 1e-2


def test_tokens_are_the_tokenizers_own(backbone: HuggingFaceText, reference: tuple[Any, Any]) -> None:
    tokenizer, _ = reference
    for text in TEXTS:
        expected = tokenizer(text, return_tensors="pt")
        prepared = backbone.prepare(text, 1)
        assert {"input_ids", "attention_mask"} <= set(prepared)
        for name, tensor in prepared.items():
            torch.testing.assert_close(tensor, expected[name])


def test_one_equals_batch_with_mixed_lengths(backbone: HuggingFaceText) -> None:
    tower = Tower(backbone, 8, max_windows=3)
    texts = [*TEXTS, "slow rain " * 100]
    together = tower.encode(texts, project=False)
    assert np.isfinite(together).all()
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_allclose(tower.encode([text], project=False)[0], row, atol=1e-5, rtol=1e-5)


def test_long_text_fills_the_position_table_and_no_more(backbone: HuggingFaceText) -> None:
    assert backbone.max_tokens == MAX_TOKENS
    windows = backbone.prepare("slow rain " * 1000, 2)
    assert windows["input_ids"].shape == (2, MAX_TOKENS)
    assert torch.isfinite(backbone(windows)).all()
    special = set(backbone.tokenizer("", add_special_tokens=True)["input_ids"])
    assert special <= set(windows["input_ids"][1].tolist())


def test_what_has_no_gradient_is_listed(folder: Path) -> None:
    for pooling in ("mean", "cls", "attention"):
        backbone = HuggingFaceText(str(folder), pooling=pooling)
        backbone(backbone.collate([backbone.prepare(text, 1) for text in TEXTS])).square().sum().backward()
        idle = tuple(name for name, value in backbone.named_parameters() if value.grad is None)
        assert backbone.unused == idle
        # The heads on the first token are gone, so that a base network has nothing idle left.
        assert idle == ()
        assert not any("pooler" in name for name, _ in backbone.named_parameters())
