"""An index on disk, beside the store that it searches, and whether it still belongs to it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from multimodal_rec.cells import Cells, padded_width
from multimodal_rec.errors import StoreError
from multimodal_rec.index import ItemIndex
from multimodal_rec.index_report import IndexReport
from multimodal_rec.object_storage import is_remote

_FORMAT = 1
_REMEDY = "Build it with recommender.build_index(), or `multimodal-rec index`."


def index_fingerprint(ids: Sequence[str], embeddings: np.ndarray, model: str) -> str:
    """16 hexadecimal digits over what an index searches: the items, their embeddings and the model's fingerprint.

    `embeddings`: float32 (item, dim), row i of `ids[i]`. A million items of 128 numbers take half a second.
    """
    digest = hashlib.sha256(f"{model}\n{embeddings.shape}\n".encode())
    digest.update("\0".join(ids).encode())
    digest.update(np.ascontiguousarray(embeddings).data)
    return digest.hexdigest()[:16]


def index_path(store: str | Path | None, model: str) -> Path | str | None:
    """The folder or URI of the index of a model's items in the store there; None where the store is in memory: then
    nothing is kept."""
    if store is None:
        return None
    return f"{str(store).rstrip('/')}/index/{model}" if is_remote(store) else Path(store) / "index" / model


@final
class IndexFolder:
    """A folder with one index: `about.json`, which says whose it is, and the cells that it names.

    A writer that is killed leaves the index that was there before.
    """

    def __init__(self, path: Path, *, name: str | None = None) -> None:
        """`name`: what errors call the place, by default `path`."""
        self.path = path
        self._name = str(path) if name is None else name

    @property
    def exists(self) -> bool:
        """Whether an index was ever written here."""
        return (self.path / "about.json").exists()

    def write(self, index: ItemIndex, fingerprint: str) -> None:
        """Keep an index of the items of this fingerprint, in place of the one that was there."""
        self.path.mkdir(parents=True, exist_ok=True)
        name = None if index.cells is None else f"{fingerprint}.faiss"
        if index.cells is not None and name is not None:
            unfinished = self.path / f"{name}.{os.getpid()}"
            index.cells.write(unfinished)
            unfinished.replace(self.path / name)
        about = {"format": _FORMAT, "fingerprint": fingerprint, "cells": name, "report": index.report.to_dict()}
        unfinished = self.path / f"about.json.{os.getpid()}"
        unfinished.write_text(json.dumps(about, indent=1), encoding="utf-8")
        unfinished.replace(self.path / "about.json")
        for old in self.path.glob("*.faiss*"):
            if old.name != name:
                old.unlink(missing_ok=True)

    def read(self, embeddings: np.ndarray, fingerprint: str) -> ItemIndex:
        """The index of these embeddings, float32 (item, dim), whose `index_fingerprint` is given.

        Raises `StoreError` where there is none, where it is of other items, embeddings or another model, where another
        version of this library wrote it, or where its files cannot be read.
        """
        about = self._about(len(embeddings))
        if about["format"] != _FORMAT:
            raise StoreError(
                f"the index in '{self._name}' has format {about['format']!r}: another version of this library "
                f"wrote it. Expected format {_FORMAT}. {_REMEDY}"
            )
        try:
            found, name, report = about["fingerprint"], about["cells"], IndexReport(**about["report"])
        except (KeyError, TypeError) as error:
            raise self._undescribed(error) from error
        if found != fingerprint:
            raise StoreError(
                f"the index in '{self._name}' is stale: it was built for {report.num_items} items (fingerprint "
                f"{found}), and the store has {len(embeddings)} of this model ({fingerprint}). {_REMEDY}"
            )
        cells = None
        if name is not None:
            cells = Cells.read(self.path / name)
            num_items, width = len(embeddings), padded_width(embeddings.shape[1])
            if (cells.num_items, cells.width) != (num_items, width):
                raise StoreError(
                    f"'{self.path / name}' holds {cells.num_items} items of {cells.width} numbers. Expected "
                    f"{num_items} of {width}. {_REMEDY}"
                )
        return ItemIndex(embeddings, cells, report)

    def _about(self, num_items: int) -> dict[str, Any]:
        """What `about.json` says, a format at least."""
        try:
            about = json.loads((self.path / "about.json").read_text(encoding="utf-8"))
            return {"format": about["format"], **about}
        except FileNotFoundError:
            raise StoreError(f"there is no index in '{self._name}' for {num_items} items. {_REMEDY}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise self._undescribed(error) from error

    def _undescribed(self, error: Exception) -> StoreError:
        what = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        return StoreError(
            f"'{self._name}/about.json' describes no index ({what}). Expected what build_index wrote. {_REMEDY}"
        )
