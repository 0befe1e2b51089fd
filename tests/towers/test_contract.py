"""Every kind of tower passes the contract."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest

from tests.contracts import TowerContract
from tests.towers.tiny import TINY_SPEECH, film, picture, tone, write_bert, write_clip_config
from towers import Backbone
from towers.audio import TorchaudioSound
from towers.image import TimmImage
from towers.open_clip_image import OpenClipImage
from towers.spectrogram import SpectrogramSound
from towers.text import HuggingFaceText


class TestHuggingFaceText(TowerContract):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.path = write_bert(tmp_path_factory.mktemp("bert"), weights=False)

    def backbone(self) -> Backbone:
        return HuggingFaceText(str(self.path), pretrained=False)

    def inputs(self) -> list[Any]:
        return ["slow piano in the rain", "a loud drum", "rain", ""]


class TestOpenClipImage(TowerContract):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def architecture(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        open_clip.add_model_config(write_clip_config(tmp_path_factory.mktemp("clip")))

    def backbone(self) -> Backbone:
        return OpenClipImage("tiny-clip", pretrained=False)

    def inputs(self) -> list[Any]:
        return [[picture(1), picture(2)], picture(3), picture(4)]


class TestTimmViT(TowerContract):
    def backbone(self) -> Backbone:
        return TimmImage("test_vit", pretrained=False, image_size_px=32)

    def inputs(self) -> list[Any]:
        return [[picture(index) for index in range(6)], picture(7), [picture(8), picture(9)]]


class TestTimmConvNet(TowerContract):
    refuses = frozenset({"lora", "dora", "adalora", "bottleneck"})

    def backbone(self) -> Backbone:
        return TimmImage("test_byobnet", pretrained=False, image_size_px=64)

    def inputs(self) -> list[Any]:
        return [[picture(1), picture(2)], picture(3), picture(4)]


class _Speech(TowerContract):
    bundle: str

    def backbone(self) -> Backbone:
        return TorchaudioSound(self.bundle, pretrained=False, clip_seconds=0.1, sizes=TINY_SPEECH)

    def inputs(self) -> list[Any]:
        return [tone(440, 0.35), tone(220, 0.1, 22_050, channels=2), tone(880, 0.03)]


class TestWav2Vec2(_Speech):
    bundle = "WAV2VEC2_BASE"


class TestWav2Vec2NormFirst(_Speech):
    bundle = "WAV2VEC2_LARGE_LV60K"


class TestWavLM(_Speech):
    bundle = "WAVLM_BASE"


class TestSpectrogram(TowerContract):
    refuses = frozenset({"lora", "dora", "adalora", "bottleneck"})

    def backbone(self) -> Backbone:
        return SpectrogramSound("test_byobnet", pretrained=False, clip_seconds=1.0)

    def inputs(self) -> list[Any]:
        return [tone(440, 3.0), tone(220, 1.0, 22_050, channels=2), tone(880, 0.2)]


class TestSpectrogramViT(TestSpectrogram):
    refuses = frozenset()

    def backbone(self) -> Backbone:
        return SpectrogramSound("test_vit", pretrained=False, clip_seconds=1.0)


class TestFrames(TowerContract):
    modality = "video"

    def backbone(self) -> Backbone:
        return TimmImage("test_vit", pretrained=False, image_size_px=32)

    def inputs(self) -> list[Any]:
        return [film(1, 6), film(2, 3), film(3, 1)]
