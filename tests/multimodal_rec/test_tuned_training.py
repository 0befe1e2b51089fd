"""Towers inside the loop: resumed, accumulated, computed again, put down and taken up, whatever their tuning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import AdamW

from multimodal_rec import content, media
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig, TowerConfig, TrainingConfig
from multimodal_rec.errors import ConfigError
from multimodal_rec.recommender import Recommender
from multimodal_rec.training import train
from tests.multimodal_rec.tiny import CPU, ready_to_train, tiny_config

WAYS: dict[str, dict[str, Any]] = {
    "lora": {"tuning": "adapter", "adapter": "lora"},
    "dora": {"tuning": "adapter", "adapter": "dora"},
    "adalora": {"tuning": "adapter", "adapter": "adalora"},
    "bottleneck": {"tuning": "adapter", "adapter": "bottleneck"},
    "side": {"tuning": "adapter", "adapter": "side"},
    "top": {"tuning": "full", "top_layers": 1},
}


def _config(bert: Path, **way: Any) -> RecommenderConfig:
    text = TowerConfig(f"hf:{bert}", adapter_rank=2, max_tokens=16, **way)
    return replace(tiny_config(bert), towers={"text": text})


class KilledError(Exception):
    pass


def _killed_in(epoch: int) -> Callable[[], float]:
    calls = iter(range(epoch + 1))

    def validate() -> float:
        if next(calls) == epoch:
            raise KilledError
        return 0.0

    return validate


@pytest.mark.parametrize("way", WAYS)
def test_a_tuned_run_that_was_cut_off_gives_the_same_losses(
    way: str, bert: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    config = _config(bert, **WAYS[way])
    training = replace(CPU, epochs=4, patience=9)

    def run(training: TrainingConfig, validate: Callable[[], float]) -> tuple[list[float], dict[str, torch.Tensor]]:
        model, data = ready_to_train(catalogue, config, training)
        epochs = train(model, data, config=config, training=training, validate=validate)
        return [epoch.loss for epoch in epochs], model.state_dict()

    rising = iter(range(4))
    whole, weights = run(training, lambda: next(rising))
    resumable = replace(training, checkpoint_dir=str(tmp_path))
    with pytest.raises(KilledError):
        run(resumable, _killed_in(2))
    rest = iter(range(2, 4))
    resumed, same = run(resumable, lambda: next(rest))
    assert resumed == whole
    for name, weight in weights.items():
        assert torch.equal(weight, same[name]), name


def test_adalora_ends_at_its_budget(bert: Path, catalogue: Catalogue) -> None:
    config = _config(bert, **WAYS["adalora"])
    training = replace(CPU, epochs=4)
    model, data = ready_to_train(catalogue, config, training)
    train(model, data, config=config, training=training)
    values = [value for name, value in model.named_parameters() if ".lora_E." in name]
    # Rank 2 on average, of 3 at first, over query and value of two layers.
    assert sum(len(value) for value in values) == 12
    assert sum(int((value != 0).sum()) for value in values) == 8


def test_adalora_takes_a_run_of_one_step(bert: Path, catalogue: Catalogue) -> None:
    training = replace(CPU, epochs=1, items_per_step=1000, gradient_accumulation=1000)
    config = _config(bert, **WAYS["adalora"])
    model, data = ready_to_train(catalogue, config, training)
    assert len(train(model, data, config=config, training=training)) == 1


def test_accumulation_changes_weights_less_often(
    bert: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(bert, tuning="full")
    steps: list[int] = []
    step = AdamW.step
    monkeypatch.setattr(AdamW, "step", lambda self, *rest: (steps.append(1), step(self, *rest))[1])
    counts = []
    for accumulation in (1, 3, 1000):
        steps.clear()
        training = replace(CPU, epochs=2, gradient_accumulation=accumulation)
        model, data = ready_to_train(catalogue, config, training)
        train(model, data, config=config, training=training)
        counts.append(len(steps) // 2)
    every, third, once = counts
    assert third == -(-every // 3)
    assert once == 1


def test_accumulated_gradients_are_the_mean(bert: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one update an epoch and no dropout, the update's gradient is the mean of those of the epoch's steps."""
    config = replace(
        _config(bert, tuning="full"), dropout=0.0, modality_dropout=0.0, behaviour_dropout=0.0, alignment_weight=0.0
    )
    bert_without_dropout = replace(CPU, epochs=1, gradient_accumulation=1000)
    model, data = ready_to_train(catalogue, config, bert_without_dropout)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    seen: list[torch.Tensor] = []
    singles: list[torch.Tensor] = []
    weight = model.behaviour.weight
    weight.register_hook(lambda gradient: singles.append(gradient.clone()))

    def step(self: AdamW, *_: Any) -> None:
        assert weight.grad is not None
        seen.append(weight.grad.clone())

    monkeypatch.setattr(AdamW, "step", step)
    train(model, data, config=config, training=bert_without_dropout)
    total = torch.stack(singles).sum(dim=0)
    # The loop clips to a norm of 1 over all weights: the direction is what remains to compare.
    cosine = torch.nn.functional.cosine_similarity(seen[0].flatten(), total.flatten(), dim=0)
    assert float(cosine) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("way", ["lora", "bottleneck", "top"])
