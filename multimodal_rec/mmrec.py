"""Catalogues in MMRec's layout: a table of interactions with their part, and matrices with a row an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import MODALITIES
from multimodal_rec.errors import CatalogueError
from multimodal_rec.fields import column_of, number_values
from multimodal_rec.schema import Schema

PART_COLUMN = "x_label"
"""The interactions' column that says which part each is in: 0 train, 1 valid, 2 test."""

_COLUMNS = {"userID": "user_id", "itemID": "item_id", "rating": "value", "timestamp": "timestamp"}

Files = str | Path | Sequence[str | Path]


def read_mmrec(
    folder: str | Path,
    *,
    inter: str | Path | None = None,
    features: Mapping[str, Files] | None = None,
    name: str | None = None,
    kind: str = "product",
    licence: str = "",
) -> Catalogue:
    """The catalogue in a folder of MMRec's layout: `<name>.inter` and `.npy` matrices whose row i belongs to itemID i.

    `inter`: the tab-separated table (userID, itemID, maybe rating, timestamp and x_label), found by its ending where
    None. `features`: modality → `.npy` file or files below `folder`; None takes those whose names begin with a
    modality, such as `image_feat.npy`. Each becomes a column of vectors named as its file, in float32. Ids become
    text. An item with features that nobody took stays. x_label stays a column of the interactions:
    `catalogue.split("label", column="x_label")` gives MMRec's own parts. `name`, `kind`, `licence`: of the schema; the
    name is that of the table where None.
    Raises `CatalogueError` where a file is missing, or the files disagree.
    """
    folder = Path(folder)
    table = _table(folder, inter)
    files = _features(folder, features)
    matrices = {path.stem: _matrix(path) for paths in files.values() for path in paths}
    sizes = {column: len(matrix) for column, matrix in matrices.items()}
    if len(set(sizes.values())) > 1:
        counts = ", ".join(f"{size} in {column}.npy" for column, size in sizes.items())
        raise CatalogueError(
            f"the features in '{folder}' have different numbers of rows: {counts}. Expected one an item."
        )
    num_items = next(iter(sizes.values()))
    interactions = _interactions(table, num_items)
    items = pd.DataFrame({"item_id": [str(item) for item in range(num_items)]})
    # Rows of the matrix, not copies of them.
    items = items.assign(**{column: pd.Series(list(matrix), dtype=object) for column, matrix in matrices.items()})
    schema = Schema(
        table.stem if name is None else name,
        kind=kind,
        licence=licence,
        vectors={modality: tuple(path.stem for path in paths) for modality, paths in files.items()},
    )
    return Catalogue.from_frames(items, interactions, schema=schema)


def _table(folder: Path, inter: str | Path | None) -> Path:
    if inter is not None:
        return folder / inter
    found = sorted(folder.glob("*.inter"))
    if len(found) != 1:
        has = ", ".join(path.name for path in found) or "none"
        raise CatalogueError(f"'{folder}' should hold one table *.inter, and has {has}. Name it with inter=FILE.")
    return found[0]


def _features(folder: Path, features: Mapping[str, Files] | None) -> dict[str, list[Path]]:
    if features is None:
        found = {
            modality: [path for path in sorted(folder.glob("*.npy")) if path.stem.split("_")[0] == modality]
            for modality in MODALITIES
        }
    else:
        found = {
            modality: [folder / path for path in ([files] if isinstance(files, (str, Path)) else files)]
            for modality, files in features.items()
        }
    found = {modality: paths for modality, paths in found.items() if paths}
    if not found:
        raise CatalogueError(
            f"no features were found in '{folder}'. Expected .npy files whose names begin with one of "
            f"{', '.join(MODALITIES)}, such as image_feat.npy; name others with features={{'image': FILE}}."
        )
    stems = [path.stem for paths in found.values() for path in paths]
    twice = {stem for stem in stems if stems.count(stem) > 1}
    if twice:
        raise CatalogueError(
            f"two files of features are called '{min(twice)}.npy', and each becomes a column of that name. Rename one."
        )
    return found


def _matrix(path: Path) -> np.ndarray:
    try:
        mapped = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise CatalogueError(f"'{path}' cannot be read as a NumPy matrix. Expected a .npy file of features.") from error
    if not isinstance(mapped, np.ndarray) or mapped.ndim != 2 or mapped.dtype.kind not in "fiu":
        raise CatalogueError(
            f"'{path}' holds no matrix of numbers. Expected the shape (item, dim), row i for itemID i."
        )
    with np.errstate(over="ignore"):
        return np.array(mapped, dtype=np.float32, order="C")


def _interactions(path: Path, num_items: int) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, sep="\t")
    except (OSError, ValueError) as error:
        raise CatalogueError(f"'{path}' cannot be read: {error}. Expected a tab-separated table.") from error
    # RecBole, whose layout this is, writes types after the names: itemID:token.
    table.columns = [str(column).partition(":")[0] for column in table.columns]
    for column in ("userID", "itemID"):
        if column not in table:
            raise CatalogueError(
                f"'{path}' has no column '{column}'; it has {', '.join(map(repr, table.columns))}. Rename one."
            )
    items = number_values(column_of(table, "itemID"))
    bad = np.flatnonzero(~((items >= 0) & (items < num_items) & (items == np.floor(items))))
    if len(bad):
        first = table["itemID"].iloc[bad[0]]
        raise CatalogueError(
            f"{len(bad)} rows of '{path}' have an itemID that is no row of the features, the first in row {bad[0]} "
            f"({first!r}). Expected a whole number from 0 to {num_items - 1}."
        )
    return table.rename(columns=_COLUMNS)
