"""What a configuration's towers cost, as a table with its totals for people and as JSON for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig
from multimodal_rec.content import ItemContent
from multimodal_rec.costs import CatalogueSeconds, StepMemory, TowerCost, catalogue_seconds, step_memory, tower_costs
from multimodal_rec.defaults import default_config
from multimodal_rec.run_file import RunFile
from multimodal_rec.vectors import vector_columns


@dataclass(frozen=True, kw_only=True)
class CostReport:
    """The costs of all towers, and what they add up to."""

    costs: list[TowerCost]
    items_per_step: int
    """How many items a training step passes through the towers at most."""
    num_items: dict[str, int] | None
    """Modality → items of the catalogue that have it; None without a catalogue."""

    @property
    def title(self) -> str:
        """What was measured, in a line."""
        first = self.costs[0]
        return f"Towers, {first.batch_size} items a step on {first.device} in {first.precision}"

    @property
    def columns(self) -> tuple[str, ...]:
        """Headings: a column a tower, and all of them together."""
        return ("", *(cost.modality for cost in self.costs), "together")

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The table: a row a figure."""
        together = step_memory(self.costs)
        parameters = sum(cost.parameters for cost in self.costs)
        learn = sum(cost.trainable for cost in self.costs)
        rows = {
            "backbone": [*(cost.backbone for cost in self.costs), ""],
            "tuning": [*(cost.tuning for cost in self.costs), ""],
            "parameters": [*(_count(cost.parameters) for cost in self.costs), _count(parameters)],
            "of them learn": [*(f"{cost.trainable_share:.2%}" for cost in self.costs), f"{learn / parameters:.2%}"],
            "a step reads": [*("the cache" if cost.cached else "the items" for cost in self.costs), ""],
        }
        memories = [*(cost.memory for cost in self.costs), together]
        rows["memory a step"] = [_bytes(memory.total) for memory in memories]
        for name in StepMemory._fields:
            rows[f"  {name}"] = [_bytes(getattr(memory, name)) for memory in memories]
        seconds = [cost.seconds_per_step for cost in self.costs]
        rows["seconds a step"] = [_figure(each) for each in (*seconds, sum(seconds))]
        rows["trained items/s"] = [*(_figure(cost.items_per_second) for cost in self.costs), ""]
        rows["embedded items/s"] = [*(_figure(cost.embedding_items_per_second) for cost in self.costs), ""]
        rows["read items/s"] = [*(_figure(cost.reading_items_per_second) for cost in self.costs), ""]
        return [(label, *cells) for label, cells in rows.items()]

    @property
    def memory(self) -> StepMemory:
        """Of a step of `items_per_step` items through all towers."""
        return step_memory(self.costs, items_per_step=self.items_per_step)

    @property
    def seconds(self) -> CatalogueSeconds | None:
        """What the catalogue takes; None without one."""
        return None if self.num_items is None else catalogue_seconds(self.costs, self.num_items)

    @property
    def lines(self) -> list[str]:
        """The totals, in words."""
        first, tried, all_items = self.costs[0], step_memory(self.costs), self.memory
        lines = [
            f"Together {_bytes(tried.total)} in a step of {first.batch_size} items, and about "
            f"{_bytes(all_items.total)} in one of the {self.items_per_step} that training takes (items_per_step)."
        ]
        kept = sum(cost.backbone_bytes for cost in self.costs if cost.cached and cost.backbone != "frames:image")
        if kept:
            lines.append(f"Filling the cache holds {_bytes(kept)} of backbones that are kept as they are.")
        if self.seconds is not None and self.num_items is not None:
            counts = ", ".join(f"{count} {modality}" for modality, count in self.num_items.items())
            lines.append(
                f"This catalogue ({counts}): about {_duration(self.seconds.once)} once, to read every item and run it "
                f"through its backbones, then about {_duration(self.seconds.epoch)} an epoch for the towers."
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values: bytes, seconds, items a second."""
        seconds = self.seconds
        return {
            "towers": [
                {
                    **asdict(cost),
                    "memory": cost.memory._asdict(),
                    "trainable_share": cost.trainable_share,
                    "items_per_second": cost.items_per_second,
                }
                for cost in self.costs
            ],
            "items_per_step": self.items_per_step,
            "memory": {**self.memory._asdict(), "total": self.memory.total},
            "items": self.num_items,
            "seconds": None if seconds is None else seconds._asdict(),
        }


def cost_report(folder: Path | None, run: RunFile, *, batch_size: int = 8, progress: bool = False) -> CostReport:
    """What the towers of `run` cost on the items of the catalogue in `folder`, or on made-up ones where it is None.

    Without towers of its own, `run` gets the default ones of the catalogue. Raises `CatalogueError` for a broken
    catalogue and `ConfigError` as `tower_costs` does.
    """
    catalogue = None if folder is None else Catalogue.read(folder)
    config = run.config(RecommenderConfig() if catalogue is None else default_config(catalogue.schema))
    content, num_items = None, None
    if catalogue is not None:
        windows = {name: tower.max_windows for name, tower in config.towers.items()}
        vectors = vector_columns(config, catalogue.schema)
        frames = config.towers["video"].frames if "video" in config.towers else "even"
        apart = "text" in config.towers and config.towers["text"].columns_apart
        content = ItemContent(
            catalogue.items, catalogue.schema, max_windows=windows, frames=frames, vectors=vectors, texts_apart=apart
        )
        num_items = {name: int(content.present(name).sum()) for name in config.towers}
    costs = tower_costs(
        config,
        items=content,
        batch_size=batch_size,
        device=run.training.device,
        precision=run.training.precision,
        progress=progress,
    )
    return CostReport(costs=costs, items_per_step=run.training.items_per_step, num_items=num_items)


def _count(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number:,}"


def _figure(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _bytes(number: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e3:.3g} kB"


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