def test_blocks_computed_again_give_the_same_run_in_less_memory(way: str, bert: Path, catalogue: Catalogue) -> None:
    def run(again: bool) -> tuple[list[float], int]:
        text = TowerConfig(f"hf:{bert}", adapter_rank=2, max_tokens=16, gradient_checkpointing=again, **WAYS[way])
        config = replace(tiny_config(bert), towers={"text": text})
        model, data = ready_to_train(catalogue, config)
        tower = model.tower("text").train()
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        batch = tower.prepare(["a slow piano in the rain"] * 8)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = tower(batch)
        out.sum().backward()
        model.zero_grad()
        return [e.loss for e in train(model, data, config=config, training=CPU)], sum(kept.values())

    plain, plain_bytes = run(again=False)
    again, again_bytes = run(again=True)
    assert again == pytest.approx(plain, rel=1e-5)
    assert again_bytes < 0.8 * plain_bytes


def test_a_kept_backbone_is_put_down_while_training_and_taken_up_again(
    bert: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    config = tiny_config(bert)
    model, _ = ready_to_train(catalogue, config)
    names = [name for name, _ in model.named_parameters()]
    assert not any(name.startswith("towers.text.backbone") for name in names)
    assert any(name.startswith("towers.image.backbone") for name in names)

    recommender = Recommender(config).fit(catalogue, training=replace(CPU, epochs=1))
    tower = recommender.towers["text"]
    assert "backbone" not in dict(tower.named_children())
    fingerprint = tower.fingerprint()
    embedded = tower.encode(["slow rain"])
    assert not any(value.is_inference() for value in tower.parameters())
    assert "backbone" in dict(tower.named_children())
    assert tower.fingerprint() == fingerprint
    assert tower.release_backbone()
    recommender.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model", device="cpu")
    assert (loaded.towers["text"].encode(["slow rain"]) == embedded).all()
    assert loaded.towers["text"].fingerprint() == fingerprint
    people, items = list(catalogue.interactions["user_id"].unique()), list(catalogue.items["item_id"])
    np.testing.assert_array_equal(loaded.score(people, items), recommender.score(people, items))
    # Weights of a saved model lie in its own file: there is nothing else to read them from.
    assert not loaded.towers["text"].release_backbone()
    for each in (loaded, recommender):
        each.close()


def test_fitting_decodes_a_picture_once(bert: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(content, "read_image", lambda path: (read.append(str(path)), media.read_image(path))[1])
    recommender = Recommender(tiny_config(bert)).fit(catalogue, training=replace(CPU, epochs=2))
    paths = [path for paths in catalogue.items["cover"] for path in paths]
    assert sorted(read) == sorted(paths)
    recommender.close()


def test_settings_that_cannot_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"top_layers=2 with tuning='adapter'\. Expected at least 1, with"):
        TowerConfig("hf:x", tuning="adapter", top_layers=2)
    for kept in ({"tuning": "frozen"}, {"tuning": "adapter", "adapter": "side"}):
        with pytest.raises(ConfigError, match=r"gradient_checkpointing with .*nothing to compute again"):
            TowerConfig("hf:x", gradient_checkpointing=True, **kept)
        with pytest.raises(ConfigError, match=r"pooling='attention' learns over tokens"):
            TowerConfig("hf:x", pooling="attention", **kept)
    with pytest.raises(ConfigError, match=r"adapter 'lorra' is unknown.*Did you mean 'lora'"):
        TowerConfig("hf:x", tuning="adapter", adapter="lorra")
    with pytest.raises(ConfigError, match=r"layer_decay=1\.5"):
        TowerConfig("hf:x", tuning="full", layer_decay=1.5)
    with pytest.raises(ConfigError, match=r"gradient_accumulation is 0"):
        TrainingConfig(gradient_accumulation=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_compiled_backbone_gives_the_same(bert: Path) -> None:
    from multimodal_rec.builders import build_tower

    plain = build_tower(TowerConfig(f"hf:{bert}"), seed=0)
    fast = build_tower(TowerConfig(f"hf:{bert}", compile=True), seed=0)
    texts = ["slow rain", "a loud drum in the rain"]
    np.testing.assert_allclose(fast.encode(texts), plain.encode(texts), atol=1e-5)
    assert fast.fingerprint() == plain.fingerprint()
