"""The page a person looks at: figures in a table, and what was recommended to whom, to look at and to listen to.

One HTML file with its style inside and nothing fetched from anywhere. Media lie beside it, so that a folder with the
page in it can be copied, zipped or served as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import pandas as pd

from multimodal_rec.errors import ConfigError


class Card(NamedTuple):
    """One item as it is shown: what it is called, and what there is to see or hear of it."""

    item_id: str
    title: str
    caption: str = ""
    """A line under the title, such as genre and year."""
    image: Path | None = None
    audio: Path | None = None
    video: Path | None = None
    score: float | None = None
    """Shown where given; only comparable within one person's row."""


class RecommendationRow(NamedTuple):
    """What one person was recommended in one context, beside what the person is known to like."""

    user_id: str
    context: Mapping[str, object]
    liked: Sequence[Card]
    items: Sequence[Card]
    """Best first."""
    reason: str = ""
    """Why the first item is first."""


class CatalogueSection(NamedTuple):
    """One catalogue: facts about it, how the methods compare, and examples."""

    title: str
    facts: Mapping[str, str]
    """Name → value, shown as a row of figures: items, people, seconds of training."""
    table: pd.DataFrame
    """A row a method (index = its name), a column a measure. The best of a column of floats, higher
    better, is marked; text and whole numbers (intervals, seconds, counts) are shown as they are."""
    notes: Sequence[str] = ()
    """Paragraphs under the table: what was compared, and how."""
    recommendations: Sequence[RecommendationRow] = ()
    references: Collection[str] = ()
    """Rows of the table that are no competitors, such as an oracle: shown in italics and never marked as best."""


def write_report(
    path: str | os.PathLike[str],
    sections: Sequence[CatalogueSection],
    *,
    title: str = "Recommendations",
    introduction: str = "",
) -> Path:
    """The path of the page that was written, its folder made where there was none.

    A medium under the page's folder is linked where it lies; any other is copied into `media/` beside the page, under
    a name that starts with a hash of its bytes. A medium that is missing is named as missing where it would have
    stood. All text is escaped. Raises `ConfigError` where there is no section, or `references` names no row.
    """
    if not sections:
        raise ConfigError("a report without sections would be an empty page. Expected at least one CatalogueSection.")
    page = Path(path).resolve()
    page.parent.mkdir(parents=True, exist_ok=True)
    anchors = [f"catalogue-{number}" for number in range(1, len(sections) + 1)]
    links = "".join(f'<a href="#{a}">{escape(s.title)}</a>' for a, s in zip(anchors, sections, strict=True))
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        f"<header><h1>{escape(title)}</h1>{_paragraph(introduction)}",
        f'<nav aria-label="Catalogues">{links}</nav></header>\n<main>',
        *(_section(section, anchor, page.parent) for section, anchor in zip(sections, anchors, strict=True)),
        "</main>\n</body>\n</html>\n",
    ]
    page.write_text("\n".join(parts), encoding="utf-8")
    return page


def _section(section: CatalogueSection, anchor: str, folder: Path) -> str:
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in section.facts.items()
    )
    parts = [
        f'<section id="{anchor}" aria-labelledby="{anchor}-title">',
        f'<h2 id="{anchor}-title">{escape(section.title)}</h2>',
        f'<dl class="facts">{facts}</dl>' if facts else "",
        _table(section),
        *(_paragraph(note, "note") for note in section.notes),
    ]
    if section.recommendations:
        parts.append("<h3>What was recommended</h3>")
        parts += [_recommendation(row, folder) for row in section.recommendations]
    return "\n".join([*filter(None, parts), "</section>"])


