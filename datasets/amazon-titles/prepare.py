"""Amazon products by title as a catalogue: `python prepare.py --which NAME --source DIR --out DIR`."""

from __future__ import annotations

import argparse
import html
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.recipes import verify_source
from multimodal_rec.schema import Schema


class Source(NamedTuple):
    """The two tables of one catalogue."""

    items: str
    users: str


WHICH = {
    "instruments": Source("Musical_Instruments_items.tsv", "am_Musical_Instruments_users_10K.tsv"),
    "scientific": Source("Industrial_and_Scientific_items.tsv", "am_Industrial_and_Scientific_users.tsv"),
}
"""The catalogues that can be made, and what of."""

CHECKSUMS = {
    "Musical_Instruments_items.tsv": "bd91547b58df5434de782336c54ffa80f8a83ce59f2811287dcfba555016645f",
    "am_Musical_Instruments_users_10K.tsv": "d6c2d2a4e7108423c14014820abf47f90969b8655e9655b2963c793ad3f24e4b",
    "Industrial_and_Scientific_items.tsv": "96cecc1b60b3f8a858b3b07c98dc577a32ff4d1fa32e7bc4b466a9e95b84f8aa",
    "am_Industrial_and_Scientific_users.tsv": "1cc801daba6bb7af4e1f2ed4506231d489b1445e58f8ea3e1d399ac9e14846b2",
}
"""SHA-256 of the source's tables."""

LICENCE = "none stated; for local research use"


def prepare(source: Path, out: Path, *, which: str = "instruments") -> Catalogue:
    """The catalogue, written to `out`.

    `which`: `instruments` (20,618 products, 10,000 people, 83,828 interactions) or `scientific` (20,825, 12,076,
    85,211). Raises `CatalogueError` where a table of `source` is missing or is not the one that this recipe was
    written for.
    """
    files = WHICH[which]
    verify_source(source, {name: CHECKSUMS[name] for name in files})
    titles = dict(line.split("\t") for line in lines(source / files.items))
    bought = [(user_id, ids.split()) for user_id, ids in (line.split("\t") for line in lines(source / files.users))]
    interactions = pd.DataFrame(
        [
            {"user_id": user_id, "item_id": item_id, "position": position}
            for user_id, ids in bought
            for position, item_id in enumerate(ids)
        ]
    )
    used = set(interactions["item_id"])
    items = pd.DataFrame(
        [
            # The shop's pages were read as HTML: 2&quot; is two inches.
            {"item_id": item_id, "title": html.unescape(title).strip()}
            for item_id, title in titles.items()
            if item_id in used
        ]
    )
    schema = Schema(f"amazon-{which}", kind="product", licence=LICENCE, text=("title",))
    return Catalogue.read(Catalogue.from_frames(items, interactions, schema=schema).write(out))


def lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file without their ends."""
    return path.read_text(encoding="utf-8").rstrip("\n").split("\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--which", choices=tuple(WHICH), default="instruments", help="which catalogue to make")
    parser.add_argument("--source", type=Path, required=True, help="folder with the tables of items and of users")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the catalogue to")
    arguments = parser.parse_args()
    print(prepare(arguments.source, arguments.out, which=arguments.which))
