"""Cutting what is too long into windows of one size: pictures, frames, and sound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torchaudio
from PIL import Image
from torch import Tensor

from towers.inputs import Frames, Sound

_LONGEST_SHAPE = 16
"""A picture this many times as long as wide is read whole; of a longer one, its middle."""

_LARGEST_FILTER = 2_000_000
"""Weights of a resampling filter: 44,100 to 16,000 Hz takes 70,560, and 44,099 would take 705 million."""


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` of the indices 0 … count - 1, evenly spread, the first and the last among them."""
    if count <= limit:
        return list(range(count))
    return [round(position) for position in np.linspace(0, count - 1, limit)] if limit > 1 else [count // 2]


def pictures_of(value: Any, *, max_windows: int) -> list[Image.Image]:
    """At most `max_windows` RGB pictures of one item.

    `value`: a `PIL.Image`, a sequence of them, or `Frames`. Of a strip more than 16 times as long as wide the middle
    is taken: scaled until its short side fits a network, one pixel by 30,000 would fill gigabytes. Raises `TypeError`
    for anything else, `ValueError` for an empty sequence.
    """
    if isinstance(value, Image.Image):
        pictures: list[Any] = [value]
    elif isinstance(value, Frames):
        pictures = list(value.images)
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        pictures = list(value)
    else:
        pictures = [value]
    if not pictures:
        raise ValueError("an item's list of pictures is empty. Expected at least one; leave such items out.")
    for picture in pictures:
        if not isinstance(picture, Image.Image):
            raise TypeError(
                f"expected a PIL.Image, a list of them, or Frames; got {type(picture).__name__}. "
                f"Decode files first, for example with multimodal_rec.media.read_image."
            )
    kept = [pictures[index] for index in spread(len(pictures), max_windows)]
    return [_middle(picture if picture.mode == "RGB" else picture.convert("RGB")) for picture in kept]


def cut_sound(value: Any, *, sample_rate_hz: int, window_samples: int, max_windows: int) -> Tensor:
    """Mono windows of equal length: float32 (window, window_samples) at `sample_rate_hz`.

    Channels are averaged. A long sound gives at most `max_windows` windows, evenly spread from its start to its
    end. A short one is repeated until it fills a window, because padding would change what wav2vec 2.0 and its kin
    normalise over. Windows are cut before they are resampled, so that a long song costs no more than its windows.
    Raises `TypeError` where `value` is no `Sound`, `ValueError` where it has no samples or a wrong shape.
    """
    if not isinstance(value, Sound):
        raise TypeError(
            f"expected Sound(samples, sample_rate_hz); got {type(value).__name__}. "
            f"Decode files first, for example with multimodal_rec.media.read_sound."
        )
    samples = np.asarray(value.samples, dtype=np.float32)
    if samples.ndim != 2 or samples.size == 0:
        raise ValueError(f"expected samples of shape (channel, time), time above 0; got {samples.shape}.")
    if value.sample_rate_hz <= 0:
        raise ValueError(f"expected a sample_rate_hz above 0; got {value.sample_rate_hz}.")
    mono = torch.from_numpy(samples.mean(axis=0))
    rate = _even_rate(value.sample_rate_hz, sample_rate_hz)
    length = max(1, math.ceil(window_samples * rate / sample_rate_hz))
    if len(mono) < length:
        mono = mono.repeat(math.ceil(length / len(mono)))[:length]
    count = min(max_windows, math.ceil(len(mono) / length))
    last = len(mono) - length
    starts = [round(start) for start in np.linspace(0, last, count)] if count > 1 else [last // 2]
    windows = torch.stack([mono[start : start + length] for start in starts])
    if rate != sample_rate_hz:
        windows = torchaudio.functional.resample(windows, rate, sample_rate_hz)
    return windows[:, :window_samples].contiguous()


def _middle(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    most = _LONGEST_SHAPE * min(width, height)
    if max(width, height) <= most:
        return picture
    left, top = max(0, width - most) // 2, max(0, height - most) // 2
    return picture.crop((left, top, left + min(width, most), top + min(height, most)))


def _even_rate(rate_hz: int, target_hz: int) -> int:
    """The rate, or one at most 0.2 % from it whose common divisor with the target keeps the filter small."""
    divisor = math.gcd(rate_hz, target_hz)
    if (rate_hz // divisor) * (target_hz // divisor) <= _LARGEST_FILTER:
        return rate_hz
    return max(25, round(rate_hz / 25) * 25)
