"""Sound as a picture: a log-mel spectrogram through one of timm's networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import torch
import torchaudio
from torch import Tensor, nn

from towers.backbone import Backbone
from towers.timm_net import load_timm
from towers.windows import cut_sound

_SAMPLE_RATE_HZ = 16_000
_NUM_MELS = 64
_FFT_SAMPLES = 1024
_HOP_SAMPLES = 512


@final
class SpectrogramSound(Backbone):
    """A timm network over log-mel spectrograms at 16 kHz: 64 bands, 1024 samples a frame, 512 a hop.

    Its picture has two channels. The first is log(mel + 1e-5) / 4, a fixed scale, so that loudness stays visible.
    The second is a ramp over frequency from -1 to 1: a convolutional net that averages over the picture cannot tell
    a high note from a low one without it (CoordConv, arXiv:1807.03247). `clip_seconds` is rounded up to whole
    sixteens of spectrogram frames, which suit every network's strides and patches. `name` as in
    `towers.timm_net.load_timm`; pretrained weights come from pictures, their first layer is folded to two channels.
    """

    modality = "audio"

    def __init__(self, name: str, *, pretrained: bool = True, clip_seconds: float = 3.0) -> None:
        super().__init__()
        frames = 16 * math.ceil((1 + clip_seconds * _SAMPLE_RATE_HZ // _HOP_SAMPLES) / 16)
        self.window_samples = (frames - 1) * _HOP_SAMPLES
        loaded = load_timm(name, pretrained=pretrained, in_chans=2, input_size=(_NUM_MELS, frames))
        self.net: nn.Module = loaded.net
        self.dim = loaded.dim
        # Plain tensors, not buffers: they stay on the CPU, where `prepare` runs, and out of saved weights.
        self._hann = torch.hann_window(_FFT_SAMPLES)
        self._bands = torchaudio.functional.melscale_fbanks(
            _FFT_SAMPLES // 2 + 1, 0.0, _SAMPLE_RATE_HZ / 2, _NUM_MELS, _SAMPLE_RATE_HZ
        )
        self.eval()

    def prepare(self, value: Any, max_windows: int) -> dict[str, Tensor]:
        """Spectrograms of one item's sound: float32 (window, 2, mel, frame)."""
        windows = cut_sound(
            value, sample_rate_hz=_SAMPLE_RATE_HZ, window_samples=self.window_samples, max_windows=max_windows
        )
        spectrum = torch.stft(windows, _FFT_SAMPLES, _HOP_SAMPLES, window=self._hann, return_complex=True)
        mels = torch.einsum("wft,fm->wmt", spectrum.abs().square(), self._bands)
        scaled = torch.log(mels + 1e-5) / 4
        ramp = torch.linspace(-1, 1, _NUM_MELS)[None, :, None].expand_as(scaled)
        return {"spectrogram": torch.stack([scaled, ramp], dim=1)}

    def forward(self, windows: dict[str, Tensor]) -> Tensor:
        """One row a window: (window, dim)."""
        return self.net(windows["spectrogram"])

    def describe(self) -> Mapping[str, Any]:
        """Architecture, spectrogram and windowing."""
        return {
            "class": type(self).__name__,
            "net": type(self.net).__name__,
            "spectrogram": [_SAMPLE_RATE_HZ, _NUM_MELS, _FFT_SAMPLES, _HOP_SAMPLES, "log(x+1e-5)/4", "ramp"],
            "window_samples": self.window_samples,
        }
