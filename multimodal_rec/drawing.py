"""The strokes of the sample catalogues' pictures: palettes, backdrops, patterns, objects, silhouettes, shapes."""

from __future__ import annotations

import colorsys
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
"""Red, green and blue, each from 0 to 255."""

HUE_JITTER = 0.03
"""Half the width of the band of hues that counts as one planted hue."""

SOLID_FORMS = ("circle", "square", "triangle", "star")
FORMS = (*SOLID_FORMS, "ring", "bar")


class Shape(NamedTuple):
    """One flat figure, before it is placed."""

    form: str
    """One of `FORMS`."""
    radius: float
    """Of the circle around it, in pixels."""
    angle: float
    """In radians."""
    colour: Colour


class Palette(NamedTuple):
    """The planted hue, and the one weak hue that competes with it."""

    hue: float
    second_hue: float

    def main(self, rng: np.random.Generator) -> Colour:
        """A strong colour within `HUE_JITTER` of the planted hue."""
        hue = self.hue + rng.uniform(-HUE_JITTER, HUE_JITTER)
        return _to_rgb(hue, rng.uniform(0.6, 0.95), rng.uniform(0.5, 0.95))

    def neutral(self, rng: np.random.Generator) -> Colour:
        """Nearly a grey, of any lightness."""
        return _to_rgb(self.second_hue, rng.uniform(0, 0.08), rng.uniform(0.15, 0.95))

    def other(self, rng: np.random.Generator) -> Colour:
        """A neutral, or now and then the weak second hue."""
        if rng.random() < 0.65:
            return self.neutral(rng)
        return _to_rgb(self.second_hue, rng.uniform(0.25, 0.45), rng.uniform(0.5, 0.9))


