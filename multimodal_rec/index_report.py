"""What an index is, and how much of the exact answer it finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass

MEASURED_K = 100
"""Recall is measured, and the cells to be read are chosen, for lists of this length."""


@dataclass(frozen=True, kw_only=True)
class IndexReport:
    """What an index is, and what it finds of the exact answer."""

    num_items: int
    dim: int
    cells: int
    """0 where every item is looked at."""
    probes: int
    """Cells read for an unfiltered list of 100."""
    recall: float
    """Share of the exact 100 best that is found; measured on queries that chose nothing."""
    recall_filtered: float
    """The same under a filter that keeps 5% of the items by chance."""
    num_queries: int
    """Queries that recall was measured on."""
    seconds: float
    """Time to build, without measuring."""
    num_bytes: int
    """Memory of the cells, beside the embeddings."""

    def __str__(self) -> str:
        if self.cells == 0:
            return f"{self.num_items} items of {self.dim} numbers, every one looked at: recall@{MEASURED_K} 1"
        return (
            f"{self.num_items} items of {self.dim} numbers in {self.cells} cells, {self.probes} of them read: "
            f"recall@{MEASURED_K} {self.recall:.4f}, {self.recall_filtered:.4f} with a filter that keeps 5% "
            f"({self.num_queries} queries); built in {self.seconds:.1f} s, {self.num_bytes / 2**20:.0f} MiB beside the "
            "embeddings"
        )

    def to_dict(self) -> dict[str, float]:
        """The fields by name, for JSON."""
        return asdict(self)
