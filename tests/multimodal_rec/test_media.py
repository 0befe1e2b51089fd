"""Decoding real files: what comes out is what was put in, and broken files say so."""

from __future__ import annotations

import struct
import tracemalloc
import wave
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from multimodal_rec import media
from multimodal_rec.errors import MediaError
from multimodal_rec.media import has_sound, read_frames, read_image, read_sound, read_video, read_video_sound


def write_wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    """16-bit PCM of (channel, time)."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples.T * 32767).round().astype("<i2").tobytes())
    return path


def sine(hz: float, seconds: float, rate: int = 16_000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate))[None].astype(np.float32)


def write_coded(path: Path, codec: str, samples: np.ndarray, rate: int = 16_000, *, layout: str = "mono") -> Path:
    """(channel, time) in another coding; `codec` may name the sample format behind a colon."""
    codec, _, sample_format = codec.partition(":")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if sample_format:
            stream.format = sample_format
        encode_sound(container, stream, samples, rate)
    return path


def write_video(
    path: Path, num_frames: int, *, sound: np.ndarray | None = None, codec: str = "mpeg4", faststart: bool = False
) -> Path:
    """Frames whose grey rises from 0 by 8 a frame, ten a second, with or without a soundtrack."""
    return write_film(
        path, [(8 * index,) * 3 for index in range(num_frames)], sound=sound, codec=codec, first=faststart
    )


def write_film(
    path: Path,
    colours: Sequence[tuple[int, int, int]],
    *,
    sound: np.ndarray | None = None,
    codec: str = "mpeg4",
    first: bool = False,
    rotation: int = 0,
) -> Path:
    """A frame of each colour, ten a second; `first` writes an MP4's index before its frames."""
    with av.open(str(path), "w", options={"movflags": "+faststart"} if first else {}) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        track = None if sound is None else container.add_stream("aac", rate=16_000, layout="mono")
        for colour in colours:
            values = np.empty((48, 64, 3), np.uint8)
            values[:] = np.array(colour, np.int64).clip(0, 255)
            if rotation:  # A white corner at the upper left says which way is up.
                values[:24, :32] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgb24")))
        container.mux(stream.encode(None))
        if track is not None and sound is not None:
            encode_sound(container, track, sound, 16_000)
    return path


def write_bomb(path: Path, width: int, height: int) -> Path:
    """A whole PNG of one bit a pixel, all black, in a few kilobytes."""
    packer = zlib.compressobj(9)
    row = b"\0" * (1 + (width + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    pieces = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(pieces))
    return path


def encode_sound(container: av.container.OutputContainer, stream: object, samples: np.ndarray, rate: int) -> None:
    """Encode (channel, time) into a stream of an open file."""
    assert isinstance(stream, av.AudioStream)
    layout = stream.layout.name
    resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    fifo = av.AudioFifo()
    for piece in resampler.resample(frame):
        fifo.write(piece)
    size = stream.frame_size or 1024
    while (piece := fifo.read(size, partial=True)) is not None:
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_pictures_of_every_format_come_out_rgb(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (30, 20), (200, 40, 90)).save(tmp_path / f"p.{suffix}")
    image = read_image(tmp_path / f"p.{suffix}")
    assert (image.mode, image.size) == ("RGB", (30, 20))
    np.testing.assert_allclose(np.asarray(image)[5, 5], (200, 40, 90), atol=6)


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("LA", (4, 4), (0, 128)).save(tmp_path / "half.png")
    assert np.asarray(read_image(tmp_path / "clear.png")).min() == 255
    assert abs(int(np.asarray(read_image(tmp_path / "half.png"))[0, 0, 0]) - 127) <= 1
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "palette.png", transparency=0)
    assert np.asarray(read_image(tmp_path / "palette.png")).min() == 255
    # One byte of transparency a colour, which Pillow warns of.
    palette.save(tmp_path / "bytes.png", transparency=bytes([0, 255]))
    assert np.asarray(read_image(tmp_path / "bytes.png")).min() == 255


