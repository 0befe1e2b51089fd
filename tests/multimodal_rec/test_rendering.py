from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from multimodal_rec.rendering import draw_picture, synthesise_sound, write_picture, write_sound, write_video
from towers.inputs import Sound

HUES = np.arange(24) / 24


def mean_hue(image: Image.Image) -> float:
    """The angle of the mean colour, weighted by how colourful each pixel is."""
    hue, saturation, value = np.moveaxis(np.asarray(image.convert("HSV"), dtype=np.float64) / 255, -1, 0)
    weight = saturation * value * (saturation > 0.2)
    return float(np.angle((weight * np.exp(2j * np.pi * hue)).sum()) / (2 * np.pi) % 1)


def hue_error(found: float, planted: float) -> float:
    return abs((found - planted + 0.5) % 1 - 0.5)


def decode_mono(path: Path) -> np.ndarray:
    resampler = av.AudioResampler("fltp", layout="mono", rate=16_000)
    with av.open(str(path)) as container:
        parts = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    parts += resampler.resample(None)
    return np.concatenate([part.to_ndarray()[0] for part in parts])


def spectral_centroid_hz(samples: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    return float((power * np.fft.rfftfreq(len(samples), 1 / 16_000)).sum() / power.sum())


def onsets_per_second(samples: np.ndarray) -> float:
    envelope = np.sqrt(np.convolve(samples**2, np.ones(160) / 160, "same"))[::160]
    rise = np.maximum(0, np.diff(np.log(envelope + 0.05 * envelope.max())))
    peaks = (rise[1:-1] > rise[:-2]) & (rise[1:-1] >= rise[2:]) & (rise[1:-1] > 0.25 * rise.max())
    return float(peaks.sum() / (len(samples) / 16_000))


@pytest.mark.parametrize(("style", "suffix"), [("cover", ".jpg"), ("product", ".png"), ("poster", ".jpeg")])
def test_the_hue_of_a_picture_can_be_read_from_its_file(tmp_path, style, suffix):
    errors = []
    for seed, hue in enumerate(HUES):
        path = tmp_path / f"{seed}{suffix}"
        write_picture(path, draw_picture(hue, rng=np.random.default_rng(seed), style=style))
        with Image.open(path) as image:
            assert image.mode == "RGB"
            assert max(image.size) == 96
            errors.append(hue_error(mean_hue(image), hue))
    assert np.mean(errors) < 0.03
    assert max(errors) < 0.1


def test_pictures_of_one_hue_differ():
    pictures = {draw_picture(0.5, rng=np.random.default_rng(seed)).tobytes() for seed in range(8)}
    assert len(pictures) == 8


def test_size_of_a_picture():
    rng = np.random.default_rng(0)
    assert draw_picture(0.1, rng=rng, size_px=64).size == (64, 64)
    assert draw_picture(0.1, rng=rng, size_px=60, style="poster").size == (40, 60)


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory) -> list[tuple[float, float, Path]]:
    """Tempo, brightness and file of 36 sounds in all three formats."""
    folder = tmp_path_factory.mktemp("sounds")
    traits = np.random.default_rng(0).random((36, 2)).tolist()
    files = []
    for seed, (tempo, brightness) in enumerate(traits):
        path = folder / f"{seed}{('.wav', '.flac', '.ogg')[seed % 3]}"
        write_sound(path, synthesise_sound(tempo, brightness, rng=np.random.default_rng(seed)))
        files.append((tempo, brightness, path))
    return files


def test_tempo_and_brightness_can_be_read_from_sound_files(sound_files):
    tempo, brightness, paths = zip(*sound_files, strict=True)
    sounds = [decode_mono(path) for path in paths]
    centroids = np.log([spectral_centroid_hz(samples) for samples in sounds])
    rates = np.log([onsets_per_second(samples) for samples in sounds])
    assert np.corrcoef(brightness, centroids)[0, 1] > 0.8
    assert np.corrcoef(tempo, rates)[0, 1] > 0.8
    # Neither trait may tell the other.
    assert abs(np.corrcoef(tempo, centroids)[0, 1] - np.corrcoef(tempo, brightness)[0, 1]) < 0.3


def test_tempo_runs_from_one_and_a_half_to_eight_notes_a_second():
    def rate(tempo: float) -> float:
        generators = [np.random.default_rng(seed) for seed in range(5)]
        sounds = [synthesise_sound(tempo, 0.5, rng=rng, seconds=6) for rng in generators]
        return float(np.median([onsets_per_second(sound.samples[0]) for sound in sounds]))

    assert rate(0.0) == pytest.approx(1.5, abs=0.4)
    assert rate(1.0) == pytest.approx(8.0, abs=1.5)