def draw_backdrop(colour: Colour, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """One colour under a gradient of lightness in a random direction and a cloudy texture."""
    width, height = size
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.35)
    across, down = np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height)
    gradient = np.cos(angle) * across[None, :] + np.sin(angle) * down[:, None]
    cells = int(rng.integers(3, 12))
    clouds = Image.fromarray(rng.normal(0, 1, (cells, cells)).astype(np.float32))
    texture = np.asarray(clouds.resize(size, Image.Resampling.BICUBIC)) * rng.uniform(0.0, 0.09)
    shade = 1 + strength * gradient + texture
    pixels = np.asarray(colour)[None, None, :] * shade[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def draw_pattern(
    pen: ImageDraw.ImageDraw, palette: Palette, size: tuple[int, int], on_main: bool, rng: np.random.Generator
) -> None:
    """Shapes or stripes: in other colours over a backdrop of the planted hue, in the planted hue over a neutral one."""
    width, height = size
    if rng.random() < 0.35:
        num_stripes, vertical = int(rng.integers(3, 9)), rng.random() < 0.5
        extent = width if vertical else height
        step = extent / num_stripes
        for number in range(num_stripes):
            low = number * step
            high = low + step * rng.uniform(0.2, 0.45 if on_main else 0.8)
            box = (low, 0, high, height) if vertical else (0, low, width, high)
            pen.rectangle(box, fill=palette.other(rng) if on_main else palette.main(rng))
    for _ in range(int(rng.integers(3, 8))):
        main = rng.random() < (0.3 if on_main else 0.8)
        radius = width * rng.uniform(0.06, 0.16 if on_main else 0.3)
        centre = (rng.uniform(0, width), rng.uniform(0, height))
        colour = palette.main(rng) if main else palette.other(rng)
        draw_shape(pen, pick_shape(FORMS, radius, colour, rng), centre)
    if not on_main:  # Whatever was drawn before, one solid shape in front keeps the planted hue in view.
        centre = (width * rng.uniform(0.25, 0.75), height * rng.uniform(0.25, 0.6))
        radius = width * rng.uniform(0.2, 0.3)
        draw_shape(pen, pick_shape(SOLID_FORMS, radius, palette.main(rng), rng), centre)


def draw_object(pen: ImageDraw.ImageDraw, palette: Palette, side: int, rng: np.random.Generator) -> None:
    """A thing in the planted hue on a floor: a vase, a box, a bag or a ball, with details in other colours."""
    floor = side * rng.uniform(0.72, 0.9)
    pen.rectangle((0, floor, side, side), fill=palette.neutral(rng))
    x, half, top = side * rng.uniform(0.4, 0.6), side * rng.uniform(0.2, 0.32), side * rng.uniform(0.12, 0.28)
    bottom = floor + side * 0.04
    pen.ellipse((x - half * 1.2, bottom - side * 0.04, x + half * 1.2, bottom + side * 0.04), fill=(70, 70, 70))
    form = _pick(("vase", "box", "bag", "ball"), rng)
    colour = palette.main(rng)
    if form == "vase":
        neck = half * rng.uniform(0.3, 0.5)
        pen.rectangle((x - neck, top, x + neck, bottom - half), fill=palette.main(rng))
        pen.ellipse((x - half, bottom - 2 * half, x + half, bottom), fill=colour)
    elif form == "box":
        pen.rectangle((x - half, top, x + half, bottom), fill=colour)
        pen.rectangle((x - half, top, x + half, top + side * 0.1), fill=palette.main(rng))
    elif form == "bag":
        pen.ellipse((x - half * 0.6, top - half * 0.3, x + half * 0.6, top + half), outline=colour, width=side // 24)
        shoulder = top + half * 0.4
        sides = [(x - half * 0.7, shoulder), (x + half * 0.7, shoulder), (x + half, bottom), (x - half, bottom)]
        pen.polygon(sides, fill=colour)
    else:
        pen.ellipse((x - half * 1.1, bottom - 2.2 * half, x + half * 1.1, bottom), fill=colour)
    for _ in range(int(rng.integers(0, 4))):
        centre = (x + rng.uniform(-0.5, 0.5) * half, bottom - rng.uniform(0.4, 1.4) * half)
        radius = half * rng.uniform(0.1, 0.25)
        draw_shape(pen, pick_shape(FORMS, radius, palette.other(rng), rng), centre)


def draw_silhouette(
    pen: ImageDraw.ImageDraw, palette: Palette, size: tuple[int, int], rng: np.random.Generator
) -> None:
    """A dark skyline, a range of hills or a figure along the lower edge."""
    width, height = size
    colour = _to_rgb(palette.second_hue, rng.uniform(0, 0.1), rng.uniform(0.08, 0.25))
    form = _pick(("skyline", "hills", "figure"), rng)
    if form == "figure":
        x, head = width * rng.uniform(0.25, 0.75), width * rng.uniform(0.06, 0.1)
        top = height * rng.uniform(0.45, 0.6)
        pen.ellipse((x - head, top, x + head, top + 2 * head), fill=colour)
        pen.polygon([(x, top + head), (x - 2.2 * head, height), (x + 2.2 * head, height)], fill=colour)
        return
    num_points = int(rng.integers(4, 10))
    edges = np.linspace(0, width, num_points + 1)
    heights = height * rng.uniform(0.7, 0.95, num_points + 1)
    if form == "skyline":
        for left, right, top in zip(edges, edges[1:], heights, strict=False):
            pen.rectangle((left, top, right, height), fill=colour)
    else:
        ridge = list(zip(edges.tolist(), heights.tolist(), strict=True))
        pen.polygon([(0, height), *ridge, (width, height)], fill=colour)


def pick_shape(forms: tuple[str, ...], radius: float, colour: Colour, rng: np.random.Generator) -> Shape:
    """A shape of one of `forms`, turned at random."""
    return Shape(_pick(forms, rng), radius, float(rng.uniform(0, 2 * np.pi)), colour)


def draw_shape(pen: ImageDraw.ImageDraw, shape: Shape, centre: tuple[float, float]) -> None:
    """Draw `shape` around `centre` (pixels from the left, from the top)."""
    x, y = centre
    radius = shape.radius
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape.form == "circle":
        pen.ellipse(box, fill=shape.colour)
    elif shape.form == "ring":
        pen.ellipse(box, outline=shape.colour, width=max(1, round(radius / 3)))
    else:
        corners = complex(x, y) + radius * np.exp(1j * shape.angle) * _corners(shape.form)
        pen.polygon(list(zip(corners.real.tolist(), corners.imag.tolist(), strict=True)), fill=shape.colour)


def add_grain(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """`image` under the grain of a film: the same noise in all three channels, so that no hue moves."""
    pixels = np.asarray(image, dtype=np.float32)
    grain = rng.normal(0, rng.uniform(1, 9), pixels.shape[:2])[:, :, None]
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def _corners(form: str) -> NDArray[np.complex128]:
    if form == "bar":
        return np.array([1 + 0.2j, -1 + 0.2j, -1 - 0.2j, 1 - 0.2j])
    num_corners = {"triangle": 3, "square": 4, "star": 10}[form]
    corners = np.exp(2j * np.pi * np.arange(num_corners) / num_corners)
    if form == "star":
        corners[1::2] *= 0.45
    return corners


def _to_rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