def test_odd_colour_spaces_and_depths(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "cmyk.jpg")
    assert np.asarray(read_image(tmp_path / "cmyk.jpg")).min() > 250
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "deep.png")
    np.testing.assert_allclose(np.asarray(read_image(tmp_path / "deep.png")), 128, atol=1)
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "cyan.jpg")
    np.testing.assert_allclose(np.asarray(read_image(tmp_path / "cyan.jpg"))[4, 4], (0, 255, 255), atol=8)
    for mode, colour in (("1", 1), ("L", 255), ("YCbCr", (255, 128, 128))):
        Image.new(mode, (4, 4), colour).save(tmp_path / f"{mode}.tiff")
        np.testing.assert_allclose(np.asarray(read_image(tmp_path / f"{mode}.tiff")), 255, atol=2)


def test_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (20, 30)


def test_the_smallest_picture_and_the_first_of_a_moving_one(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (10, 20, 30)).save(tmp_path / "dot.png")
    assert read_image(tmp_path / "dot.png").getpixel((0, 0)) == (10, 20, 30)
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    pictures[0].save(tmp_path / "moving.gif", save_all=True, append_images=pictures[1:], duration=100)
    assert read_image(tmp_path / "moving.gif").getpixel((4, 4)) == (250, 0, 0)
    greens = [np.asarray(image)[4, 4, 1] for image in read_frames(tmp_path / "moving.gif", num_frames=3).images]
    assert greens[0] < 20
    assert greens[1] > 200


def test_a_png_that_is_called_jpg_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4), (1, 2, 3)).save(tmp_path / "p.png")
    (tmp_path / "p.png").rename(tmp_path / "p.jpg")
    assert read_image(tmp_path / "p.jpg").getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (9_000, 9_000)])