def _table(section: CatalogueSection) -> str:
    table = section.table
    if table.empty:
        return ""
    absent = [name for name in section.references if name not in table.index]
    if absent:
        raise ConfigError(f"references name {absent[0]!r}; the table has {', '.join(map(repr, table.index))}.")
    is_reference = np.array([name in section.references for name in table.index])
    best = np.zeros(table.shape, dtype=bool)
    for number, column in enumerate(table.columns):
        if pd.api.types.is_float_dtype(table[column]):
            values = np.asarray(table[column], dtype=np.float64)
            competing = values[~is_reference & np.isfinite(values)]
            # Where all are equal, or one stands alone, nothing is best.
            if len(np.unique(competing)) > 1:
                best[:, number] = ~is_reference & (values == competing.max())
    head = "".join(f'<th scope="col">{escape(str(column))}</th>' for column in table.columns)
    rows = []
    for number, (name, values) in enumerate(zip(table.index, table.itertuples(index=False), strict=True)):
        cells = "".join(
            f'<td class="best">{_cell(value)}</td>' if best[number, column] else f"<td>{_cell(value)}</td>"
            for column, value in enumerate(values)
        )
        kind = ' class="reference"' if is_reference[number] else ""
        rows.append(f'<tr{kind}><th scope="row">{escape(str(name))}</th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(section.title)}: methods compared">'
        f'<table><thead><tr><th scope="col">{escape(str(table.index.name or "method"))}</th>{head}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(value: object) -> str:
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:.3f}"  # noqa: RUF001 (a dash for what was not measured)
    return escape(str(value))


def _recommendation(row: RecommendationRow, folder: Path) -> str:
    context = "".join(
        f'<span class="chip">{escape(str(name))} <b>{escape(str(value))}</b></span>'
        for name, value in row.context.items()
    )
    liked = "".join(_card(card, folder) for card in row.liked)
    items = "".join(_card(card, folder, place) for place, card in enumerate(row.items, start=1))
    return "\n".join(
        filter(
            None,
            [
                '<article class="person">',
                f"<h4>For {escape(row.user_id)}{context}</h4>",
                f'<p class="label">Has liked</p><ul class="cards small">{liked}</ul>' if liked else "",
                f'<p class="label">Recommended</p><ol class="cards">{items}</ol>',
                f'<p class="reason"><b>Why the first:</b> {escape(row.reason)}</p>' if row.reason else "",
                "</article>",
            ],
        )
    )


def _card(card: Card, folder: Path, place: int | None = None) -> str:
    rank = "" if place is None else f'<span class="rank" aria-hidden="true">{place}</span>'
    score = "" if card.score is None else f'<span class="score" title="score">{card.score:.2f}</span>'
    caption = f'<span class="caption">{escape(card.caption)}</span>' if card.caption else ""
    return (
        f"<li>{rank}{_media(card, folder)}"
        f'<div class="words"><b title="{escape(card.item_id)}">{escape(card.title)}</b>{caption}{score}</div></li>'
    )


def _media(card: Card, folder: Path) -> str:
    name = escape(card.title)
    elements = {
        "video": f'<video controls preload="metadata" playsinline src="{{}}" aria-label="{name}, video"></video>',
        "image": f'<img loading="lazy" src="{{}}" alt="{name}">',
        "audio": f'<audio controls preload="none" src="{{}}" aria-label="{name}, sound"></audio>',
    }
    shown = []
    for kind, element in elements.items():
        source: Path | None = getattr(card, kind)
        if source is None:
            continue
        if source.is_file():
            # Titles may hold braces, so the link is put in by replacement, not by format.
            shown.append(element.replace("{}", _link(source, folder), 1))
        else:
            shown.append(f'<span class="missing">{kind} missing: {escape(source.name)}</span>')
    if card.image is None and card.video is None:
        shown.insert(0, f'<span class="initial" aria-hidden="true">{escape(card.title[:1].upper())}</span>')
    return "".join(shown)


def _link(source: Path, folder: Path) -> str:
    """Relative URL from `folder` to `source`, which is copied below `folder` first where it lies elsewhere."""
    source = source.resolve()
    if not source.is_relative_to(folder):
        digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
        target = folder / "media" / f"{digest}-{source.name}"
        target.parent.mkdir(exist_ok=True)
        if not target.exists():
            shutil.copyfile(source, target)
        source = target
    return escape(quote(source.relative_to(folder).as_posix()))


def _paragraph(text: str, kind: str = "lead") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if text else ""


