"""Items grouped by direction into cells, of which a search reads the nearest: FAISS's inverted file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import faiss
import numpy as np

from multimodal_rec.errors import StoreError

# k-means sees at most this many items a cell, this often: a fraction of what FAISS does unless told, to build sooner.
_TRAINED_ON, _ROUNDS = 48, 8
# Where a filter keeps much, what it keeps of each cell is estimated on this many items drawn by chance.
_SAMPLE = 65_536
# How many times the items are read, at most, where those that are allowed lie together in few cells.
_REACH = 4.0
# FAISS reads this many numbers of an embedding at a time, where they divide its width, else one by one.
_LANES = 16


@final
class Cells:
    """Items by the direction of their embedding (spherical k-means), each kept as one byte a number.

    Source: product quantization's inverted file (Jégou et al. 2011, arXiv:1702.08734 for the implementation) with a
    scalar quantiser of 8 bits.
    """

    def __init__(self, inverted: Any) -> None:
        self._inverted = inverted
        self.num_items = int(inverted.ntotal)
        self.width = int(inverted.d)
        self.count = int(inverted.nlist)
        self._centroids = inverted.quantizer.reconstruct_n(0, self.count)
        sizes = [inverted.invlists.list_size(cell) for cell in range(self.count)]
        members = [
            faiss.rev_swig_ptr(inverted.invlists.get_ids(cell), size) if size else np.zeros(0, dtype=np.int64)
            for cell, size in enumerate(sizes)
        ]
        self._members = np.concatenate(members).astype(np.int32)
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._spread = _spread(np.array(sizes))
        self._cell_of = np.empty(self.num_items, dtype=np.int32)
        self._cell_of[self._members] = np.repeat(np.arange(self.count, dtype=np.int32), sizes)
        rng = np.random.default_rng(0)
        drawn = rng.integers(0, self.num_items, size=_SAMPLE, dtype=np.int32)
        self._sample = np.sort(drawn) if self.num_items > _SAMPLE else np.arange(self.num_items, dtype=np.int32)
        self._sampled_cells = self._cell_of[self._sample]

    @classmethod
    def build(cls, embeddings: np.ndarray, *, count: int, seed: int = 0) -> Cells:
        """`count` cells of the embeddings, float32 (item, dim); the same seed gives the same cells."""
        width = padded_width(embeddings.shape[1])
        embeddings = _padded(embeddings, width)
        coarse = faiss.IndexFlatIP(width)
        inverted = faiss.IndexIVFScalarQuantizer(
            coarse, width, count, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        inverted.cp.niter = _ROUNDS
        inverted.cp.max_points_per_centroid = _TRAINED_ON
        inverted.cp.min_points_per_centroid = 1
        inverted.cp.seed = seed
        inverted.train(embeddings)
        inverted.add(embeddings)
        return cls(inverted)

    @property
    def num_bytes(self) -> int:
        """What the cells take in memory, beside the embeddings themselves."""
        own = (self._centroids, self._members, self._starts, self._cell_of, self._sample, self._sampled_cells)
        return self.num_items * (self.width + 8) + sum(array.nbytes for array in own)

    def candidates(
        self, queries: np.ndarray, count: int, *, probes: int, allowed: np.ndarray | None = None
    ) -> np.ndarray:
        """The `count` rows a query of the highest inner products, int64 (query, count), best first, -1 where none.

        Products are those of the rounded embeddings, and only items of the query's `probes` nearest cells are seen.
        `allowed`: bool (item,).
        """
        queries, probes = _padded(queries, self.width), min(probes, self.count)
        parameters = faiss.SearchParametersIVF()
        parameters.nprobe = probes
        if allowed is None:
            return self._inverted.search(queries, count, params=parameters)[1]
        # FAISS keeps pointers only: both must live until the search is over.
        bits = np.packbits(allowed, bitorder="little")
        chosen = faiss.IDSelectorBitmap(self.num_items, faiss.swig_ptr(bits))
        parameters.sel = chosen
        return self._inverted.search(queries, count, params=parameters)[1]

    def probes_for(self, queries: np.ndarray, allowed: np.ndarray, *, wanted: float) -> int:
        """How many nearest cells hold `wanted` allowed items for each of the queries; every cell where none does.

        Where few cells hold them, as where a filter keeps whole themes, more are wanted: the best of them may all lie
        far from the query, where directions of cells tell less of which item is nearest.
        """
        is_sampled = np.count_nonzero(allowed) > len(allowed) // 32
        cells = self._sampled_cells[allowed[self._sample]] if is_sampled else self._cell_of[allowed]
        each = np.bincount(cells, minlength=self.count)
        wanted *= min(_REACH, max(1.0, self._spread / _spread(each)))
        if is_sampled:
            each = each * (self.num_items / len(self._sample))
        nearest = np.argsort(-(queries @ self._centroids[:, : queries.shape[1]].T), axis=1)
        held = np.cumsum(each[nearest], axis=1)
        return min(self.count, int((held < wanted).sum(axis=1).max(initial=0)) + 1)

    def members(self, query: np.ndarray, *, probes: int) -> np.ndarray:
        """The rows of all items of the query's nearest cells, int32; `query`: float32 (dim,)."""
        nearest = np.argsort(-(self._centroids[:, : len(query)] @ query))[:probes]
        return np.concatenate([self._members[self._starts[cell] : self._starts[cell + 1]] for cell in nearest])

    def write(self, path: Path) -> None:
        """Write the cells to one file."""
        faiss.write_index(self._inverted, str(path))

    @classmethod
    def read(cls, path: Path) -> Cells:
        """The cells that `write` left in a file. Raises `StoreError` where it holds nothing of the kind."""
        try:
            inverted = faiss.read_index(str(path))
        except RuntimeError as error:
            raise StoreError(
                f"no index can be read from '{path}'. Expected a file that build_index wrote; FAISS says: {error}. "
                "Build it again."
            ) from error
        if not isinstance(inverted, faiss.IndexIVFScalarQuantizer):
            raise StoreError(
                f"'{path}' holds a {type(inverted).__name__}. Expected an IndexIVFScalarQuantizer. Build it again."
            )
        return cls(inverted)


def _spread(sizes: np.ndarray) -> float:
    """Over how many cells items are spread, from (cell,) numbers of them: one over the chance that two of them share a
    cell (Simpson 1949), which a few items drawn from many tell without bias."""
    count = float(sizes.sum())
    return count * (count - 1) / max(float((sizes * (sizes - 1.0)).sum()), 1e-12)


def padded_width(dim: int) -> int:
    """How many numbers the cells keep of embeddings of this many."""
    return -(-dim // _LANES) * _LANES


def _padded(embeddings: np.ndarray, width: int) -> np.ndarray:
    """The embeddings with zeros behind them, float32 (item, width); inner products stay as they are."""
    missing = width - embeddings.shape[1]
    return embeddings if missing == 0 else np.pad(embeddings, ((0, 0), (0, missing)))
