"""Curves side by side as an SVG file, which a browser and a README show without any library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 430, 330, 58, 48, 44
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#e6a100", "#7a5195", "#8c564b", "#00a6a6", "#444444", "#e377c2", "#9acd32")


class Curve(NamedTuple):
    """One line, a point a strength."""

    name: str
    points: Sequence[tuple[float, float]]


def write_curves(path: Path, panels: Mapping[str, Sequence[Curve]], *, vertical: str, title: str) -> None:
    """None; writes a panel for each entry, named by its horizontal axis, with one legend for all."""
    names = list(dict.fromkeys(curve.name for curves in panels.values() for curve in curves))
    colour = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    width = len(panels) * WIDTH + 190
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT + 20}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{width}" height="{HEIGHT + 20}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{escape(title)}</text>',
    ]
    for place, (label, curves) in enumerate(panels.items()):
        drawn += _panel(place * WIDTH, label, curves, vertical=vertical, colour=colour)
    for place, name in enumerate(names):
        x, y = len(panels) * WIDTH + 10, TOP + 14 + 20 * place
        drawn.append(
            f'<line x1="{x}" y1="{y - 4}" x2="{x + 18}" y2="{y - 4}" stroke="{colour[name]}" stroke-width="2"/>'
        )
        drawn.append(f'<text x="{x + 24}" y="{y}">{escape(name)}</text>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*drawn, "</svg>", ""]), encoding="utf-8")


def _panel(
    offset: float, label: str, curves: Sequence[Curve], *, vertical: str, colour: Mapping[str, str]
) -> list[str]:
    points = np.array([point for curve in curves for point in curve.points])
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.where(high > low, high - low, 1.0) * 0.05
    low, high = low - room, high + room
    right, floor = WIDTH - 20, HEIGHT - BOTTOM

    def at(point: tuple[float, float]) -> tuple[float, float]:
        share = (np.array(point) - low) / (high - low)
        return offset + LEFT + share[0] * (right - LEFT), floor - share[1] * (floor - TOP)

    lines: list[str] = []
    for share in np.linspace(0.05, 0.95, 4):
        x, y = low + share * (high - low)
        across, up = at((x, y))
        lines.append(f'<line x1="{offset + LEFT}" x2="{offset + right}" y1="{up:.1f}" y2="{up:.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{offset + LEFT - 6}" y="{up + 4:.1f}" text-anchor="end">{y:.3f}</text>')
        lines.append(f'<text x="{across:.1f}" y="{floor + 16}" text-anchor="middle">{x:.2f}</text>')
    lines.append(
        f'<text x="{offset + (LEFT + right) / 2}" y="{floor + 34}" text-anchor="middle">{escape(label)}</text>'
    )
    lines.append(f'<text x="{offset + LEFT}" y="{TOP - 8}">{escape(vertical)}</text>')
    for curve in curves:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, curve.points))
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour[curve.name]}" stroke-width="1.6"/>')
        for x, y in map(at, curve.points):
            lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{colour[curve.name]}"/>')
    return lines
