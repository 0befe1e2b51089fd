"""Which frames of a film are looked at: evenly spread ones, or the first of each scene."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from PIL import Image

FRAME_CHOICES = ("even", "scenes")
"""`even`: spread over the film's time; `scenes`: the first frame of each scene."""

# FFmpeg's measure of how much a frame differs from the one before it, 0 to 1; its manual takes 0.3 to 0.5 for a cut.
_SCENE_SCORE = 0.3


class Shown(NamedTuple):
    """A decoded frame and when it is shown."""

    seconds: float
    frame: VideoFrame


class Sampled(NamedTuple):
    """Frames of a film, in order."""

    frames: list[Shown]
    end_seconds: float | None
    """When the last frame of the film ends, None where the file does not say how long it is shown."""


def sample_frames(decoded: Iterable[VideoFrame], *, num_frames: int, at: str) -> Sampled:
    """At most `num_frames` of a film's frames, in one pass, holding only a few times as many decoded.

    `even`: spread from the first to the last. `scenes`: the first of each scene, the film's first among them; where
    there are too many scenes, evenly spread ones of them; where too few, the widest gaps between them are filled.
    """
    spread, cuts = _Thinned(num_frames), _Thinned(num_frames)
    scenes = _SceneFilter() if at == "scenes" else None
    last: VideoFrame | None = None
    for index, frame in enumerate(decoded):
        last = frame
        shown = Shown(float(index) if frame.time is None else float(frame.time), frame)
        spread.add(shown)
        if scenes is not None and scenes.begins(frame):
            cuts.add(shown)
    if last is None or spread.last is None:
        return Sampled([], None)
    end = None if not last.duration or last.time_base is None else float(last.duration * last.time_base)
    end_seconds = None if end is None else spread.last.seconds + end
    if scenes is None:
        return Sampled(spread.choose(num_frames, by_time=True), end_seconds)
    found = cuts.choose(num_frames, by_time=False)
    return Sampled(_filled(found, [shown for _, shown in spread.all()], num_frames), end_seconds)


def upright(frame: VideoFrame) -> Image.Image:
    """The frame as an RGB picture, turned as the file says: a telephone held upright films lying down."""
    image = frame.to_image().convert("RGB")
    # Both count in degrees against the clock.
    return image if frame.rotation % 360 == 0 else image.rotate(frame.rotation, expand=True)


class _Thinned:
    """Every `stride`-th of what is added, and the last: when twice too many are there, every second one is dropped.

    How many frames a file holds is often not written in it, and seeking lands on key frames only.
    """

    def __init__(self, num_frames: int) -> None:
        self._limit = 2 * max(num_frames, 2)
        self._kept: list[tuple[int, Shown]] = []
        self._count, self._stride = 0, 1
        self.last: Shown | None = None

    def add(self, shown: Shown) -> None:
        if self._count % self._stride == 0:
            self._kept.append((self._count, shown))
            if len(self._kept) > self._limit:
                self._kept, self._stride = self._kept[::2], self._stride * 2
        self._count += 1
        self.last = shown

    def all(self) -> list[tuple[int, Shown]]:
        """What is kept and the last, with how many came before each."""
        if self.last is not None and self._kept[-1][1].seconds != self.last.seconds:
            return [*self._kept, (self._count - 1, self.last)]
        return list(self._kept)

    def choose(self, num_frames: int, *, by_time: bool) -> list[Shown]:
        """At most `num_frames`, evenly spread over time or over how many there were."""
        kept = self.all()
        if len(kept) > num_frames:
            places = np.array([shown.seconds if by_time else count for count, shown in kept])
            wanted = np.linspace(places[0], places[-1], num_frames)
            if num_frames == 1:
                # One frame stands for the whole film best in its middle; of the scenes the first is always there.
                wanted = places.mean(keepdims=True) if by_time else places[:1]
            kept = [kept[index] for index in sorted({int(np.abs(places - at).argmin()) for at in wanted})]
        return [shown for _, shown in kept]


class _SceneFilter:
    """FFmpeg's `select` filter, asked frame by frame."""

    def __init__(self) -> None:
        self._graph: Graph | None = None

    def begins(self, frame: VideoFrame) -> bool:
        """Whether a scene begins with this frame; the first one always does."""
        if self._graph is None:
            graph = Graph()
            # From a frame, not from the stream's header, which does not always know the format.
            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
            )
            select = graph.add("select", rf"eq(n\,0)+gt(scene\,{_SCENE_SCORE})")
            graph.link_nodes(source, select, graph.add("buffersink"))
            graph.configure()
            self._graph = graph
        self._graph.vpush(frame)
        try:
            self._graph.vpull()
        except BlockingIOError:  # The filter let nothing through.
            return False
        return True


def _filled(found: list[Shown], others: list[Shown], num_frames: int) -> list[Shown]:
    """`found`, and of `others` those farthest in time from all that is there, one after another."""
    chosen = {shown.seconds: shown for shown in found}
    left = [shown for shown in others if shown.seconds not in chosen]
    while left and len(chosen) < num_frames:
        times = np.array(list(chosen))
        farthest = max(left, key=lambda shown: float(np.abs(times - shown.seconds).min()))
        chosen[farthest.seconds] = farthest
        left.remove(farthest)
    return [chosen[seconds] for seconds in sorted(chosen)]
