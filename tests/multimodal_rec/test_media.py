"""Decoding real files: what comes out is what was put in, and broken files say so."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

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


def write_coded(path: Path, codec: str, samples: np.ndarray, rate: int = 16_000) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        _encode_sound(container, stream, samples, rate)
    return path


def write_video(path: Path, num_frames: int, *, sound: np.ndarray | None = None) -> Path:
    """Frames whose grey rises from 0 by 8 a frame, ten a second, with or without a soundtrack."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        track = None if sound is None else container.add_stream("aac", rate=16_000, layout="mono")
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * index, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None and sound is not None:
            _encode_sound(container, track, sound, 16_000)
    return path


def _encode_sound(container: av.container.OutputContainer, stream: object, samples: np.ndarray, rate: int) -> None:
    assert isinstance(stream, av.AudioStream)
    resampler = av.AudioResampler(format=stream.format.name, layout="mono", rate=rate)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
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


def test_odd_colour_spaces_and_depths(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "cmyk.jpg")
    assert np.asarray(read_image(tmp_path / "cmyk.jpg")).min() > 250
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "deep.png")
    np.testing.assert_allclose(np.asarray(read_image(tmp_path / "deep.png")), 128, atol=1)


def test_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (20, 30)


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


def test_video_frames_are_spread_from_first_to_last(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 25, sound=sine(440, 2.5))
    frames, sound = read_video(path, num_frames=4)
    greys = [float(np.asarray(image).mean()) for image in frames.images]
    np.testing.assert_allclose(greys, [0, 64, 128, 192], atol=6)
    np.testing.assert_allclose(frames.seconds, [0, 0.8, 1.6, 2.4], atol=0.05)
    assert all(image.mode == "RGB" and image.size == (64, 48) for image in frames.images)
    assert sound is not None
    assert 2.3 < sound.samples.shape[1] / sound.sample_rate_hz < 2.8
    assert [len(read_frames(path, num_frames=count).images) for count in (1, 2, 3, 24, 25, 99)] == [1, 2, 3, 24, 25, 25]


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
