"""Vectors in place of media: their files, alignment by id, and defects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import CatalogueError
from multimodal_rec.schema import Schema
from tests.multimodal_rec.tiny_vectors import AUDIO_ONLY, SCHEMA, items, log


def same_cells(left: Catalogue, right: Catalogue, column: str) -> bool:
    pairs = list(zip(left.items[column].tolist(), right.items[column].tolist(), strict=True))
    return all(
        (a is None and b is None) or (a is not None and b is not None and a.dtype == b.dtype and (a == b).all())
        for a, b in pairs
    )


def test_cells_are_float32_or_none() -> None:
    frame = items()
    frame.at[0, "whisper"] = [1, 2.5, 3]
    frame.at[1, "vggish"] = float("nan")
    frame.at[2, "whisper"] = []
    catalogue = Catalogue.from_frames(frame, log(), schema=SCHEMA)
    assert catalogue.items["whisper"].iloc[0].tolist() == [1, 2.5, 3]
    assert {cell.dtype.name for column in SCHEMA.vector_columns for cell in catalogue.items[column].dropna()} == {
        "float32"
    }
    assert catalogue.items["vggish"].iloc[1] is None
    assert catalogue.items["whisper"].iloc[2] is None


def test_float32_rows_are_not_copied() -> None:
    matrix = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    frame = pd.DataFrame({"item_id": list("abcdef"), "vggish": pd.Series(list(matrix), dtype=object)})
    catalogue = Catalogue.from_frames(frame, schema=AUDIO_ONLY)
    assert all(np.shares_memory(cell, matrix) for cell in catalogue.items["vggish"])


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_a_catalogue_comes_back_from_disk(file_format: Literal["parquet", "csv"], tmp_path: Path) -> None:
    catalogue = Catalogue.from_frames(items(), log(), schema=SCHEMA)
    catalogue.write(tmp_path, format=file_format)
    again = Catalogue.read(tmp_path)
    assert again.schema == SCHEMA == Schema.from_toml(SCHEMA.to_toml())
    assert (tmp_path / "vectors" / "vggish.ids.txt").read_text() == "i0\ni2\ni3\ni5\n"
    for column in SCHEMA.vector_columns:
        assert same_cells(again, catalogue, column)
    # Also over the very files that it was read from.
    assert same_cells(Catalogue.read(again.write(tmp_path, format=file_format)), again, "whisper")


def test_a_column_that_nobody_has_comes_back(tmp_path: Path) -> None:
    frame = items()
    frame["vggish"] = None
    again = Catalogue.read(Catalogue.from_frames(frame, log(), schema=SCHEMA).write(tmp_path))
    assert again.items["vggish"].tolist() == [None] * 6


def test_lists_in_parquet_are_vectors(tmp_path: Path) -> None:
    (tmp_path / "catalogue.toml").write_text(SCHEMA.to_toml())
    items().to_parquet(tmp_path / "items.parquet")
    catalogue = Catalogue.read(tmp_path)
    assert same_cells(catalogue, Catalogue.from_frames(items(), schema=SCHEMA), "vggish")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_files_are_joined_by_id_and_never_by_row(dtype: type, tmp_path: Path) -> None:
    Catalogue.from_frames(items(), log(), schema=SCHEMA).write(tmp_path)
    matrix = np.arange(20).reshape(5, 4).astype(dtype)
    np.save(tmp_path / "vectors" / "vggish.npy", matrix)
    (tmp_path / "vectors" / "vggish.ids.txt").write_bytes(b"\xef\xbb\xbfi5\r\ni0\r\ni3\r\ni1\r\ni2")
    cells = dict(zip(*(Catalogue.read(tmp_path).items[name] for name in ("item_id", "vggish")), strict=True))
    assert cells.pop("i4") is None
    assert {item_id: cell[0] for item_id, cell in cells.items()} == {"i5": 0, "i0": 4, "i3": 8, "i1": 12, "i2": 16}
    assert {cell.dtype.name for cell in cells.values()} == {"float32"}


def _ids(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "vggish.ids.txt").write_text(text)


def _matrix(matrix: np.ndarray) -> Callable[[Path], object]:
    return lambda folder: np.save(folder / "vggish.npy", matrix)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_ids("i0\ni2\ni3\n"), r"vggish.ids.txt, column 'vggish': 3 ids for the 4 vectors of vectors/vggish.npy\. Exp"),
        (_matrix(np.zeros(4)), r"vggish.npy, column 'vggish': it holds float64 of shape \(4,\). Expected numbers of"),
        (_matrix(np.array([["a"]])), "it holds <U1 of shape"),
        (lambda folder: (folder / "vggish.npy").write_text("junk"), "no NumPy matrix can be read from it"),
        (
            lambda folder: (folder / "vggish.npy").unlink(),
            r"the file is missing, while vectors/vggish.ids.txt is there",
        ),
        (lambda folder: (folder / "vggish.ids.txt").unlink(), "the file is missing, while vectors/vggish.npy is there"),
        (lambda folder: (folder / "vggish.ids.txt").write_bytes(b"\xff\n"), "no UTF-8 text can be read from it"),
    ],
)
def test_files_that_cannot_be_joined_are_one_problem(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    Catalogue.from_frames(items(), log(), schema=SCHEMA).write(tmp_path)
    damage(tmp_path / "vectors")
    for on_error in ("raise", "quarantine"):
        with pytest.raises(CatalogueError, match=message) as caught:
            Catalogue.read(tmp_path, on_error=on_error)
        assert len(caught.value.problems) == 1


def test_a_line_without_an_item_and_a_repeated_one_can_be_set_aside(tmp_path: Path) -> None:
    Catalogue.from_frames(items(), log(), schema=SCHEMA).write(tmp_path)
    _ids("i0\ni9\ni0\ni5\n")(tmp_path / "vectors")
    with pytest.raises(CatalogueError) as caught:
        Catalogue.read(tmp_path)
    assert str(caught.value).splitlines()[1:] == [
        "vectors/vggish.ids.txt, row 1: no item has this id ('i9'). Add it to items, or leave its line and its vector "
        "out.",
        "vectors/vggish.ids.txt, row 2: this id was already used in row 0 ('i0'). Keep one vector an item.",
    ]
    before = np.load(tmp_path / "vectors" / "vggish.npy")
    kept = Catalogue.read(tmp_path, on_error="quarantine")
    assert len(kept.quarantined) == 2
    assert kept.num_items == 6
    cells = kept.items["vggish"].tolist()
    assert (cells[0] == before[0]).all()
    assert (cells[5] == before[3]).all()
    assert cells[1:5] == [None] * 4


def test_bad_vectors_are_problems_of_their_rows() -> None:
    frame = items()
    frame.at[0, "vggish"] = [1.0, np.nan, 2.0, 3.0]
    frame.at[2, "vggish"] = [1.0, np.inf, 2.0, 3.0]
    frame.at[3, "vggish"] = [1.0, 2.0]
    frame.at[5, "vggish"] = "0.1|0.2"
    frame.at[1, "vggish"] = [1.0, 2.0, 3.0, 4.0]
    frame.at[4, "vggish"] = [1.0, 2.0, 3.0, 1e300]
    frame.loc[6] = ["i6", "song 6", [1.0, 2.0, 3.0, 5.0], ["a"], None]
    frame.loc[7] = ["i7", "song 7", [1.0, 2.0, 3.0, 5.0], None, None]
    with pytest.raises(CatalogueError) as caught:
        Catalogue.from_frames(frame, log(), schema=SCHEMA)
    assert str(caught.value).splitlines()[1:] == [
        "items, row 0, column 'vggish': a vector with NaN or infinity. Compute it again, or leave the cell empty.",
        "items, row 2, column 'vggish': a vector with NaN or infinity. Compute it again, or leave the cell empty.",
        "items, row 3, column 'vggish': a vector of another number of dimensions (2). Expected 4 as in most rows: "
        "compute it with the same network.",
        "items, row 4, column 'vggish': a vector with NaN or infinity. Compute it again, or leave the cell empty.",
        """items, row 5, column 'vggish': not a vector ("'0.1|0.2'"). Expected a list of numbers, or nothing; or put """
        "them into vectors/.",
        "items, row 6, column 'whisper': not a vector ('a list of 1'). Expected a list of numbers, or nothing; or put "
        "them into vectors/.",
    ]
    kept = Catalogue.from_frames(frame, log(), schema=SCHEMA, on_error="quarantine")
    assert kept.item_ids == ("i1", "i7")


def test_other_defects_are_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"vectors of one number. Declare it as an attribute, vggish = \"number\""):
        Catalogue.from_frames(pd.DataFrame({"item_id": ["a"], "vggish": [[1.0]]}), schema=AUDIO_ONLY)
    frame = pd.DataFrame({"item_id": ["a", "b"], "vggish": [[1.0, 2.0], None]})
    with pytest.raises(CatalogueError, match=r"column 'item_id': this item has no text, .*, and no vector \('b'\)"):
        Catalogue.from_frames(frame, schema=AUDIO_ONLY)
    with pytest.raises(CatalogueError, match="column 'vggish': column is missing"):
        Catalogue.from_frames(pd.DataFrame({"item_id": ["a"]}), schema=AUDIO_ONLY)
    catalogue = Catalogue.from_frames(items(), log(), schema=SCHEMA)
    with pytest.raises(CatalogueError, match=r"'a\\nb' holds a line break"):
        replace(catalogue, items=catalogue.items.assign(item_id=["a\nb", *"cdefg"])).write(tmp_path / "breaks")
    catalogue.write(tmp_path)
    items().to_parquet(tmp_path / "items.parquet")
    with pytest.raises(CatalogueError, match=r"'minilm' is in the items and in vectors/minilm.npy"):
        Catalogue.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[vectors]\nsound = ["a"]', "has no key 'sound'. It has: text, image"),
        ('[vectors]\naudio = "a"', "columns for vectors of audio are 'a'. Expected a list"),
        ('[columns]\naudio = ["a"]\n[vectors]\naudio = ["a"]', "'a' is declared as audio and as vectors of audio"),
        ('[attributes]\na = "number"\n[vectors]\naudio = ["a"]', "'a' is declared as attributes and as vectors"),
        ('[vectors]\naudio = ["../a"]', "'../a' of vectors cannot be the name of a file"),
        ('[vectors]\naudio = ["item_id"]', "'item_id' cannot be declared"),
    ],
)
def test_wrong_declarations_are_refused(text: str, message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        Schema.from_toml(f'name = "x"\n{text}')
