"""Bytes on disk → what towers read, safely: pictures, sound, video frames and soundtracks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from PIL import Image, ImageOps

from multimodal_rec.errors import MediaError
from towers import Frames, Sound

MAX_IMAGE_PIXELS = 64_000_000
"""Pictures above this are refused before they are decoded: a few kilobytes can unpack to gigabytes."""

_IMAGE_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000")


def read_image(path: str | Path) -> Image.Image:
    """One RGB picture, upright as its EXIF orientation says, transparency over white, 16 bits scaled to 8.

    Raises `MediaError` where the file is missing, is no picture, is cut short, or has above `MAX_IMAGE_PIXELS`.
    """
    path = _existing(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns of a bomb at a size of its own; the check below is ours.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_image_formats()) as image:
                width, height = image.size
                if width * height > MAX_IMAGE_PIXELS:
                    raise MediaError(
                        f"picture '{path}' has {width} x {height} pixels. Expected at most {MAX_IMAGE_PIXELS:,}; "
                        f"make it smaller."
                    )
                image.load()
                return _as_rgb(ImageOps.exif_transpose(image))
    except MediaError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise _unreadable("picture", path, error) from error


def read_sound(path: str | Path, *, max_seconds: float | None = None) -> Sound:
    """The first sound track of a file in any format PyAV knows, a video's included; at most `max_seconds` of it.

    Samples are float32 in [-1, 1], (channel, time), at the file's own rate. Raises `MediaError` where the file is
    missing, unreadable, or has no sound.
    """
    path = _existing(path)
    with _opened(path, "sound") as container:
        sound = _decode_sound(container, max_seconds)
    if sound is None:
        raise MediaError(
            f"'{path}' has no sound in it. Give a file with a sound track, or leave the item's sound empty."
        )
    return sound


def read_video_sound(path: str | Path, *, max_seconds: float | None = None) -> Sound | None:
    """A video's soundtrack, None where it is silent film; its pictures are not decoded."""
    path = _existing(path)
    with _opened(path, "video") as container:
        return _decode_sound(container, max_seconds)


def has_sound(path: str | Path) -> bool:
    """Whether a file has a sound track, without decoding it. Raises `MediaError` where it cannot be opened."""
    path = _existing(path)
    with _opened(path, "video") as container:
        return bool(container.streams.audio)


def read_video(path: str | Path, *, num_frames: int) -> tuple[Frames, Sound | None]:
    """`num_frames` RGB frames, evenly spread from first to last (all, where there are fewer), and the soundtrack.

    Raises `MediaError` where the file is missing, unreadable, or has no pictures.
    """
    path = _existing(path)
    return read_frames(path, num_frames=num_frames), read_video_sound(path)


def read_frames(path: str | Path, *, num_frames: int) -> Frames:
    """A video's frames without its soundtrack; see `read_video`."""
    path = _existing(path)
    with _opened(path, "video") as container:
        if not container.streams.video:
            raise MediaError(f"'{path}' has no pictures in it. Expected a video; a sound belongs in an audio column.")
        frames = _spread_frames(container, num_frames)
    if not frames:
        raise MediaError(
            f"video '{path}' has no frame that can be decoded. Encode it again, or leave the item's video empty."
        )
    return Frames(tuple(image for _, image in frames), tuple(seconds for seconds, _ in frames))


def _spread_frames(container: InputContainer, num_frames: int) -> list[tuple[float, Image.Image]]:
    """Evenly spread frames in one pass, without holding more than about twice as many decoded.

    How many frames a file holds is often not written in it, and seeking lands on key frames only; so every
    `stride`-th frame is kept, and when twice too many are there, every second one is dropped and the stride doubled.
    """
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    kept: list[tuple[float, av.VideoFrame]] = []
    stride, last = 1, None
    for index, frame in enumerate(container.decode(stream)):
        seconds = float(frame.time) if frame.time is not None else float(index)
        last = (seconds, frame)
        if index % stride == 0:
            kept.append(last)
            if len(kept) > 2 * max(num_frames, 2):
                kept, stride = kept[::2], stride * 2
    if last is not None and kept[-1][0] != last[0]:
        kept.append(last)
    if len(kept) > num_frames:
        # By time, not by rank: the last frame may follow its neighbour closer than the others do.
        times = np.array([seconds for seconds, _ in kept])
        wanted = np.linspace(times[0], times[-1], num_frames) if num_frames > 1 else times.mean(keepdims=True)
        kept = [kept[index] for index in sorted({int(np.abs(times - at).argmin()) for at in wanted})]
    return [(seconds, frame.to_image().convert("RGB")) for seconds, frame in kept]


def _decode_sound(container: InputContainer, max_seconds: float | None) -> Sound | None:
    if not container.streams.audio:
        return None
    stream = container.streams.audio[0]
    rate = int(stream.rate)
    limit = None if max_seconds is None else max(1, round(max_seconds * rate))
    resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
    pieces: list[np.ndarray] = []
    decoded = 0
    for frame in container.decode(stream):
        pieces += [piece.to_ndarray() for piece in resampler.resample(frame)]
        decoded += frame.samples
        if limit is not None and decoded >= limit:
            break
    pieces += [piece.to_ndarray() for piece in resampler.resample(None)]
    if not pieces:
        return None
    samples = np.concatenate(pieces, axis=1).astype(np.float32, copy=False)[:, :limit]
    # Lossy codecs overshoot a little; a not-a-number would spread to everything that is computed from it.
    return Sound(np.clip(np.nan_to_num(samples), -1.0, 1.0), rate) if samples.shape[1] else None


def _image_formats() -> list[str]:
    """Formats that Pillow decodes by itself: EPS, for one, would start a PostScript interpreter on the file."""
    Image.init()
    return [name for name in _IMAGE_FORMATS if name in Image.OPEN]


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow clips 16 bits to 8 instead of scaling them: every picture would come out white.
        values = np.asarray(image, dtype=np.float32)
        return Image.fromarray((values / 257.0).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise MediaError(f"media file '{path}' does not exist. Put it there, or empty the column that names it.")
    if path.stat().st_size == 0:
        raise MediaError(f"media file '{path}' is empty (0 bytes). Copy it again, or empty the column that names it.")
    return path


@contextmanager
def _opened(path: Path, what: str) -> Iterator[InputContainer]:
    try:
        # Only files: a playlist disguised as a video could otherwise make the decoder fetch whatever it names.
        with av.open(str(path.absolute()), options={"protocol_whitelist": "file"}) as container:
            yield container
    except MediaError:
        raise
    except (FFmpegError, OSError, ValueError) as error:
        raise _unreadable(what, path, error) from error


def _unreadable(what: str, path: Path, error: Exception) -> MediaError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return MediaError(
        f"{what} '{path}' cannot be read: {reason}. Check that the file is whole and is a {what}; encode it again, "
        f"or empty the column that names it."
    )
