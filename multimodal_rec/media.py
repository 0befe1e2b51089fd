"""Bytes on disk → what towers read, safely: pictures, sound, video frames and soundtracks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image, ImageOps

from multimodal_rec.errors import MediaError
from multimodal_rec.film import FRAME_CHOICES, sample_frames, upright
from towers import Frames, Sound

MAX_IMAGE_PIXELS = 64_000_000
"""Pictures and films above this are refused before they are decoded: a few kilobytes can unpack to gigabytes."""

MAX_SAMPLE_RATE_HZ = 768_000
"""Sound above this is refused: no recording has it, and a broken header may claim billions."""

_IMAGE_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000")


def read_image(path: str | Path) -> Image.Image:
    """One RGB picture, upright as its EXIF orientation says, transparency over white, 16 bits scaled to 8.

    Raises `MediaError` where the file is missing, is no picture, is cut short, or has above `MAX_IMAGE_PIXELS`.
    """
    path = _existing(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd palettes, of broken EXIF, and of bombs at a size of its own: the picture counts.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_image_formats()) as image:
                _check_size("picture", path, *image.size)
                image.load()
                return _as_rgb(ImageOps.exif_transpose(image))
    except MediaError:
        raise
    except Image.DecompressionBombError as error:
        # Far above, Pillow itself refuses to open it.
        raise MediaError(
            f"picture '{path}' has too many pixels. Expected at most {MAX_IMAGE_PIXELS:,}; make it smaller. ({error})"
        ) from error
    except Exception as error:  # A decoder led astray by a broken file may raise anything, struct.error included.
        raise _unreadable("picture", path, error) from error


def read_sound(path: str | Path, *, max_seconds: float | None = None) -> Sound:
    """The first sound track of a file in any format PyAV knows, a video's included; at most `max_seconds` of it.

    Samples are float32 in [-1, 1], (channel, time), at the file's own rate. Raises `MediaError` where the file is
    missing, unreadable, cut short, or has no sound.
    """
    path = _existing(path)
    with _opened(path, "sound") as container:
        if not container.streams.audio:
            raise MediaError(
                f"'{path}' has no sound in it. Give a file with a sound track, or leave the item's sound empty."
            )
        sound = _decode_sound(container, path, max_seconds)
    if sound is None:
        raise MediaError(
            f"sound '{path}' is of zero length. Give a file with sound in it, or leave the item's sound empty."
        )
    return sound


def read_video_sound(path: str | Path, *, max_seconds: float | None = None) -> Sound | None:
    """A video's soundtrack, None where it is silent film; its pictures are not decoded."""
    path = _existing(path)
    with _opened(path, "video") as container:
        return _decode_sound(container, path, max_seconds)


def has_sound(path: str | Path) -> bool:
    """Whether a file has a sound track, without decoding it. Raises `MediaError` where it cannot be opened."""
    path = _existing(path)
    with _opened(path, "video") as container:
        return bool(container.streams.audio)


def read_video(path: str | Path, *, num_frames: int, at: str = "even") -> tuple[Frames, Sound | None]:
    """`num_frames` RGB frames (all, where there are fewer) as `read_frames` takes them, and the soundtrack.

    Raises `MediaError` where the file is missing, unreadable, or has no pictures.
    """
    path = _existing(path)
    return read_frames(path, num_frames=num_frames, at=at), read_video_sound(path)


def read_frames(path: str | Path, *, num_frames: int, at: str = "even") -> Frames:
    """A video's frames without its soundtrack, upright: `num_frames` of them (all, where there are fewer).

    `at="even"`: spread over the time from the first to the last. `at="scenes"`: the first frame of each scene, as
    FFmpeg's `select` filter finds them, the video's first among them; of too many scenes evenly spread ones, and too
    few are filled up where the gaps are widest. Raises `MediaError` where the file is missing, unreadable, cut short,
    or has no pictures, `ValueError` for another `at`.
    """
    if at not in FRAME_CHOICES:
        raise ValueError(f"frames at '{at}' are unknown. Expected one of {', '.join(map(repr, FRAME_CHOICES))}.")
    path = _existing(path)
    with _opened(path, "video") as container:
        stream = _pictures_of(container)
        if stream is None:
            raise MediaError(f"'{path}' has no pictures in it. Expected a video; a sound belongs in an audio column.")
        stream.thread_type = "AUTO"
        sampled = sample_frames(_decode_frames(container, stream, path), num_frames=num_frames, at=at)
        if not sampled.frames:
            raise MediaError(
                f"video '{path}' has no frame that can be decoded. Encode it again, or leave the item's video empty."
            )
        if sampled.end_seconds is not None:
            _check_whole("video", path, stream, sampled.end_seconds)
        return Frames(
            tuple(upright(shown.frame) for shown in sampled.frames), tuple(shown.seconds for shown in sampled.frames)
        )


