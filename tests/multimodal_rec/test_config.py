"""Configurations check themselves, say what is near a misspelt name, and survive JSON."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from multimodal_rec.config import RecommenderConfig, TowerConfig, TrainingConfig
from multimodal_rec.errors import ConfigError, MultimodalRecError
from multimodal_rec.run_file import RunFile

TOWERS = {"text": TowerConfig("hf:somewhere", tuning="adapter", adapter_rank=4), "video": TowerConfig("frames:image")}


def test_a_configuration_survives_json() -> None:
    config = RecommenderConfig(TOWERS, embedding_dim=16, context=False, profile=TowerConfig("hf:x", max_tokens=64))
    assert RecommenderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert RecommenderConfig.from_dict(RecommenderConfig(TOWERS).to_dict()).profile is None


def test_profiles_are_read_as_a_run_file_says(tmp_path: Path) -> None:
    run = tmp_path / "run.toml"
    run.write_text('[model]\nembedding_dim = 16\n[model.profile]\nbackbone = "hf:x"\nmax_tokens = 64\n')
    config = RunFile.read(run).config(RecommenderConfig(TOWERS))
    assert config == RecommenderConfig(TOWERS, embedding_dim=16, profile=TowerConfig("hf:x", max_tokens=64))
    run.write_text('[model.profile]\nbackbone = "hf:x"\ntunning = "full"\n')
    with pytest.raises(ConfigError, match=r"run\.toml: TowerConfig has no setting 'tunning'\. Did you mean 'tuning'"):
        RunFile.read(run)


def test_unknown_keys_name_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"RecommenderConfig has no setting 'embeding_dim'\. Did you mean 'embedding_dim'"
    ):
        RecommenderConfig.from_dict({"embeding_dim": 8})
    with pytest.raises(ConfigError, match=r"TowerConfig has no setting 'tunning'\. Did you mean 'tuning'"):
        RecommenderConfig.from_dict({"towers": {"text": {"backbone": "hf:x", "tunning": "full"}}})
    with pytest.raises(ConfigError, match=r"TrainingConfig has no setting 'zzz'\. It has: device"):
        TrainingConfig.from_dict({"zzz": 1})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TowerConfig("bert"), "backbone 'bert' has no prefix. Expected one of 'hf:'"),
        (lambda: TowerConfig("hf:x", tuning="frosen"), "tuning 'frosen' is unknown.*Did you mean 'frozen'"),  # pyright: ignore
        (lambda: TowerConfig("timm:x", pretrained=False, tuning="adapter"), "would adapt noise. Take tuning='full'"),
        (lambda: TowerConfig("hf:x", max_windows=0), "TowerConfig.max_windows is 0. Expected a number above 0"),
        (lambda: RecommenderConfig({"txt": TowerConfig("hf:x")}), "tower 'txt' is unknown.*Did you mean 'text'"),
        (lambda: RecommenderConfig({"text": "hf:x"}), "is a str. Expected a TowerConfig"),  # pyright: ignore
        (lambda: RecommenderConfig({}, attributes=False, behaviour=False), "an item would have nothing to show"),
        (lambda: RecommenderConfig({}, dropout=1.0), "dropout is 1.0. Expected at least 0 and below 1"),
        (
            lambda: RecommenderConfig({}, profile=TowerConfig("hf:x", tuning="adapter")),
            r"profile has tuning='adapter', and .* never learns\. Expected tuning='frozen'\. Leave it out",
        ),
        (
            lambda: RecommenderConfig({}, profile=TowerConfig("timm:resnet10t")),
            r"profile has the backbone 'timm:resnet10t', and 'timm:' reads no text\. Expected a text encoder",
        ),
        (lambda: RecommenderConfig({}, profile="hf:x"), "profile is a str. Expected a TowerConfig, or None"),  # pyright: ignore
        (lambda: TrainingConfig(device="cuad"), "device 'cuad' is unknown.*Did you mean 'cuda'"),
        (lambda: TrainingConfig(epochs=0), "epochs is 0. Expected a number above 0"),
    ],
)
def test_what_cannot_work_is_refused(build, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build()
    assert isinstance(caught.value, MultimodalRecError)
    assert isinstance(caught.value, ValueError)


def test_configurations_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        TrainingConfig().epochs = 3  # pyright: ignore