def test_sounds_are_float32_within_full_scale_and_of_both_layouts():
    sounds = [synthesise_sound(0.5, 0.5, rng=np.random.default_rng(seed)) for seed in range(12)]
    assert {sound.samples.shape for sound in sounds} == {(1, 56_000), (2, 56_000)}
    assert all(sound.samples.dtype == np.float32 and np.abs(sound.samples).max() <= 1 for sound in sounds)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_lossless_files_give_back_what_was_written(tmp_path, suffix):
    ramp = np.stack([np.linspace(-1, 1, 4000), np.linspace(0.5, -0.5, 4000)]).astype(np.float32)
    write_sound(tmp_path / f"ramp{suffix}", Sound(ramp, 8_000))
    with av.open(str(tmp_path / f"ramp{suffix}")) as container:
        assert container.streams.audio[0].rate == 8_000
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    back = np.concatenate(frames, axis=1).reshape(-1, 2).T / 32_767
    np.testing.assert_allclose(back, ramp, atol=1 / 32_767)


def test_the_hue_of_a_video_can_be_read_from_its_file(tmp_path):
    errors = []
    for seed, hue in enumerate(HUES[::3]):
        path = tmp_path / f"{seed}.mp4"
        write_video(path, hue, soundtrack=None, rng=np.random.default_rng(seed), seconds=1.5)
        with av.open(str(path)) as container:
            angles = [2j * np.pi * mean_hue(frame.to_image()) for frame in container.decode(video=0)]
        errors.append(hue_error(float(np.angle(np.exp(angles).mean()) / (2 * np.pi)), hue))
    assert np.mean(errors) < 0.03
    assert max(errors) < 0.08


def test_a_video_plays_in_browsers_and_keeps_its_soundtrack(tmp_path):
    rng = np.random.default_rng(0)
    soundtrack = synthesise_sound(0.5, 0.9, rng=rng)
    path = tmp_path / "clip.mp4"
    write_video(path, 0.3, soundtrack=soundtrack, rng=rng)
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (audio.codec_context.name, audio.codec_context.channels) == ("aac", 1)
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx([index / 6 for index in range(18)])
    assert not np.array_equal(frames[0].to_ndarray(), frames[-1].to_ndarray())
    # Faststart: the index comes before the data, so that playing starts before everything is loaded.
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    heard = decode_mono(path)
    assert len(heard) / 16_000 == pytest.approx(3.0, abs=0.2)
    expected = spectral_centroid_hz(soundtrack.samples.mean(axis=0))
    assert spectral_centroid_hz(heard) == pytest.approx(expected, rel=0.1)


def test_a_silent_video_has_no_sound_stream(tmp_path):
    write_video(tmp_path / "clip.mp4", 0.3, soundtrack=None, rng=np.random.default_rng(0), seconds=0.5)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert len(container.streams.audio) == 0


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    def render(name: str, seed: int) -> dict[str, bytes]:
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(seed)
        for suffix in (".jpg", ".png"):
            write_picture(folder / f"picture{suffix}", draw_picture(0.2, rng=rng))
        sound = synthesise_sound(0.3, 0.6, rng=rng)
        for suffix in (".wav", ".flac", ".ogg"):
            write_sound(folder / f"sound{suffix}", sound)
        write_video(folder / "clip.mp4", 0.7, soundtrack=sound, rng=rng, seconds=1.0)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first, again, other = render("first", 7), render("again", 7), render("other", 8)
    assert len(first) == 6
    assert first == again
    assert all(first[name] != other[name] for name in first)


def test_messages():
    rng = np.random.default_rng(0)
    sound = Sound(np.zeros((1, 100), dtype=np.float32), 16_000)
    with pytest.raises(ValueError, match=r"style 'collage' is unknown. Expected 'cover', 'product' or 'poster'"):
        draw_picture(0.0, rng=rng, style="collage")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"a.gif: pictures are written as .jpg, .jpeg or .png, not '.gif'"):
        write_picture(Path("a.gif"), Image.new("RGB", (4, 4)))
    with pytest.raises(ValueError, match=r"a.mp3: sounds are written as .wav, .flac, .ogg, not '.mp3'"):
        write_sound(Path("a.mp3"), sound)
    with pytest.raises(ValueError, match=r"a.avi at 96 px: videos are written as .mp4"):
        write_video(Path("a.avi"), 0.0, soundtrack=None, rng=rng)
    with pytest.raises(ValueError, match=r"a.mp4 at 63 px: .* even number of pixels"):
        write_video(Path("a.mp4"), 0.0, soundtrack=None, rng=rng, size_px=63)