def _pictures_of(container: InputContainer) -> VideoStream | None:
    """The track of moving pictures; the cover of an album is a track of one picture, and none of a film."""
    tracks = [track for track in container.streams.video if not track.disposition & Disposition.attached_pic]
    return tracks[0] if tracks else None


def _decode_frames(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[VideoFrame]:
    _check_size("video", path, stream.codec_context.width, stream.codec_context.height)
    for frame in container.decode(stream):
        _check_size("video", path, frame.width, frame.height)
        yield frame


def _decode_sound(container: InputContainer, path: Path, max_seconds: float | None) -> Sound | None:
    if not container.streams.audio:
        return None
    stream = container.streams.audio[0]
    rate = int(stream.rate)
    if not 0 < rate <= MAX_SAMPLE_RATE_HZ:
        raise MediaError(
            f"sound '{path}' claims {rate:,} samples a second. Expected at most {MAX_SAMPLE_RATE_HZ:,}; "
            f"encode it again."
        )
    limit = None if max_seconds is None else max(1, round(max_seconds * rate))
    # Channels side by side, not one after another: PyAV reads beyond the eighth plane of a frame, and crashes.
    resampler = av.AudioResampler(format="flt", layout=stream.layout, rate=rate)
    pieces: list[np.ndarray] = []
    decoded = 0
    for frame in container.decode(stream):
        pieces += [piece.to_ndarray() for piece in resampler.resample(frame)]
        decoded += frame.samples
        if limit is not None and decoded >= limit:
            break
    pieces += [piece.to_ndarray() for piece in resampler.resample(None)]
    if limit is None or decoded < limit:
        _check_whole("sound", path, stream, decoded / rate)
    if not pieces:
        return None
    samples = np.concatenate(pieces, axis=1).reshape(-1, stream.channels).T[:, :limit].astype(np.float32, order="C")
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
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError as error:  # A folder without permission, a name that is too long.
        raise _unreadable("media file", path, error) from error
    if size is None:
        raise MediaError(f"media file '{path}' does not exist. Put it there, or empty the column that names it.")
    if size == 0:
        raise MediaError(f"media file '{path}' is empty (0 bytes). Copy it again, or empty the column that names it.")
    return path


@contextmanager
def _opened(path: Path, what: str) -> Iterator[InputContainer]:
    try:
        _check_riff(what, path)
        # Only files: a playlist disguised as a video could otherwise make the decoder fetch whatever it names. And
        # a title in another encoding than UTF-8 is no reason to refuse the sound.
        with av.open(
            str(path.absolute()), options={"protocol_whitelist": "file"}, metadata_errors="replace"
        ) as container:
            found = container.format.name
            # FFmpeg plays these, too: a photo is a film of one frame, and it types a text onto a screen.
            if found.endswith("_pipe") or found in ("image2", "tty"):
                other = "text" if found == "tty" else "picture"
                raise MediaError(f"'{path}' is a {other}. Expected a {what}; mind the column that names it.")
            yield container
    except MediaError:
        raise
    except Exception as error:  # A decoder led astray by a broken file may raise anything.
        raise _unreadable(what, path, error) from error


def _check_size(what: str, path: Path, width: int, height: int) -> None:
    if width * height > MAX_IMAGE_PIXELS:
        raise MediaError(
            f"{what} '{path}' has {width} x {height} pixels. Expected at most {MAX_IMAGE_PIXELS:,}; make it smaller."
        )


def _check_whole(what: str, path: Path, stream: av.AudioStream | VideoStream, seconds: float) -> None:
    """Raise where a file breaks off long before the end that its header promises.

    Only headers that are written when the length is known are believed; of an MP3 FFmpeg guesses it.
    """
    if stream.duration is None or stream.time_base is None:
        return
    name = stream.container.format.name
    promised = float(stream.duration * stream.time_base)
    if (name.startswith("mov,") or name == "flac") and seconds < 0.9 * promised - 0.1:
        raise MediaError(
            f"{what} '{path}' is cut short: {promised:.1f} seconds are promised, {seconds:.1f} are there. "
            f"Copy it again."
        )


def _check_riff(what: str, path: Path) -> None:
    """Raise where a WAV or AVI is shorter than it says; FFmpeg reads what is there and says nothing."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[:4] != b"RIFF":
        return
    promised, size = int.from_bytes(head[4:8], "little") + 8, path.stat().st_size
    # Who writes into a pipe cannot know the size, and puts the largest there is.
    if size < 0.99 * promised and promised < 2**31 - 2**16:
        raise MediaError(
            f"{what} '{path}' is cut short: {promised:,} bytes are promised, {size:,} are there. Copy it again."
        )


def _unreadable(what: str, path: Path, error: Exception) -> MediaError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return MediaError(
        f"{what} '{path}' cannot be read: {reason}. Check that the file is whole and is a {what}; encode it again, "
        f"or empty the column that names it."
    )
