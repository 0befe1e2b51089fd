"""Vectors that were computed elsewhere, in place of media."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from towers.backbone import Backbone

_CHUNK = 1024

# No vector of its training catalogue's kind comes near it, and float16, in which features are kept, holds it.
_LIMIT = 1e4


def chosen_columns(rest: str, declared: Sequence[str]) -> tuple[str, ...]:
    """The columns that `vectors:REST` means, out of those that are declared for its modality.

    Nothing after the colon means all of them; else their names, with commas between. Raises `ValueError` for a name
    that is not declared, with the nearest one.
    """
    if not declared:
        raise ValueError(
            f"'vectors:{rest}' reads columns of vectors, and none is declared. Expected a line such as "
            'audio = ["vggish"] under [vectors] in catalogue.toml, or a tower that reads the media itself.'
        )
    # A name may hold a comma itself.
    names = tuple(declared) if not rest else (rest,) if rest in declared else tuple(map(str.strip, rest.split(",")))
    for name in names:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ValueError(
                f"'vectors:{rest}' names the column '{name}', which is not declared for this modality. Expected "
                f"{', '.join(map(repr, declared))}, or nothing after the colon for all of them.{hint}"
            )
    return tuple(dict.fromkeys(names))


@dataclass(frozen=True, eq=False, kw_only=True)
class VectorStatistics:
    """How the vectors of one modality lie in a training catalogue: what standardises them."""

    columns: tuple[str, ...]
    """Which columns, in the order in which they are joined."""
    means: tuple[np.ndarray, ...]
    """Float32 (dim,) a column: where its vectors have their middle."""
    scales: tuple[float, ...]
    """A column's root of the mean square of a centred number; 1 where all its vectors are the same."""

    @classmethod
    def fit(cls, columns: Mapping[str, Sequence[np.ndarray | None] | np.ndarray]) -> VectorStatistics:
        """The statistics of these columns: name → float (dim,) an item, None where an item has none.

        A matrix (item, dim) does for a column, too. Raises `ValueError` for a column without any vector.
        """
        fitted = {name: _mean_and_scale(name, cells) for name, cells in columns.items()}
        return cls(
            columns=tuple(fitted),
            means=tuple(mean for mean, _ in fitted.values()),
            scales=tuple(scale for _, scale in fitted.values()),
        )

    @property
    def dims(self) -> tuple[int, ...]:
        """Numbers a vector, by column."""
        return tuple(len(mean) for mean in self.means)

    def to_dict(self) -> dict[str, Any]:
        """These statistics as plain JSON values; `from_dict` reads them back."""
        return {
            name: {"mean": mean.tolist(), "scale": scale}
            for name, mean, scale in zip(self.columns, self.means, self.scales, strict=True)
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VectorStatistics:
        """The statistics that `to_dict` described."""
        return cls(
            columns=tuple(values),
            means=tuple(np.array(column["mean"], dtype=np.float32) for column in values.values()),
            scales=tuple(float(column["scale"]) for column in values.values()),
        )


class Standardised(nn.Module):
    """(row - mean) · gain, and 0 where the row is NaN: (batch, dim) → (batch, dim)."""

    mean: Tensor
    gain: Tensor

    def __init__(self, mean: Tensor, gain: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("gain", gain)

    def forward(self, rows: Tensor) -> Tensor:
        """The standardised rows, cut far outside of anything the training catalogue held."""
        return torch.nan_to_num((rows - self.mean) * self.gain).clamp(-_LIMIT, _LIMIT)


@final
class PrecomputedVectors(Backbone):
    """An item's vectors of one modality, standardised and side by side; nothing in it learns.

    Each column is centred and divided by one number, so that the angles between its vectors stay as they were made
    (a scale for each of a vector's numbers was tried with content k-NN: as good, and it blows up a number that never
    changes). Columns are joined with equal weight however long their vectors are; one that an item lacks is 0 there,
    which is its mean.
    """

    def __init__(self, statistics: VectorStatistics, *, modality: str) -> None:
        super().__init__()
        self.modality = modality
        self.columns = statistics.columns
        self.dim = sum(statistics.dims)
        self._dims = statistics.dims
        gains = [
            np.full(dim, math.sqrt(self.dim / (len(self.columns) * dim)) / scale, dtype=np.float32)
            for dim, scale in zip(statistics.dims, statistics.scales, strict=True)
        ]
        self.net: nn.Module = Standardised(
            torch.from_numpy(np.concatenate(statistics.means)), torch.from_numpy(np.concatenate(gains))
        )
        self.eval()

    def prepare(self, value: Any, max_windows: int) -> dict[str, Tensor]:  # noqa: ARG002 - an item has one row
        """One row of one item, float32 (1, dim), NaN where it lacks a column.

        `value`: a float array (dim,), or a list with an array or None a column. Raises `TypeError` for anything else,
        `ValueError` for other dims, for numbers that are not finite, and where all columns are None.
        """
        row = np.full((1, self.dim), np.nan, dtype=np.float32)
        start = 0
        for name, dim, vector in zip(self.columns, self._dims, self._by_column(value), strict=True):
            if vector is not None:
                if vector.shape != (dim,):
                    raise ValueError(
                        f"a vector of '{name}' has the shape {vector.shape}. Expected ({dim},) as in training: "
                        "compute it with the same network."
                    )
                with np.errstate(over="ignore"):
                    row[0, start : start + dim] = vector
                if not np.isfinite(row[0, start : start + dim]).all():
                    raise ValueError(
                        f"a vector of '{name}' holds NaN or infinity. Expected finite numbers; leave it out where "
                        "there is none."
                    )
            start += dim
        if np.isnan(row).all():
            raise ValueError(f"no vector was given. Expected one of {', '.join(map(repr, self.columns))}.")
        return {"vectors": torch.from_numpy(row)}

    def forward(self, windows: dict[str, Tensor]) -> Tensor:
        """One row an item: (item, dim)."""
        return self.net(windows["vectors"])

    def describe(self) -> Mapping[str, Any]:
        """Which columns are read, and how long their vectors are."""
        return {"class": type(self).__name__, "columns": list(self.columns), "dims": list(self._dims)}

    def _by_column(self, value: Any) -> Sequence[np.ndarray | None]:
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            joined = len(self.columns) > 1 and value.shape == (self.dim,)
            value = np.split(value, np.cumsum(self._dims)[:-1]) if joined else [value]
        if isinstance(value, (list, tuple)) and all(
            each is None or (isinstance(each, np.ndarray) and each.dtype.kind in "fiu") for each in value
        ):
            if len(value) != len(self.columns):
                raise ValueError(
                    f"{len(value)} vectors were given. Expected one (or None) for each of "
                    f"{', '.join(map(repr, self.columns))}."
                )
            return value
        raise TypeError(
            f"expected a float array of {self.dim} numbers, or a list with an array or None for each of "
            f"{', '.join(map(repr, self.columns))}; got {type(value).__name__}."
        )


def _mean_and_scale(name: str, cells: Sequence[np.ndarray | None] | np.ndarray) -> tuple[np.ndarray, float]:
    vectors = [cell for cell in cells if cell is not None]
    if not vectors:
        raise ValueError(f"no item has a vector in the column '{name}'. Expected some to learn their middle from.")
    chunks = [vectors[start : start + _CHUNK] for start in range(0, len(vectors), _CHUNK)]
    # Chunk by chunk and in float64: the whole matrix is copied nowhere, and float16 sums would overflow.
    mean = sum(np.stack(chunk).sum(axis=0, dtype=np.float64) for chunk in chunks) / len(vectors)
    square = sum(float(np.square(np.stack(chunk) - mean).sum()) for chunk in chunks)
    scale = math.sqrt(square / (len(vectors) * len(vectors[0])))
    # Vectors that are all the same differ from their mean by rounding only, and that is not to be blown up.
    return np.asarray(mean, dtype=np.float32), scale if scale > 1e-6 * float(np.abs(mean).max()) else 1.0
