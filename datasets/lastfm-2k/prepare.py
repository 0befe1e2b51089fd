"""Last.fm 2K with ready-made features as a catalogue: `python prepare.py --source DIR --out DIR`."""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import pandas as pd

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.mmrec import read_mmrec
from multimodal_rec.recipes import verify_source

CHECKSUMS = {
    "lastfm-2k.inter": "a555d4b0bfabe0a11d1758c667eb9a29e574a60bd563848a73f5a6fccda1b0f9",
    "items.tsv": "0bf3a9b140fb8077deb4a5fab26d4ead5394d7eefeac6341a2f879f649707e59",
    "text_minilm.npy": "b21e98a91fc4ec11e879615f3c47b6f15bdb6e3b7c0d2a9cf0b8008ec83c46b0",
    "audio_vggish.npy": "5a8baa1094e49589a3ca5cea2777df8e6460d3b18b6a5828e60b541ad0831659",
    "audio_whisper.npy": "2a2690ff74430711e5a9e22889b5b40cc1b931f6250f25501192d7d63cf98995",
}
"""SHA-256 of the source's files."""

LICENCE = "none stated"


def prepare(source: Path, out: Path) -> Catalogue:
    """The catalogue, written to `out`: 1,425 artists, 1,858 people, 56,345 interactions.

    Raises `CatalogueError` where a file of `source` is missing or is not the one that this recipe was written for.
    """
    verify_source(source, CHECKSUMS)
    base = read_mmrec(source, kind="music", licence=LICENCE)
    # Names such as "NA" and tags with quotes are words, nothing else.
    artists = pd.read_csv(
        source / "items.tsv", sep="\t", dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE, encoding="utf-8"
    ).rename(columns={"itemID": "item_id"})
    # Twice: words to be read, and which artists share a tag, which no embedding of the words keeps.
    artists["labels"] = artists["tags"].str.replace(",", "|")
    artists["tags"] = artists["tags"].str.replace(",", ", ")
    columns = ["item_id", "name", "tags", "labels"]
    items = base.items.merge(artists[columns], on="item_id", how="left", validate="one_to_one")
    schema = replace(base.schema, text=("name", "tags"), attributes={"labels": "tags"})
    catalogue = Catalogue.from_frames(items, base.interactions.drop(columns="value"), schema=schema)
    return Catalogue.read(catalogue.write(out))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder with lastfm-2k.inter, items.tsv and *.npy")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the catalogue to")
    arguments = parser.parse_args()
    print(prepare(arguments.source, arguments.out))