_STYLE = """
:root { --ground: #f7f6f3; --sheet: #fff; --ink: #1d1f23; --soft: #666b75; --line: #e2e0da; --accent: #0b6e5f;
  --tint: #e2f1ee; --radius: 10px; }
@media (prefers-color-scheme: dark) { :root { --ground: #15171a; --sheet: #1e2125; --ink: #e9e7e2; --soft: #a0a5ae;
  --line: #33373d; --accent: #5fd0bc; --tint: #17352f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
header, main { max-width: 70rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 2.5rem; }
h1 { font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.15; margin: 0 0 .5rem; letter-spacing: -.02em; }
h2 { font-size: 1.45rem; margin: 0 0 .75rem; letter-spacing: -.01em; }
h3 { font-size: 1.1rem; margin: 2rem 0 .75rem; }
h4 { font-size: 1rem; margin: 0 0 .75rem; display: flex; flex-wrap: wrap; gap: .4rem; align-items: center; }
.lead { max-width: 46rem; margin: 0 0 1rem; color: var(--soft); }
.note { max-width: 46rem; margin: .75rem 0 0; color: var(--soft); font-size: .92rem; }
nav { display: flex; flex-wrap: wrap; gap: .5rem; }
nav a { color: var(--accent); text-decoration: none; padding: .25rem .8rem; border: 1px solid var(--line);
  border-radius: 999px; background: var(--sheet); }
nav a:hover, nav a:focus-visible { border-color: var(--accent); }
section { margin: 2.5rem 0 3.5rem; scroll-margin-top: 1rem; }
.facts { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 0 0 1.25rem; }
.facts dt { color: var(--soft); font-size: .8rem; }
.facts dd { margin: 0; font-size: 1.1rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; background: var(--sheet); border: 1px solid var(--line); border-radius: var(--radius); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .9rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--sheet); }
thead th { font-size: .8rem; font-weight: 600; color: var(--soft); }
tbody th { font-weight: 500; }
tbody tr:last-child > * { border-bottom: 0; }
.best { font-weight: 700; color: var(--accent); background: var(--tint); }
.reference > * { color: var(--soft); font-style: italic; }
.person { background: var(--sheet); border: 1px solid var(--line); border-radius: var(--radius); padding: 1rem;
  margin: 0 0 1rem; }
.chip { font-weight: 400; font-size: .82rem; color: var(--soft); border: 1px solid var(--line); border-radius: 999px;
  padding: .05rem .65rem; }
.chip b { color: var(--ink); font-weight: 600; }
.label { margin: .25rem 0 .35rem; font-size: .8rem; color: var(--soft); }
.cards { list-style: none; margin: 0 0 .75rem; padding: 0; display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.cards li { position: relative; min-width: 0; border: 1px solid var(--line); border-radius: 8px; overflow: hidden;
  background: var(--ground); display: flex; flex-direction: column; }
.cards img, .cards video, .initial { width: 100%; aspect-ratio: 1; object-fit: cover; display: block;
  background: #000; }
.cards video { object-fit: contain; }
.initial { display: grid; place-items: center; aspect-ratio: 2; font-size: 1.8rem; font-weight: 600;
  color: var(--accent); background: var(--tint); }
.cards audio { width: 100%; height: 2.2rem; display: block; }
.missing { padding: .35rem .6rem; font-size: .75rem; color: var(--soft); overflow-wrap: anywhere; }
.words { padding: .5rem .6rem .6rem; font-size: .86rem; line-height: 1.35; display: flex; flex-direction: column;
  gap: .1rem; }
.words b { font-weight: 600; overflow: hidden; display: -webkit-box; -webkit-box-orient: vertical;
  -webkit-line-clamp: 2; }
.caption { color: var(--soft); font-size: .8rem; overflow: hidden; display: -webkit-box; -webkit-box-orient: vertical;
  -webkit-line-clamp: 3; }
.score { color: var(--soft); font-size: .78rem; font-variant-numeric: tabular-nums; }
.rank { position: absolute; z-index: 1; top: .4rem; left: .4rem; min-width: 1.5rem; text-align: center;
  font-size: .8rem; font-weight: 700; border-radius: 999px; background: var(--sheet); color: var(--ink);
  border: 1px solid var(--line); }
.small { grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); gap: .5rem; }
.small .words { padding: .35rem .45rem .45rem; font-size: .78rem; }
.small .caption, .small .score { display: none; }
.reason { margin: .25rem 0 0; padding: .5rem .75rem; border-left: 3px solid var(--accent); background: var(--tint);
  border-radius: 0 8px 8px 0; font-size: .92rem; }
@media (max-width: 32rem) { th, td { padding: .45rem .6rem; } .cards { grid-template-columns: 1fr 1fr; }
  .small { grid-template-columns: repeat(3, 1fr); } }
"""