def test_too_many_pixels_are_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    bomb = write_bomb(tmp_path / "bomb.png", width, height)
    assert bomb.stat().st_size < 200_000
    with Image.open(write_bomb(tmp_path / "small.png", 30, 20)) as small:
        small.load()  # The file itself is sound.
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("it was decoded"))
    tracemalloc.start()
    with pytest.raises(MediaError, match=r"picture '.*bomb\.png' has .* pixels\. Expected at most 64,000,000"):
        read_image(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_broken_pictures_say_what_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match=r"media file '.*gone\.jpg' does not exist\. Put it there"):
        read_image(tmp_path / "gone.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(MediaError, match=r"empty\.jpg' is empty \(0 bytes\)"):
        read_image(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.raises(MediaError, match=r"picture '.*text\.jpg' cannot be read"):
        read_image(tmp_path / "text.jpg")
    (tmp_path / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(MediaError, match=r"script\.eps' cannot be read"):
        read_image(tmp_path / "script.eps")
    Image.effect_noise((200, 200), 50).convert("RGB").save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    with pytest.raises(MediaError, match=r"cut\.jpg' cannot be read.*encode it again"):
        read_image(tmp_path / "cut.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    Image.effect_noise((200, 200), 50).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:9000])
    with pytest.raises(MediaError, match=r"cut\.png' cannot be read.*encode it again"):
        read_image(tmp_path / "cut.png")
    (tmp_path / "gap.jpg").write_bytes(whole[:20] + b"\0" * 600 + whole[620:])
    with pytest.raises(MediaError, match=r"gap\.jpg' cannot be read"):
        read_image(tmp_path / "gap.jpg")
    with pytest.raises(MediaError, match=r"cannot be read: .*name too long"):
        read_image("a" * 5000 + ".png")
    with pytest.raises(MediaError, match="does not exist"):
        read_image("a\0b.png")
    monkeypatch.setattr(media, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(MediaError, match=r"has 200 x 200 pixels\. Expected at most 100"):
        read_image(tmp_path / "whole.jpg")


def test_wav_comes_out_sample_by_sample(tmp_path: Path) -> None:
    stereo = np.concatenate([sine(440, 0.5), sine(220, 0.5)])
    sound = read_sound(write_wav(tmp_path / "s.wav", stereo))
    assert sound.sample_rate_hz == 16_000
    assert sound.samples.dtype == np.float32
    np.testing.assert_allclose(sound.samples, stereo, atol=1e-4)
    assert read_sound(tmp_path / "s.wav", max_seconds=0.1).samples.shape == (2, 1600)


@pytest.mark.parametrize(("suffix", "codec"), [("flac", "flac"), ("ogg", "libopus"), ("mp3", "libmp3lame")])
def test_compressed_sound_keeps_its_pitch(tmp_path: Path, suffix: str, codec: str) -> None:
    sound = read_sound(write_coded(tmp_path / f"s.{suffix}", codec, sine(440, 1.0)))
    assert sound.samples.shape[0] == 1
    assert abs(sound.samples.shape[1] / sound.sample_rate_hz - 1) < 0.15
    spectrum = np.abs(np.fft.rfft(sound.samples[0]))
    peak_hz = spectrum.argmax() * sound.sample_rate_hz / sound.samples.shape[1]
    assert abs(peak_hz - 440) < 3
    assert np.abs(sound.samples).max() <= 1


WAVES = [
    ("u8.wav", "pcm_u8", 8_000, "mono", 1e-2),
    ("s16.wav", "pcm_s16le", 22_050, "stereo", 1e-4),
    ("s24.wav", "pcm_s24le", 48_000, "5.1", 1e-6),
    ("float.wav", "pcm_f32le", 96_000, "stereo", 1e-6),
    ("double.wav", "pcm_f64le", 44_100, "mono", 1e-6),
    ("s16.flac", "flac:s16", 44_100, "stereo", 1e-4),
    ("s24.flac", "flac:s32", 96_000, "5.1", 1e-6),
    ("aiff.aiff", "pcm_s16be", 48_000, "mono", 1e-4),
]


@pytest.mark.parametrize("wave_format", WAVES, ids=lambda each: each[0])
def test_sound_of_every_depth_rate_and_layout_comes_out_as_it_was(
    tmp_path: Path, wave_format: tuple[str, str, int, str, float]
) -> None:
    name, codec, rate, layout, tolerance = wave_format
    count = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    samples = np.concatenate([sine(220 * (channel + 1), 0.2, rate) for channel in range(count)])
    sound = read_sound(write_coded(tmp_path / name, codec, samples, rate, layout=layout))
    assert sound.sample_rate_hz == rate
    assert sound.samples.shape == samples.shape
    np.testing.assert_allclose(sound.samples, samples, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout"),
    [
        ("a.mp3", "libmp3lame", 44_100, "stereo"),
        ("a.m4a", "aac", 48_000, "5.1"),
        ("a.ogg", "libopus", 48_000, "stereo"),
    ],
)
def test_lossy_sound_keeps_its_rate_and_channels(tmp_path: Path, name: str, codec: str, rate: int, layout: str) -> None:
    count = {"stereo": 2, "5.1": 6}[layout]
    samples = np.concatenate([sine(440, 0.5, rate)] * count)
    sound = read_sound(write_coded(tmp_path / name, codec, samples, rate, layout=layout))
    assert sound.sample_rate_hz == rate
    assert sound.samples.shape[0] == count
    spectrum = np.abs(np.fft.rfft(sound.samples[0]))
    assert abs(spectrum.argmax() * rate / sound.samples.shape[1] - 440) < 5


def test_more_channels_than_any_loudspeaker_has(tmp_path: Path) -> None:
    samples = np.concatenate([sine(100 * (channel + 1), 0.1) for channel in range(12)])
    sound = read_sound(write_wav(tmp_path / "many.wav", samples))
    np.testing.assert_allclose(sound.samples, samples, atol=1e-4)


def test_values_that_are_no_numbers_and_too_loud_ones_stay_in_range(tmp_path: Path) -> None:
    samples = np.array([[0.5, np.nan, np.inf, -np.inf, 3.0, -3.0, 0.25]], np.float32)
    sound = read_sound(write_coded(tmp_path / "f.wav", "pcm_f32le", samples))
    np.testing.assert_allclose(sound.samples, [[0.5, 0, 1, -1, 1, -1, 0.25]], atol=1e-6)


def test_a_title_in_another_encoding_is_no_fault(tmp_path: Path) -> None:
    whole = write_wav(tmp_path / "s.wav", sine(440, 0.1)).read_bytes()
    info = b"INFOINAM" + struct.pack("<I", 6) + "Café\0\0".encode("latin-1")[:6]
    data = whole + b"LIST" + struct.pack("<I", len(info)) + info
    (tmp_path / "titled.wav").write_bytes(b"RIFF" + struct.pack("<I", len(data) - 8) + data[8:])
    assert read_sound(tmp_path / "titled.wav").samples.shape == (1, 1600)


def test_sound_that_breaks_off_is_refused(tmp_path: Path) -> None:
    whole = write_wav(tmp_path / "s.wav", sine(440, 1.0)).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        MediaError, match=r"sound '.*cut\.wav' is cut short: 32,044 bytes are promised, 16,022 are there"
    ):
        read_sound(tmp_path / "cut.wav")
    # Written into a pipe, where nobody knows the length beforehand.
    piped = whole[:4] + b"\xff\xff\xff\xff" + whole[8:40] + b"\xff\xff\xff\xff" + whole[44:]
    (tmp_path / "piped.wav").write_bytes(piped)
    assert read_sound(tmp_path / "piped.wav").samples.shape == (1, 16_000)
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 160_000)).astype(np.float32)
    for name, codec in (("s.flac", "flac:s16"), ("s.m4a", "aac")):
        write_coded(tmp_path / name, codec, noise)
        assert read_sound(tmp_path / name).samples.shape[1] >= 160_000
        data = (tmp_path / name).read_bytes()
        (tmp_path / f"cut-{name}").write_bytes(data[: len(data) // 2])
        with pytest.raises(MediaError, match=rf"cut-{name}' (is cut short|cannot be read)"):
            read_sound(tmp_path / f"cut-{name}")
        # What comes before the break is all that was asked for where it is little; then FLAC does.
    assert read_sound(tmp_path / "cut-s.flac", max_seconds=1).samples.shape == (1, 16_000)


def test_sound_without_length_and_with_an_impossible_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match=r"sound '.*nothing\.wav' (is of zero length|cannot be read)"):
        read_sound(write_wav(tmp_path / "nothing.wav", np.zeros((1, 0), np.float32)))
    with pytest.raises(MediaError, match=r"fast\.wav' claims 1,000,000 samples a second\. Expected at most 768,000"):
        read_sound(write_wav(tmp_path / "fast.wav", sine(440, 0.1), 1_000_000))


def test_soundtrack_is_optional(tmp_path: Path) -> None:
    silent, loud = write_video(tmp_path / "a.mp4", 5), write_video(tmp_path / "b.mp4", 5, sound=sine(440, 0.5))
    assert (has_sound(silent), has_sound(loud)) == (False, True)
    assert read_video(silent, num_frames=2)[1] is None
    assert read_video_sound(silent) is None
    assert read_sound(loud).samples.shape[1] > 7000
    with pytest.raises(MediaError, match=r"a\.mp4' has no sound in it"):
        read_sound(silent)


def test_broken_sounds_and_videos_say_what_and_where(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not a sound")
    with pytest.raises(MediaError, match=r"sound '.*text\.wav' cannot be read: .*Check that the file is whole"):
        read_sound(tmp_path / "text.wav")
    with pytest.raises(MediaError, match=r"gone\.mp4' does not exist"):
        read_video(tmp_path / "gone.mp4", num_frames=4)
    with pytest.raises(MediaError, match=r"s\.wav' has no pictures in it\. Expected a video"):
        read_frames(write_wav(tmp_path / "s.wav", sine(440, 0.1)), num_frames=4)
    write_video(tmp_path / "v.mp4", 20)
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "v.mp4").read_bytes()[:300])
    with pytest.raises(MediaError, match=r"video '.*cut\.mp4' cannot be read"):
        read_frames(tmp_path / "cut.mp4", num_frames=4)


def test_a_playlist_fetches_nothing(tmp_path: Path) -> None:
    secret = write_coded(tmp_path / "secret.mp3", "libmp3lame", sine(440, 1.0))
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/{secret.name}\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(MediaError, match=r"list\.m3u8'"):
        read_sound(playlist)
