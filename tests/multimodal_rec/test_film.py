"""Films: which frames are looked at, which way is up, and what is no film."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from multimodal_rec import film, media
from multimodal_rec.errors import MediaError
from multimodal_rec.media import read_frames, read_sound, read_video
from tests.multimodal_rec.test_media import encode_sound, sine, write_coded, write_film, write_video


def test_what_is_no_sound_and_no_film_says_what_it_is(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "photo.jpg")
    for name in ("photo.wav", "photo.mp4"):
        (tmp_path / name).write_bytes((tmp_path / "photo.jpg").read_bytes())
    with pytest.raises(MediaError, match=r"photo\.wav' is a picture\. Expected a sound; mind the column"):
        read_sound(tmp_path / "photo.wav")
    with pytest.raises(MediaError, match=r"photo\.mp4' is a picture\. Expected a video; mind the column"):
        read_frames(tmp_path / "photo.mp4", num_frames=2)
    for name in ("text.mp4", "text.txt", "text.wav"):
        (tmp_path / name).write_text("It rains, and nobody films it.\n" * 200)
    with pytest.raises(MediaError, match=r"video '.*text\.mp4' cannot be read"):
        read_frames(tmp_path / "text.mp4", num_frames=2)
    # By its name FFmpeg would take it for the text of an old terminal, and film that.
    with pytest.raises(MediaError, match=r"text\.txt' is a text\. Expected a video"):
        read_frames(tmp_path / "text.txt", num_frames=2)
    # A sound that is called a video is one all the same, and so is the sound of a film.
    write_coded(tmp_path / "s.flac", "flac:s16", sine(440, 0.2)).rename(tmp_path / "s.mp4")
    assert read_sound(tmp_path / "s.mp4").samples.shape == (1, 3200)
    with pytest.raises(MediaError, match=r"s\.mp4' has no pictures in it\. Expected a video"):
        read_frames(tmp_path / "s.mp4", num_frames=2)


def test_an_albums_cover_is_no_film(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    Image.new("RGB", (32, 32), (200, 0, 0)).save(tmp_path / "cover.png")
    with av.open(str(path), "w", format="mp4") as container:
        track = container.add_stream("aac", rate=16_000, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "rgb24"
        cover.disposition = Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_image(Image.open(tmp_path / "cover.png"))))
        container.mux(cover.encode(None))
        encode_sound(container, track, sine(440, 0.5), 16_000)
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["audio", "video"]
    assert read_sound(path).samples.shape[0] == 1
    with pytest.raises(MediaError, match=r"song\.m4a' has no pictures in it"):
        read_frames(path, num_frames=2)


def test_films_that_break_off_or_have_no_frame_are_refused(tmp_path: Path) -> None:
    for codec in ("mpeg4", "libx264"):
        whole = write_video(tmp_path / "v.mp4", 25, codec=codec, faststart=True).read_bytes()
        assert len(read_frames(tmp_path / "v.mp4", num_frames=30).images) == 25
        (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 3 // 4])
        with pytest.raises(MediaError, match=r"cut\.mp4' (is cut short: 2\.5 seconds are promised|cannot be read)"):
            read_frames(tmp_path / "cut.mp4", num_frames=4)
        start = whole.index(b"mdat") + 4
        (tmp_path / "hollow.mp4").write_bytes(whole[:start] + b"\0" * (len(whole) - start))
        with pytest.raises(MediaError, match=r"hollow\.mp4' (has no frame that can be decoded|cannot be read)"):
            read_frames(tmp_path / "hollow.mp4", num_frames=4)


def test_films_of_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "v.mp4", 3)
    monkeypatch.setattr(media, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(MediaError, match=r"video '.*v\.mp4' has 64 x 48 pixels\. Expected at most 1,000"):
        read_frames(tmp_path / "v.mp4", num_frames=2)


@pytest.mark.parametrize(("rotation", "white"), [(90, (0, 1)), (-90, (1, 0)), (180, (1, 1))])
def test_films_are_upright(tmp_path: Path, rotation: int, white: tuple[int, int]) -> None:
    # Turned against the clock by 90 degrees, what was at the upper left is at the lower left.
    path = write_film(tmp_path / "r.mp4", [(0, 0, 0)] * 3, rotation=rotation)
    image = read_frames(path, num_frames=1).images[0]
    assert image.size == ((64, 48) if rotation == 180 else (48, 64))
    values = np.asarray(image.convert("L"))
    corners = {(x, y): values[-5 if y else 5, -5 if x else 5] for x in (0, 1) for y in (0, 1)}
    assert {place for place, grey in corners.items() if grey > 128} == {white}


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


RED, GREEN, BLUE, WHITE = (200, 0, 0), (0, 200, 0), (0, 0, 200), (250, 250, 250)


def test_scenes_begin_where_the_picture_changes(tmp_path: Path) -> None:
    path = write_film(tmp_path / "s.mp4", [RED] * 10 + [GREEN] * 3 + [BLUE] * 15 + [WHITE] * 2)
    frames = read_frames(path, num_frames=4, at="scenes")
    np.testing.assert_allclose(frames.seconds, [0, 1.0, 1.3, 2.8], atol=0.01)
    expected = (RED, GREEN, BLUE, WHITE)
    for image, colour in zip(frames.images, expected, strict=True):
        np.testing.assert_allclose(np.asarray(image)[24, 32], colour, atol=12)
    assert read_video(path, num_frames=4, at="scenes")[0].seconds == frames.seconds
    # Evenly spread frames miss the short ones.
    assert read_frames(path, num_frames=4).seconds != frames.seconds


def test_too_many_scenes_are_thinned_evenly(tmp_path: Path) -> None:
    # Scenes of different lengths: thinned by their number, not by the time.
    path = write_film(tmp_path / "s.mp4", ([RED] * 2 + [GREEN] + [BLUE] * 3) * 20)
    starts = [round(0.6 * turn + offset, 1) for turn in range(20) for offset in (0, 0.2, 0.3)]
    for count in (1, 2, 5, 7):
        found = read_frames(path, num_frames=count, at="scenes").seconds
        assert len(found) == count
        assert found[0] == 0
        assert {round(seconds, 1) for seconds in found} <= set(starts)
        ranks = [starts.index(round(seconds, 1)) for seconds in found]
        steps = np.diff(ranks)
        assert count < 3 or steps.max() <= 2.7 * steps.min()
        assert count < 3 or ranks[-1] == len(starts) - 1


def test_too_few_scenes_are_filled_up_where_the_gaps_are_widest(tmp_path: Path) -> None:
    path = write_film(tmp_path / "s.mp4", [RED] * 5 + [BLUE] * 36)
    assert [round(t, 1) for t in read_frames(path, num_frames=2, at="scenes").seconds] == [0, 0.5]
    four = read_frames(path, num_frames=4, at="scenes").seconds
    assert [round(t, 1) for t in four[:2]] == [0, 0.5]
    assert four[-1] == pytest.approx(4.0)
    assert 2.0 <= four[2] <= 2.5
    still = read_frames(write_film(tmp_path / "still.mp4", [RED] * 31), num_frames=4, at="scenes").seconds
    np.testing.assert_allclose(np.diff(still), 1.0, atol=0.5)
    short = read_frames(write_film(tmp_path / "short.mp4", [RED, BLUE]), num_frames=4, at="scenes")
    assert [round(t, 1) for t in short.seconds] == [0, 0.1]


def test_scenes_hold_few_frames_at_once(tmp_path: Path) -> None:
    alive, most = weakref.WeakSet(), 0

    class Watched:
        """A frame, counted while it is held."""

        duration, time_base, rotation = 1, Fraction(1, 10), 0

        def __init__(self, index: int) -> None:
            self.time = index / 10

    def frames() -> Iterator[Watched]:
        nonlocal most
        for index in range(3000):
            frame = Watched(index)
            alive.add(frame)
            yield frame
            most = max(most, len(alive))

    class EveryThird:
        def begins(self, frame: Watched) -> bool:
            return round(frame.time * 10) % 3 == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(film, "_SceneFilter", EveryThird)
        sampled = film.sample_frames(frames(), num_frames=4, at="scenes")  # pyright: ignore[reportArgumentType]
    assert len(sampled.frames) == 4
    assert sampled.end_seconds == pytest.approx(300)
    assert most <= 30


def test_another_way_to_choose_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"frames at 'random' are unknown\. Expected one of 'even', 'scenes'"):
        read_frames(write_video(tmp_path / "v.mp4", 3), num_frames=2, at="random")
