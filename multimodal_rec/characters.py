"""Cells that hold bytes which are no characters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd

from multimodal_rec.errors import Problem

_read = partial(pd.read_csv, keep_default_na=False, na_values=[""], encoding="utf-8")


def read_csv_text(path: str) -> pd.DataFrame:
    """A CSV file with every cell as text, None where it is empty.

    Bytes that are no UTF-8 come back as lone surrogates, by which `not_utf8` finds their rows. Raises `ValueError` for
    a file that is no table.
    """
    # Everything as text: ids such as "007" stay whole, and a word in a column of numbers is found with its row.
    try:
        return _read(path, dtype=str)
    except UnicodeDecodeError:
        # As objects: pandas' own strings cannot hold a surrogate.
        return _read(path, dtype=object, encoding_errors="surrogateescape")


def csv_text_chunks(path: str, size: int) -> Iterator[pd.DataFrame]:
    """The same, `size` rows at a time, never held whole; bytes that are no UTF-8 are surrogates from the first on."""
    with _read(path, dtype=object, encoding_errors="surrogateescape", chunksize=size) as chunks:
        yield from chunks


def not_utf8(frame: pd.DataFrame, file: str) -> list[Problem]:
    """A problem for each cell with a lone surrogate, which UTF-8 cannot hold."""
    problems: list[Problem] = []
    for column in frame.columns:
        if not pd.api.types.is_object_dtype(frame[column]):
            continue
        for row, value in enumerate(frame[column]):
            if isinstance(value, str) and not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError:
                    raw = value.encode(errors="surrogateescape") if _from_bytes(value) else value
                    problems.append(Problem(file, row, str(column), raw, "not UTF-8", "Save the file as UTF-8."))
    return problems


def _from_bytes(text: str) -> bool:
    """Whether every surrogate in it stands for one byte that could not be decoded."""
    return all(not 0xD800 <= ord(letter) <= 0xDFFF or 0xDC80 <= ord(letter) <= 0xDCFF for letter in text)
