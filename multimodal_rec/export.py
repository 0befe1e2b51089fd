"""Embeddings with their ids in files that other software reads, and what was lost on the way."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from multimodal_rec.compression import NUMBERS, Compressed, Numbers, compressed
from multimodal_rec.errors import ConfigError, StoreError
from multimodal_rec.recall import neighbour_recall

__all__ = ["NUMBERS", "ExportReport", "Numbers", "export_embeddings"]

_NEIGHBOURS = 10


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was written, and what is left of the order of neighbours."""

    files: tuple[str, ...]
    """The paths, the embeddings first."""
    num_items: int
    dim: int
    """Length of an embedding as it is scored."""
    dims: int
    """Length of an embedding as it was written."""
    numbers: str
    """'float32', 'float16', 'int8' or 'binary'."""
    bytes_an_item: int
    recall: float
    """Share of an item's ten nearest neighbours by cosine that are its ten nearest as written; over a sample."""

    def __str__(self) -> str:
        return (
            f"{self.num_items} embeddings written to {self.files[0]}: {self.dims} of {self.dim} numbers as "
            f"{self.numbers}, {self.bytes_an_item} bytes each; recall@{_NEIGHBOURS} of the exact neighbours "
            f"{self.recall:.4f}"
        )

    def to_dict(self) -> dict[str, object]:
        """The fields by name, for JSON."""
        return asdict(self)


def export_embeddings(
    path: Path, ids: Sequence[str], embeddings: np.ndarray, *, numbers: Numbers = "float32", dims: int | None = None
) -> ExportReport:
    """Write embeddings, float32 (item, dim), row i of `ids[i]`, and say what became of neighbours.

    NAME.parquet has the columns item_id and embedding, a list of one length (bytes for binary); NAME.npy the array
    alone, with NAME.ids.json beside it in the same order. `numbers` and `dims` as in `compressed`. Whatever turns
    another embedding, such as a query, into the same numbers is in NAME.transform.safetensors: multiply by `rotation`,
    then compare with `thresholds` or divide by `scale`, as far as they are there. Raises `ConfigError` for another
    suffix, other numbers or dims, `StoreError` where there is nothing to write or a file cannot be written.
    """
    if path.suffix not in (".parquet", ".npy"):
        raise ConfigError(f"'{path}' ends in '{path.suffix}'. Expected .parquet or .npy, which says what is written.")
    if not ids:
        raise StoreError(f"there is no embedding to write to '{path}'. Embed items first, or export another part.")
    made = compressed(embeddings, numbers=numbers, dims=dims)
    width = embeddings.shape[1] if dims is None else dims
    kept = {name: array for name, array in made.transform._asdict().items() if array is not None}
    transform, listed = path.with_suffix(".transform.safetensors"), path.with_suffix(".ids.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # An earlier export's transform would be taken for this one's.
        transform.unlink(missing_ok=True)
        if kept:
            _whole(transform, lambda file: save_file(kept, file, metadata={"numbers": numbers}))
        if path.suffix == ".parquet":
            table = _table(ids, made, {"numbers": numbers, "dims": width, "of": embeddings.shape[1]})
            _whole(path, lambda file: pq.write_table(table, file))
        else:
            _whole(listed, lambda file: file.write_text(json.dumps(list(ids)), encoding="utf-8"))
            _whole(path, lambda file: _save_array(file, made.values))
    except OSError as error:
        raise StoreError(f"'{path}' cannot be written: {error}. Expected a folder that can be written to.") from error
    files = [path, *([listed] if path.suffix == ".npy" else []), *([transform] if kept else [])]
    return ExportReport(
        files=tuple(map(str, files)),
        num_items=len(ids),
        dim=embeddings.shape[1],
        dims=width,
        numbers=numbers,
        bytes_an_item=made.values.itemsize * made.values.shape[1],
        recall=neighbour_recall(embeddings, made.decoded(width), _NEIGHBOURS),
    )


def _table(ids: Sequence[str], made: Compressed, about: dict[str, object]) -> pa.Table:
    flat = pa.array(np.ascontiguousarray(made.values).ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, made.values.shape[1])
    table = pa.table({"item_id": pa.array(ids, pa.string()), "embedding": column})
    return table.replace_schema_metadata({"multimodal_rec": json.dumps(about)})


def _save_array(path: Path, values: np.ndarray) -> None:
    with path.open("wb") as file:  # np.save would append a suffix to a name that lacks it
        np.save(file, values)


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name first: a reader sees all of it or what was there before."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        write(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
