"""Each family of sound networks, prepared and run as torchaudio does it, whatever the sound's rate and length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchaudio
from safetensors.torch import save_file

from tests.towers.tiny import TINY_SPEECH, tone
from towers import Backbone, Sound
from towers.audio import TorchaudioSound
from towers.spectrogram import SpectrogramSound
from towers.windows import cut_sound

FAMILIES = ["WAV2VEC2_BASE", "WAV2VEC2_LARGE_LV60K", "WAV2VEC2_ASR_BASE_10M", "HUBERT_BASE", "WAVLM_BASE"]


def own_net(bundle_name: str) -> torch.nn.Module:
    """torchaudio's module of a bundle, tiny, with layer drop and a recogniser's letters as the bundle has them."""
    bundle = getattr(torchaudio.pipelines, bundle_name)
    wavlm = bundle_name.startswith("WAVLM")
    factory = torchaudio.models.wavlm_model if wavlm else torchaudio.models.wav2vec2_model
    return factory(**{**bundle._params, **TINY_SPEECH}).eval()


@pytest.mark.parametrize("bundle", FAMILIES)
def test_bundle_family_equals_extract_features(bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = own_net(bundle)
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    found = getattr(torchaudio.pipelines, bundle)
    monkeypatch.setattr(found, "_params", {**found._params, **TINY_SPEECH})
    backbone = TorchaudioSound(f"{bundle}/{tmp_path}", clip_seconds=0.25)
    sounds = [tone(300, 0.25), tone(700, 0.25, 16_000, channels=2)]
    waves = torch.from_numpy(np.stack([sound.samples.mean(axis=0) for sound in sounds]))
    if found._normalize_waveform:
        waves = torch.stack([(wave - wave.mean()) / (wave.var(correction=0) + 1e-5).sqrt() for wave in waves])
    prepared = torch.cat([backbone.prepare(sound, 4)["waveform"] for sound in sounds])
    torch.testing.assert_close(prepared, waves, atol=1e-5, rtol=0)
    with torch.inference_mode():
        layers, _ = net.extract_features(prepared)  # pyright: ignore[reportCallIssue]
        torch.testing.assert_close(backbone({"waveform": prepared}), layers[-1].mean(dim=1), atol=1e-5, rtol=0)
    _check_everything_is_used(backbone, {"waveform": prepared})


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_spectrogram_family_equals_the_network(name: str) -> None:
    torch.manual_seed(0)
    backbone = SpectrogramSound(name, pretrained=False, clip_seconds=1.0)
    extra = {"img_size": (64, 32)} if name == "test_vit" else {}
    net = timm.create_model(name, num_classes=0, in_chans=2, **extra).eval()
    net.load_state_dict(backbone.net.state_dict())
    windows = backbone.prepare(tone(440, 2.0), 2)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(windows), net(windows["spectrogram"]), atol=1e-5, rtol=0)
    _check_everything_is_used(backbone, windows)


def _check_everything_is_used(backbone: Backbone, windows: dict[str, torch.Tensor]) -> None:
    backbone.requires_grad_(True)
    backbone(windows).square().sum().backward()
    without = {name for name, value in backbone.named_parameters() if value.grad is None}
    assert without == set(backbone.unused)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 44_099, 47_999])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_rate_and_number_of_channels_gives_the_same_wave(rate: int, channels: int) -> None:
    time = np.arange(rate) / rate
    sound = Sound(np.stack([np.sin(2 * np.pi * 440 * time).astype(np.float32)] * channels), rate)
    windows = cut_sound(sound, sample_rate_hz=16_000, window_samples=4000, max_windows=2)
    assert windows.shape == (2, 4000)
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(4000) / 16_000)
    torch.testing.assert_close(windows[0, 200:-200], expected[200:-200], atol=0.02, rtol=0)


@pytest.mark.parametrize("rate", [1, 999, 44_099, 191_999, 767_999])
def test_odd_rates_need_no_giant_filter(rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    resample = torchaudio.functional.resample

    def watched(waves: torch.Tensor, old: int, new: int) -> torch.Tensor:
        asked.append((old, new))
        return resample(waves, old, new)

    monkeypatch.setattr(torchaudio.functional, "resample", watched)
    sound = Sound(np.zeros((1, max(2, rate // 10)), np.float32), rate)
    assert cut_sound(sound, sample_rate_hz=16_000, window_samples=1600, max_windows=1).shape == (1, 1600)
    ((old, new),) = asked
    assert abs(old - rate) <= 0.002 * rate
    assert old * new / np.gcd(old, new) ** 2 < 25_000_000


@pytest.mark.parametrize("samples", [1, 2, 100, 3999, 4000, 4001])
def test_clips_shorter_than_a_window_fill_one(samples: int) -> None:
    wave = np.linspace(0.1, 1, samples, dtype=np.float32)[None]
    windows = cut_sound(Sound(wave, 16_000), sample_rate_hz=16_000, window_samples=4000, max_windows=4)
    assert windows.shape == (1 if samples <= 4000 else 2, 4000)
    np.testing.assert_array_equal(windows[0].numpy(), np.tile(wave[0], -(-4000 // samples))[:4000])


def test_windows_too_short_for_the_network_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"clip_seconds=0\.02 is too short for 'WAV2VEC2_BASE'\. Expected at least 0\.025"
    ):
        TorchaudioSound("WAV2VEC2_BASE", pretrained=False, clip_seconds=0.02)
    with pytest.raises(ValueError, match=r"expected a sample_rate_hz above 0; got 0"):
        cut_sound(Sound(np.zeros((1, 9), np.float32), 0), sample_rate_hz=16_000, window_samples=9, max_windows=1)
    torch.manual_seed(0)
    shortest = TorchaudioSound("HUBERT_BASE", pretrained=False, clip_seconds=0.025, sizes={"encoder_num_layers": 1})
    assert shortest(shortest.prepare(tone(440, 0.01), 1)).shape == (1, shortest.dim)


def test_folders_of_weights_and_weights_of_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = torchaudio.pipelines.HUBERT_BASE
    monkeypatch.setattr(bundle, "_params", {**bundle._params, **TINY_SPEECH})
    with pytest.raises(OSError, match=r"has 0 weight files\. Expected one \.safetensors, \.pth or \.pt"):
        TorchaudioSound(f"HUBERT_BASE/{tmp_path}")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    with pytest.raises(
        OSError, match=r"other\.pt' do not fit torchaudio's 'HUBERT_BASE': Missing key.*Expected the state"
    ):
        TorchaudioSound(f"HUBERT_BASE/{tmp_path}")
    (tmp_path / "other.pth").touch()
    with pytest.raises(OSError, match="has 2 weight files"):
        TorchaudioSound(f"HUBERT_BASE/{tmp_path}")
