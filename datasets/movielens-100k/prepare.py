"""MovieLens 100K with plots and posters as a catalogue: `python prepare.py --source DIR --out DIR`."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.recipes import verify_source
from multimodal_rec.schema import Schema

CHECKSUMS = {
    "items.jsonl": "31739bee110266ee6680958cf25118aeb7641e8b353c28b05ffea719568077ba",
    "ratings.csv": "b6ad628f2195de61bc8f05067dd4084c373161c6ad689fcaf9e89e9a400217f0",
    "users.csv": "4a85331153251ac92e02a202de5900dc3fdec21b7f28367ce62437c99823305f",
}
"""SHA-256 of the source's tables."""

SCHEMA = Schema(
    "movielens-100k",
    kind="video",
    licence="MovieLens research terms, no redistribution; posters belong to their studios",
    text=("title", "credits", "plot"),
    image=("poster",),
    attributes={
        "genres": "tags",
        "director": "category",
        "actors": "tags",
        "year": "number",
        "runtime": "number",
        "language": "tags",
        "country": "tags",
        "rated": "category",
    },
    context={"hour": "cyclic:24", "weekday": "cyclic:7"},
    user_attributes={"age": "number", "gender": "category", "occupation": "category"},
)


def prepare(source: Path, out: Path) -> Catalogue:
    """The catalogue, written to `out`: 1,662 films, 943 people, 99,386 ratings.

    Raises `CatalogueError` where a table of `source` is missing or is not the one that this recipe was written for.
    """
    verify_source(source, CHECKSUMS, beside="posters/")
    ratings = pd.read_csv(source / "ratings.csv")
    # A rating session fills whole screens within one second: without this shuffle, a stable sort would order it by
    # the file's order, and breaking ties by film instead would nearly halve every figure.
    ratings = ratings.iloc[np.random.default_rng(0).permutation(len(ratings))]
    time = pd.to_datetime(ratings["timestamp"], unit="s", utc=True)
    interactions = pd.DataFrame(
        {
            "user_id": ratings["user_id"].astype(str),
            "item_id": ratings["movie_id"].astype(str),
            "timestamp": ratings["timestamp"],
            "value": ratings["rating"],
            "hour": time.dt.hour,
            "weekday": time.dt.day_of_week,
        }
    )
    rated = set(ratings["movie_id"])
    with (source / "items.jsonl").open(encoding="utf-8") as lines:
        films = [film for film in map(json.loads, lines) if film["movie_id"] in rated]
    items = pd.DataFrame(map(item_of, films))
    users = pd.read_csv(source / "users.csv", usecols=["user_id", "age", "gender", "occupation"])
    catalogue = Catalogue.from_frames(items, interactions, users, schema=SCHEMA, media=source)
    return Catalogue.read(catalogue.write(out))


def item_of(film: dict[str, Any]) -> dict[str, object]:
    """One row of the items from one line of `items.jsonl`; the source's "" and "N/A" become None."""
    film = {key: None if value in ("", "N/A") else value for key, value in film.items()}
    names = {"": ", ".join(film["genres"]), "directed by ": film["director"], "starring ": film["actors"]}
    minutes = re.match(r"\d+", film["runtime"] or "")
    year = re.search(r"\((\d{4})\)", film["title"]) or re.search(r"(\d{4})$", film["release_date"] or "")
    return {
        "item_id": str(film["movie_id"]),
        "title": film["title"],
        "credits": ", ".join(f"{role}{people}" for role, people in names.items() if people) or None,
        "plot": film["plot"],
        "poster": f"posters/{film['movie_id']}.jpg" if film["poster"] else None,
        "genres": film["genres"],
        "director": film["director"],
        "actors": words(film["actors"]),
        "year": None if year is None else int(year[1]),
        "runtime": None if minutes is None else int(minutes[0]),
        "language": words(film["language"]),
        "country": words(film["country"]),
        "rated": film["rated"],
    }


def words(text: str | None) -> list[str]:
    """The parts of a list that the source writes with commas."""
    return [] if text is None else text.split(", ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder with items.jsonl, ratings.csv, users.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the catalogue to")
    arguments = parser.parse_args()
    print(prepare(arguments.source, arguments.out))
