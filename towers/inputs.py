"""What a tower reads: decoded sound and decoded frames (text is a `str`, a picture a `PIL.Image`)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image


class Sound(NamedTuple):
    """Decoded sound."""

    samples: np.ndarray
    """float32 (channel, time), each sample in [-1, 1]."""
    sample_rate_hz: int


class Frames(NamedTuple):
    """Pictures of a video, in order."""

    images: tuple[Image.Image, ...]
    seconds: tuple[float, ...]
    """When each frame is shown, from the start of the video."""
