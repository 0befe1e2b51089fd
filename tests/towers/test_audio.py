"""The sound backbones give what torchaudio gives, whatever came in at whichever rate and length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.towers.tiny import TINY_SPEECH, tone
from towers import Sound, Tower
from towers.audio import TorchaudioSound
from towers.spectrogram import SpectrogramSound


def _tiny(bundle: str, clip_seconds: float = 0.25) -> TorchaudioSound:
    torch.manual_seed(0)
    return TorchaudioSound(bundle, pretrained=False, clip_seconds=clip_seconds, sizes=TINY_SPEECH)


@pytest.mark.parametrize("bundle", ["WAV2VEC2_BASE", "HUBERT_BASE", "WAVLM_BASE", "WAV2VEC2_LARGE_LV60K"])
def test_rows_equal_the_last_layer_of_extract_features(bundle: str) -> None:
    backbone = _tiny(bundle)
    sounds = [tone(300, 0.25), tone(700, 0.25)]
    waves = torch.from_numpy(np.concatenate([sound.samples for sound in sounds]))
    if bundle.endswith("LV60K"):
        waves = (waves - waves.mean(1, keepdim=True)) / (waves.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    with torch.inference_mode():
        expected = backbone.net.extract_features(waves)[0][-1].mean(1).numpy()  # pyright: ignore[reportCallIssue]
    got = Tower(backbone, 8).encode(sounds, project=False)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_windows_are_equal_and_short_clips_are_repeated() -> None:
    backbone = _tiny("WAV2VEC2_BASE")
    short, long = tone(400, 0.1), tone(400, 2.0)
    window = backbone.prepare(short, 4)["waveform"]
    assert window.shape == (1, 4000)
    np.testing.assert_array_equal(window[0, :1600].numpy(), short.samples[0])
    np.testing.assert_array_equal(window[0, 1600:3200].numpy(), short.samples[0])
    assert backbone.prepare(long, 4)["waveform"].shape == (4, 4000)
    assert backbone.prepare(long, 1)["waveform"].shape == (1, 4000)
    assert backbone.prepare(tone(400, 0.6), 4)["waveform"].shape == (3, 4000)
    ends = backbone.prepare(long, 4)["waveform"]
    np.testing.assert_array_equal(ends[0].numpy(), long.samples[0, :4000])
    np.testing.assert_array_equal(ends[-1].numpy(), long.samples[0, -4000:])


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_every_rate_gives_the_same_sound(rate: int) -> None:
    backbone = _tiny("WAV2VEC2_BASE")
    time = np.arange(rate) / rate
    sound = Sound(np.sin(2 * np.pi * 440 * time).astype(np.float32)[None], rate)
    windows = backbone.prepare(sound, 4)["waveform"]
    assert windows.shape == (4, 4000)
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(4000) / 16_000)
    # The edges of a window ring a little.
    torch.testing.assert_close(windows[0, 200:-200], expected[200:-200], atol=0.02, rtol=0)


def test_channels_are_averaged() -> None:
    left = tone(400, 0.25).samples
    both = Sound(np.concatenate([left, -left]), 16_000)
    assert _tiny("WAV2VEC2_BASE").prepare(both, 1)["waveform"].abs().max() < 1e-7


def test_broken_sounds_are_refused() -> None:
    backbone = _tiny("WAV2VEC2_BASE")
    with pytest.raises(ValueError, match=r"shape \(channel, time\), time above 0; got \(1, 0\)"):
        backbone.prepare(Sound(np.zeros((1, 0), np.float32), 16_000), 4)
    with pytest.raises(ValueError, match=r"got \(16000,\)"):
        backbone.prepare(Sound(np.zeros(16_000, np.float32), 16_000), 4)
    silence = Sound(np.zeros((1, 4000), np.float32), 16_000)
    assert np.isfinite(Tower(_tiny("WAV2VEC2_LARGE_LV60K"), 8).encode([silence])).all()


def test_bundle_names_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"no bundle 'WAV2VEC_BASE'. Did you mean 'WAV2VEC2_BASE'"):
        TorchaudioSound("WAV2VEC_BASE")
    with pytest.raises(ValueError, match="Add pretrained=False"):
        TorchaudioSound("WAV2VEC2_BASE", sizes=TINY_SPEECH)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(OSError, match="weights of torchaudio's 'HUBERT_BASE' are not on this machine"):
        TorchaudioSound("HUBERT_BASE")
    with pytest.raises(OSError, match=r"no weight file '/no/such.pth'"):
        TorchaudioSound("HUBERT_BASE//no/such.pth")


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_are_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    import torchaudio

    bundle = torchaudio.pipelines.WAV2VEC2_BASE
    monkeypatch.setattr(bundle, "_params", {**bundle._params, **TINY_SPEECH})
    theirs = torchaudio.models.wav2vec2_model(**bundle._params).eval()
    state = theirs.state_dict()
    path = tmp_path / f"weights.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    backbone = TorchaudioSound(f"WAV2VEC2_BASE/{path}")
    for name, value in backbone.net.state_dict().items():
        # The position convolution's weight norm is folded in; everything else is as it was.
        if "pos_conv_embed.conv.weight" not in name:
            assert torch.equal(value, state[name])
    windows = backbone.prepare(tone(440, 0.2), 1)
    with torch.no_grad():
        expected = theirs.extract_features(windows["waveform"])[0][-1].mean(dim=1)
        torch.testing.assert_close(backbone(windows), expected, atol=1e-5, rtol=1e-5)


def test_spectrogram_shows_pitch_and_loudness() -> None:
    backbone = SpectrogramSound("test_byobnet", pretrained=False, clip_seconds=1.0)
    low, high = (backbone.prepare(tone(hz, 1.0), 1)["spectrogram"][0] for hz in (300, 3000))
    assert low.shape == (2, 64, 32)
    assert int(low[0].mean(1).argmax()) < int(high[0].mean(1).argmax())
    torch.testing.assert_close(low[1, :, 0], torch.linspace(-1, 1, 64))
    loud = tone(300, 1.0)
    quiet = backbone.prepare(Sound(loud.samples * 0.01, 16_000), 1)["spectrogram"][0, 0]
    assert quiet.max() < low[0].max() - 1
    silent = backbone.prepare(Sound(np.zeros((1, 100), np.float32), 16_000), 1)["spectrogram"]
    assert torch.isfinite(silent).all()


def test_spectrogram_bands_follow_the_mel_scale() -> None:
    import torchaudio

    backbone = SpectrogramSound("test_byobnet", pretrained=False, clip_seconds=1.0)
    sound = tone(500, backbone.window_samples / 16_000)
    mel = torchaudio.transforms.MelSpectrogram(16_000, n_fft=1024, hop_length=512, n_mels=64)
    expected = torch.log(mel(torch.from_numpy(sound.samples)) + 1e-5) / 4
    torch.testing.assert_close(backbone.prepare(sound, 1)["spectrogram"][:, 0], expected, atol=1e-4, rtol=1e-4)


def test_ramp_makes_a_pooled_conv_net_hear_pitch() -> None:
    # Two silent-but-for-a-band pictures that are shifts of each other: without the ramp, equal but at the borders.
    torch.manual_seed(0)
    backbone = SpectrogramSound("test_byobnet", pretrained=False, clip_seconds=1.0)
    low, high = torch.full((2, 2, 64, 32), -2.0).unbind()
    low[0, 16:20], high[0, 40:44] = 2.0, 2.0
    blind = torch.stack([low, high])
    blind[:, 1] = 0.0
    seeing = blind.clone()
    seeing[:, 1] = torch.linspace(-1, 1, 64)[:, None]
    with torch.no_grad():
        without, with_ramp = backbone.net(blind), backbone.net(seeing)
    assert (with_ramp[0] - with_ramp[1]).norm() > 2 * (without[0] - without[1]).norm()
