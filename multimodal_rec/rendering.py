"""Pictures, sounds and videos that each carry one planted trait, for the sample catalogues.

A picture or a video carries a hue; a sound carries a tempo and a brightness. Everything else about them (layout,
shapes, melody, loudness, motion, noise) is nuisance drawn from `rng`. The same state of `rng` gives the same bytes
on the same machine and versions.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.container import OutputContainer
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from multimodal_rec.drawing import (
    FORMS,
    SOLID_FORMS,
    Palette,
    add_grain,
    draw_backdrop,
    draw_object,
    draw_pattern,
    draw_shape,
    draw_silhouette,
    pick_shape,
)
from towers.inputs import Sound

PictureStyle = Literal["cover", "product", "poster"]

SLOWEST_PULSES_PER_SECOND, FASTEST_PULSES_PER_SECOND = 1.5, 8.0
"""How many notes a second tempo 0 and tempo 1 stand for."""
DARKEST_CUTOFF_HZ, BRIGHTEST_CUTOFF_HZ = 250.0, 5000.0

"""Where the low-pass sits at brightness 0 and at brightness 1."""

_OVERSAMPLING = 2
_SCALES = ((0, 2, 4, 7, 9), (0, 3, 5, 7, 10), (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10))
_SOUND_CODECS = {".wav": "pcm_s16le", ".flac": "flac", ".ogg": "vorbis"}


def draw_picture(
    hue: float, *, rng: np.random.Generator, size_px: int = 96, style: PictureStyle = "cover"
) -> Image.Image:
    """An RGB picture whose coloured area is mostly of one hue.

    `hue`: in [0, 1), circular (0 red, 1/3 green, 2/3 blue). `size_px`: the longer side; a `poster` is two thirds as
    wide as high, a `cover` fills its square with a pattern, a `product` shows one object before a neutral wall.
    Raises `ValueError` for another style.
    """
    if style not in ("cover", "product", "poster"):
        raise ValueError(f"picture style '{style}' is unknown. Expected 'cover', 'product' or 'poster'.")
    height = size_px * _OVERSAMPLING
    width = round(height * 2 / 3) if style == "poster" else height
    palette = Palette(hue, float(rng.random()))
    on_main = style != "product" and rng.random() < 0.6
    canvas = draw_backdrop(palette.main(rng) if on_main else palette.neutral(rng), (width, height), rng)
    pen = ImageDraw.Draw(canvas)
    if style == "product":
        draw_object(pen, palette, width, rng)
    else:
        draw_pattern(pen, palette, (width, height), on_main, rng)
        if style == "poster" or rng.random() < 0.5:
            draw_silhouette(pen, palette, (width, height), rng)
    canvas = canvas.resize((width // _OVERSAMPLING, height // _OVERSAMPLING), Image.Resampling.BOX)
    return add_grain(canvas, rng)


def write_picture(path: Path, image: Image.Image) -> None:
    """Write `image` as JPEG (quality 88) or PNG, by the suffix. Raises `ValueError` for another suffix."""
    suffix = path.suffix.lower()
    if suffix in (".jpg", ".jpeg"):
        image.save(path, format="JPEG", quality=88)
    elif suffix == ".png":
        image.save(path, format="PNG")
    else:
        raise ValueError(f"{path.name}: pictures are written as .jpg, .jpeg or .png, not '{suffix}'.")


def synthesise_sound(
    tempo: float, brightness: float, *, rng: np.random.Generator, seconds: float = 3.5, sample_rate_hz: int = 16_000
) -> Sound:
    """A melody with a planted pulse and timbre: samples (1 or 2, time) float32 in [-1, 1].

    `tempo` in [0, 1]: from 1.5 to 8 notes a second, evenly in the logarithm. `brightness` in [0, 1]: a low-pass
    over the notes' harmonics with its cutoff from 250 to 5000 Hz, evenly in the logarithm. Key, scale, melody,
    accents, rests, loudness, stereo and a little noise are drawn from `rng`.
    """
    pulse_hz = SLOWEST_PULSES_PER_SECOND * (FASTEST_PULSES_PER_SECOND / SLOWEST_PULSES_PER_SECOND) ** tempo
    cutoff_hz = DARKEST_CUTOFF_HZ * (BRIGHTEST_CUTOFF_HZ / DARKEST_CUTOFF_HZ) ** brightness
    num_samples = round(seconds * sample_rate_hz)
    root_hz = 110.0 * 2 ** rng.uniform(0, 1)
    scale = _SCALES[rng.integers(len(_SCALES))]
    harmonic_phases = rng.uniform(0, 2 * np.pi, 64)
    decay_seconds = rng.uniform(0.25, 0.45) / pulse_hz
    mono = np.zeros(num_samples, dtype=np.float64)
    start_seconds = rng.uniform(0, 0.6) / pulse_hz
    degree = int(rng.integers(len(scale)))
    while start_seconds < seconds:
        degree = int(np.clip(degree + rng.integers(-2, 3), 0, 2 * len(scale) - 1))
        pitch_hz = root_hz * 2 ** ((scale[degree % len(scale)] + 12 * (degree // len(scale))) / 12)
        accent = rng.uniform(0.6, 1.0)
        first = max(0, round((start_seconds + rng.normal(0, 0.02) / pulse_hz) * sample_rate_hz))
        if rng.random() > 0.06:  # else a rest
            length = min(num_samples - first, round(1.2 / pulse_hz * sample_rate_hz))
            mono[first : first + length] += accent * _play_note(
                pitch_hz,
                length,
                sample_rate_hz,
                cutoff_hz=cutoff_hz,
                decay_seconds=decay_seconds,
                harmonic_phases=harmonic_phases,
            )
        start_seconds += 1 / pulse_hz
    channels = mono[None]
    if rng.random() < 0.5:
        pan, delay = rng.uniform(0.25, 0.75), int(rng.integers(0, 12))
        channels = np.stack([mono * math.sqrt(1 - pan), np.roll(mono, delay) * math.sqrt(pan)])
    loudness = rng.uniform(0.15, 0.85)
    channels = channels * (loudness / max(1e-9, float(np.abs(channels).max())))
    channels = channels + rng.normal(0, loudness * rng.uniform(0.0005, 0.003), channels.shape)
    return Sound(np.clip(channels, -1, 1).astype(np.float32), sample_rate_hz)


def write_sound(path: Path, sound: Sound) -> None:
    """Write `sound` as WAV, FLAC (both 16 bit) or Ogg Vorbis, by the suffix; Vorbis is always written in stereo.

    Raises `ValueError` for another suffix.
    """
    codec = _SOUND_CODECS.get(path.suffix.lower())
    if codec is None:
        raise ValueError(f"{path.name}: sounds are written as {', '.join(_SOUND_CODECS)}, not '{path.suffix}'.")
    with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as container:
        packets = _encode_sound(container, sound, codec)
        container.mux(packets)


def write_video(
    path: Path,
    hue: float,
    *,
    soundtrack: Sound | None,
    rng: np.random.Generator,
    seconds: float = 3.0,
    size_px: int = 96,
    frames_per_second: int = 6,
) -> None:
    """Write an MP4 (H.264, AAC) of shapes that move through a scene whose coloured area is mostly of one hue.

    `hue` as in `draw_picture`. `size_px`: width and height, even (4:2:0 halves both). `soundtrack` is cut to
    `seconds` and mixed to mono; None writes a silent film without a sound stream. Raises `ValueError` for another
    suffix or an odd size.
    """
    if path.suffix.lower() != ".mp4" or size_px % 2:
        raise ValueError(f"{path.name} at {size_px} px: videos are written as .mp4, with an even number of pixels.")
    options = {"fflags": "+bitexact", "movflags": "+faststart"}
    with av.open(str(path), "w", container_options=options) as container:
        stream = container.add_stream("libx264", rate=frames_per_second)
        stream.width = stream.height = size_px
        stream.pix_fmt = "yuv420p"
        # On some processors x264's assembly looks ahead differently from run to run: of the same frames half the films
        # came out in other bytes. In plain C they do not, for some hundredths of a second a film.
        stream.options = {"preset": "veryfast", "crf": "23", "threads": "1", "x264-params": "asm=0"}
        stream.codec_context.flags |= Flags.bitexact
        packets = []
        sound = None
        if soundtrack is not None:
            num_samples = round(seconds * soundtrack.sample_rate_hz)
            mono = soundtrack.samples[:, :num_samples].mean(axis=0, keepdims=True)
            sound = Sound(mono, soundtrack.sample_rate_hz)
            packets += _encode_sound(container, sound, "aac")
        for pixels in _film_scene(hue, round(seconds * frames_per_second), size_px, rng):
            packets += stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
        packets += stream.encode(None)
        # In order of time, so that a player which reads from the start finds sound and picture side by side.
        container.mux(sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base))


def _play_note(
    pitch_hz: float,
    num_samples: int,
    sample_rate_hz: int,
    *,
    cutoff_hz: float,
    decay_seconds: float,
    harmonic_phases: NDArray[np.float64],
) -> NDArray[np.float64]:
    """One plucked note: harmonics below Nyquist behind a two-pole low-pass, read from a table of one period."""
    num_harmonics = min(len(harmonic_phases), int(0.45 * sample_rate_hz / pitch_hz))
    harmonics = np.arange(1, num_harmonics + 1)
    amplitudes = harmonics**-0.5 / (1 + (harmonics * pitch_hz / cutoff_hz) ** 2)
    table_size = 1024
    spectrum = np.zeros(table_size // 2 + 1, dtype=np.complex128)
    spectrum[1 : num_harmonics + 1] = amplitudes * np.exp(1j * harmonic_phases[:num_harmonics])
    table = np.fft.irfft(spectrum)
    table /= np.sqrt(np.mean(table**2))
    seconds = np.arange(num_samples) / sample_rate_hz
    position = (pitch_hz * seconds % 1.0) * table_size
    wave = table[position.astype(np.int64) % table_size]
    return wave * np.minimum(1, seconds / 0.005) * np.exp(-seconds / decay_seconds)


def _film_scene(hue: float, num_frames: int, size_px: int, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """The frames of one scene, (row, column, RGB): shapes bouncing over a backdrop, seen by a camera that drifts."""
    palette = Palette(hue, float(rng.random()))
    on_main = rng.random() < 0.6
    # One plate of grain, seen from another place in each frame: noise drawn anew would take most of the time.
    plate = rng.normal(0, rng.uniform(1, 6), (2 * size_px, 2 * size_px, 1)).astype(np.int16)
    margin = size_px // 4
    world = size_px + 2 * margin
    backdrop = draw_backdrop(palette.main(rng) if on_main else palette.neutral(rng), (world, world), rng)
    num_shapes = int(rng.integers(4, 9))
    centres = rng.uniform(0.1, 0.9, (num_shapes, 2)) * (world - margin)
    steps = rng.normal(0, 1, (num_shapes, 2)) * size_px * rng.uniform(0.01, 0.05)
    spins = rng.normal(0, 0.15, num_shapes)
    shapes = []
    for index in range(num_shapes):
        # The last is drawn in front: over a neutral backdrop it keeps the planted hue in view, as in a picture.
        in_front = not on_main and index == num_shapes - 1
        main = in_front or rng.random() < (0.3 if on_main else 0.8)
        smallest, largest = (0.18, 0.28) if in_front else (0.06, 0.15 if on_main else 0.26)
        colour = palette.main(rng) if main else palette.other(rng)
        forms = SOLID_FORMS if in_front else FORMS
        shapes.append(pick_shape(forms, size_px * rng.uniform(smallest, largest), colour, rng))
    drift = rng.uniform(-1, 1, 2) * margin
    frames = []
    for frame in range(num_frames):
        canvas = backdrop.copy()
        pen = ImageDraw.Draw(canvas)
        for index, shape in enumerate(shapes):
            x, y = margin / 2 + _bounce(centres[index] + frame * steps[index], world - margin)
            turned = shape._replace(angle=shape.angle + frame * spins[index])
            draw_shape(pen, turned, (float(x), float(y)))
        left, top = margin + drift * (frame / max(1, num_frames - 1) - 0.5)
        canvas = canvas.crop((round(left), round(top), round(left) + size_px, round(top) + size_px))
        row, column = rng.integers(0, size_px, 2)
        grain = plate[row : row + size_px, column : column + size_px]
        frames.append(np.clip(np.asarray(canvas) + grain, 0, 255).astype(np.uint8))
    return frames


def _bounce(position: NDArray[np.float64], extent: float) -> NDArray[np.float64]:
    """`position` folded back into [0, extent] as if reflected by the walls."""
    return extent - np.abs(position % (2 * extent) - extent)


def _encode_sound(container: OutputContainer, sound: Sound, codec: str) -> list[av.Packet]:
    samples = sound.samples
    if codec == "vorbis" and len(samples) == 1:  # FFmpeg's own Vorbis encoder knows stereo only.
        samples = np.repeat(samples, 2, axis=0)
    layout = "stereo" if len(samples) == 2 else "mono"
    stream = cast(AudioStream, container.add_stream(codec, rate=sound.sample_rate_hz))
    if codec == "vorbis":  # FFmpeg counts its own as experimental.
        stream.options = {"strict": "-2"}
    elif codec == "aac":  # The default coder's search would take most of the time that a film costs.
        stream.options = {"aac_coder": "fast"}
    stream.layout = layout
    stream.codec_context.flags |= Flags.bitexact
    if codec in ("pcm_s16le", "flac"):
        stream.format = "s16"
        whole = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(whole.T).reshape(1, -1), format="s16", layout=layout)
    else:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
    frame.sample_rate = sound.sample_rate_hz
    frame.pts = 0
    return [*stream.encode(frame), *stream.encode(None)]
