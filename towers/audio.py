"""Sound through torchaudio's wav2vec 2.0, HuBERT and WavLM."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
import torchaudio
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from towers.backbone import Backbone, load_fitting
from towers.windows import cut_sound

_SUFFIXES = (".safetensors", ".pth", ".pt")


@final
class TorchaudioSound(Backbone):
    """One of torchaudio's speech encoders; a row is the mean over time of its last layer.

    `name`: a bundle (`WAV2VEC2_BASE`, `HUBERT_BASE`, `WAVLM_BASE`), whose weights lie in torch's hub folder, or
    `BUNDLE/PATH` with a weight file or a folder that holds one. Sound is resampled to the bundle's rate, its channels
    are averaged, and it is cut into windows of exactly `clip_seconds`, because these networks normalise over time,
    padding included.
    `sizes` replaces entries of the bundle's architecture, for random weights only. Raises `ValueError` for an
    unknown bundle, with the nearest ones, and for windows too short for the network; `OSError` where the weights are
    not on this machine, or are another bundle's.
    """

    modality = "audio"

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = True,
        clip_seconds: float = 3.0,
        sizes: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        bundle_name, _, path = name.partition("/")
        bundle = _bundle(bundle_name)
        if sizes is not None and pretrained:
            raise ValueError("sizes= changes the architecture, so no pretrained weights fit. Add pretrained=False.")
        factory = torchaudio.models.wavlm_model if bundle._model_type == "WavLM" else torchaudio.models.wav2vec2_model
        params = {**bundle._params, **(sizes or {})}
        sample_rate_hz = int(bundle.sample_rate)
        shortest = _frame_samples(params["extractor_conv_layer_config"])
        if round(clip_seconds * sample_rate_hz) < shortest:
            raise ValueError(
                f"clip_seconds={clip_seconds} is too short for '{bundle_name}'. Expected at least "
                f"{shortest / sample_rate_hz:g}: one frame of its output is made of so much sound."
            )
        # Before the network is built, which takes seconds.
        file = _weight_file(bundle_name, bundle, path) if pretrained else None
        # Layer drop leaves a layer without gradients at random, which distributed training takes for a fault.
        net: Any = factory(**{**params, "encoder_layer_drop": 0.0})
        if file is not None:
            _load(net, file, bundle_name, bundle)
        # Of no use to `extract_features`, so they would never get a gradient: a speech recogniser's letters, and
        # in networks that normalise first the norm after the last layer.
        net.aux = None
        if not net.encoder.transformer.layer_norm_first:
            net.encoder.transformer.layer_norm = nn.Identity()
        # A weight that is computed from two others at each call cannot be sent to another process, nor can the hook
        # that read such weights from older files.
        positions = net.encoder.transformer.pos_conv_embed.conv
        parametrize.remove_parametrizations(positions, "weight")
        positions._load_state_dict_pre_hooks.clear()
        self.net: nn.Module = net
        self.dim = int(params["encoder_embed_dim"])
        self.sample_rate_hz = sample_rate_hz
        self.clip_seconds = clip_seconds
        self.normalise_waveform = bool(bundle._normalize_waveform)
        self.eval()

    def prepare(self, value: Any, max_windows: int) -> dict[str, Tensor]:
        """Windows of one item's sound: float32 (window, time)."""
        samples = round(self.clip_seconds * self.sample_rate_hz)
        waveform = cut_sound(value, sample_rate_hz=self.sample_rate_hz, window_samples=samples, max_windows=max_windows)
        if self.normalise_waveform:
            # Window by window; torchaudio's own wrapper normalises over the whole batch.
            waveform = nn.functional.layer_norm(waveform, waveform.shape[-1:])
        return {"waveform": waveform}

    def forward(self, windows: dict[str, Tensor]) -> Tensor:
        """One row a window: (window, dim)."""
        layers, _ = self.net.extract_features(windows["waveform"])  # pyright: ignore[reportCallIssue]
        return layers[-1].mean(dim=1)

    def describe(self) -> Mapping[str, Any]:
        """Architecture, rate and windowing."""
        return {
            "class": type(self).__name__,
            "net": type(self.net).__name__,
            "sample_rate_hz": self.sample_rate_hz,
            "clip_seconds": self.clip_seconds,
            "normalise_waveform": self.normalise_waveform,
        }


def _bundle(name: str) -> Any:
    pipelines = torchaudio.pipelines
    bundle = getattr(pipelines, name, None)
    if isinstance(bundle, pipelines.Wav2Vec2Bundle):
        return bundle
    known = [each for each in dir(pipelines) if isinstance(getattr(pipelines, each), pipelines.Wav2Vec2Bundle)]
    near = difflib.get_close_matches(name.upper(), known, n=3) or ["WAV2VEC2_BASE", "HUBERT_BASE", "WAVLM_BASE"]
    raise ValueError(f"torchaudio has no bundle '{name}'. Did you mean {' or '.join(map(repr, near))}?")


def _frame_samples(layers: Sequence[Sequence[int]]) -> int:
    """How many samples one frame of the convolutions' output is made of; `layers` as (channels, kernel, stride)."""
    samples = 1
    for _, kernel, stride in reversed(layers):
        samples = (samples - 1) * stride + kernel
    return samples


def _weight_file(name: str, bundle: Any, path: str) -> Path:
    if not path:
        cached = Path(torch.hub.get_dir()) / "checkpoints" / bundle._path
        if not cached.is_file():
            raise OSError(
                f"the weights of torchaudio's '{name}' are not on this machine, and nothing is downloaded. Call "
                f"torchaudio.pipelines.{name}.get_model() once where there is a network, give "
                f"'torchaudio:{name}/PATH', or take pretrained=False for random weights."
            )
        return cached
    if Path(path).is_dir():
        found = [file for suffix in _SUFFIXES for file in sorted(Path(path).glob(f"*{suffix}"))]
        if len(found) != 1:
            raise OSError(f"folder '{path}' has {len(found)} weight files. Expected one .safetensors, .pth or .pt.")
        return found[0]
    if not Path(path).is_file():
        raise OSError(
            f"no weight file '{path}'. Expected 'torchaudio:{name}/PATH' with a .pth or .safetensors, or a folder with "
            f"one."
        )
    return Path(path)


def _load(net: nn.Module, file: Path, name: str, bundle: Any) -> None:
    if file.suffix == ".safetensors":
        state: dict[str, Tensor] = load_file(file)
    elif file.parent == Path(torch.hub.get_dir()) / "checkpoints":
        # The bundle's own reader, which also drops the letters that some recognisers have no use for.
        state = bundle._get_state_dict({"weights_only": True})
    else:
        state = torch.load(file, weights_only=True, map_location="cpu")
    expected = "the state_dict of that bundle's get_model()."
    load_fitting(net, state, file=file, name=f"torchaudio's '{name}'", expected=expected)
