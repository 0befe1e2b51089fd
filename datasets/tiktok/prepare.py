"""TikTok, features only, as a catalogue: `python prepare.py --source DIR --out DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.mmrec import read_mmrec
from multimodal_rec.recipes import verify_source

CHECKSUMS = {
    "tiktok.inter": "87c87aa82bec4cff5744dfee171aa46ada04a3ded44a02f7db685493235fb9c3",
    "image.npy": "f6c1ec1726ed2aa80315411199ab2143bee6333821bf58c5f00bd3f5b462efc2",
    "audio.npy": "d45a44a9d462f578802de914c2feea5cfd45742b2922775a085b9bdc1beba26f",
}
"""SHA-256 of the source's files."""

LICENCE = "none stated; for local research use"


def prepare(source: Path, out: Path) -> Catalogue:
    """The catalogue, written to `out`: 6,710 videos, 9,308 people, 68,722 interactions.

    Raises `CatalogueError` where a file of `source` is missing or is not the one that this recipe was written for.
    """
    verify_source(source, CHECKSUMS)
    base = read_mmrec(source, kind="video", licence=LICENCE)
    catalogue = Catalogue.from_frames(base.items, base.interactions.drop(columns="value"), schema=base.schema)
    return Catalogue.read(catalogue.write(out))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder with tiktok.inter, image.npy and audio.npy")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the catalogue to")
    arguments = parser.parse_args()
    print(prepare(arguments.source, arguments.out))
