"""Towers and the scoring path as ONNX graphs, checked against torch as they are written."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from multimodal_rec.errors import OnnxError, StoreError
from multimodal_rec.model import RecommenderModel
from multimodal_rec.onnx_graphs import Axes, ScoreGraph, TowerGraph
from multimodal_rec.onnx_scorer import ABOUT, FORMAT, item_tensors, missing, query_tensors, session
from multimodal_rec.people import Person
from multimodal_rec.scorer import Scorer
from multimodal_rec.trained import Trained
from multimodal_rec.trial_batch import trial_batch
from towers import TowerBatch

_TOLERANCE, _INT8_TOLERANCE = 1e-4, 5e-2
_TRIED_ITEMS, _TRIED_PEOPLE, _TRIED_CANDIDATES = 8, 32, 1000
_ONE_FILE_BYTES = 1_800_000_000
"""Weights beyond this, near the limit of a protocol buffer, stand in a file of their own."""


@dataclass(frozen=True, kw_only=True)
class OnnxReport:
    """What was written, and how near it is."""

    folder: str
    files: dict[str, str]
    """Graph → its file in the folder: 'score', and each modality."""
    differences: dict[str, float]
    """Graph → the largest difference between onnxruntime's numbers and torch's, over the largest number of torch's."""
    sizes: dict[str, int]
    """Graph → bytes."""

    def __str__(self) -> str:
        graphs = ", ".join(f"{name} {self.sizes[name] / 1e6:.1f} MB" for name in self.files)
        worst = max(self.differences.values())
        return f"{len(self.files)} graphs written to {self.folder}: {graphs}; at most {worst:.1e} from torch"

    def to_dict(self) -> dict[str, object]:
        """The fields by name, for JSON."""
        return asdict(self)


class _Job(NamedTuple):
    graph: TowerGraph | ScoreGraph
    fingerprint: str
    example: dict[str, Tensor]
    """What the graph is traced with: no axis of any length is 1 long, for which tracing would make an exception."""
    trials: Sequence[dict[str, Tensor]]
    """What it is checked with."""
    about: Mapping[str, object]


def export_graphs(
    trained: Trained, scorer: Scorer, folder: Path, *, items: pd.DataFrame | None, tolerance: float | None
) -> OnnxReport:
    """Write a graph a tower and `score.onnx`, and `onnx.json`, which says how to run them; `Recommender.export_onnx`.

    `items`: raw items that towers are checked with, made-up ones where there are none; the score is checked with what
    is stored. Raises `OnnxError` where a graph cannot be exported or differs by more than `tolerance` of its largest
    number (None: 1e-4, and 5e-2 for towers of int8 weights, which make steps of what float leaves to the order of its
    sums), after all others were written; `ConfigError` without the extra `onnx`,
    `StoreError` where the store holds no items of this model.
    """
    _check_installed()
    if not scorer.ids:
        raise StoreError(
            "the store holds no items of this model, and graphs are checked with some. Expected embedded items. Embed "
            "them with embed(items) first."
        )
    folder.mkdir(parents=True, exist_ok=True)
    # While graphs of two models may lie here, nothing says what they are.
    (folder / ABOUT).unlink(missing_ok=True)
    model = trained.model
    if model.log_temperature.device.type != "cpu":
        model = copy.deepcopy(model).cpu()
    model.eval()
    graphs: dict[str, dict[str, object]] = {}
    reasons: dict[str, str] = {}
    for name in (*model.towers, "score"):
        path = folder / f"{name}.onnx"
        path.unlink(missing_ok=True)
        try:
            made = _score_job(model, scorer) if name == "score" else _tower_job(model, name, trained, items)
            axes = made.graph.axes(made.example)
            _write(made.graph, made.example, axes, path)
            difference = max(_difference(made.graph, path, trial) for trial in made.trials)
        except Exception as error:
            path.unlink(missing_ok=True)
            reasons[name] = f"{type(error).__name__}: {_first_line(error)}"
            continue
        usual = _INT8_TOLERANCE if trained.int8 and name != "score" else _TOLERANCE
        allowed = usual if tolerance is None else tolerance
        if not difference <= allowed:
            path.unlink()
            reasons[name] = f"it differs from torch by {difference:.1e} of its largest number, {allowed:.1e} is allowed"
            continue
        graphs[name] = {
            "file": path.name,
            "fingerprint": made.fingerprint,
            "inputs": {each: _said(tensor, axes.inputs[each]) for each, tensor in made.example.items()},
            "outputs": {each: {"dtype": "float32", "shape": list(shape)} for each, shape in axes.outputs.items()},
            "least": dict(axes.least),
            "difference": difference,
            **made.about,
        }
    about = {"format": FORMAT, **_layout(trained, model), "graphs": graphs}
    (folder / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
    if reasons:
        raise OnnxError(
            f"{len(reasons)} of {len(reasons) + len(graphs)} graphs could not be exported to '{folder}'; the others "
            "are there. Expected networks that torch can export and that onnxruntime runs alike. Run these parts with "
            "torch, or give their towers another backbone.",
            reasons,
        )
    sizes = {name: _size(folder / str(graph["file"])) for name, graph in graphs.items()}
    differences = {name: float(str(graph["difference"])) for name, graph in graphs.items()}
    return OnnxReport(
        folder=str(folder),
        files={name: str(graph["file"]) for name, graph in graphs.items()},
        differences=differences,
        sizes=sizes,
    )


def _tower_job(model: RecommenderModel, name: str, trained: Trained, items: pd.DataFrame | None) -> _Job:
    graph = TowerGraph(model, name).eval()
    tower = model.tower(name)
    content = None if items is None else model.content_of(items, trained.schema)
    batch = trial_batch(tower, trained.config.towers[name], content, _TRIED_ITEMS).batch
    example = graph.inputs(batch, least_slots=2)
    trials = [graph.inputs(batch), graph.inputs(_first(batch))]
    backbone = tower.backbone
    about = {"prepared_by": dict(backbone.describe()), "max_windows": tower.max_windows}
    return _Job(graph, model.modality_fingerprint(name), example, trials, about)


def _first(batch: TowerBatch) -> TowerBatch:
    count = int(batch.counts[0])
    windows = {name: tensor[:count] for name, tensor in batch.windows.items()}
    return batch._replace(windows=windows, counts=batch.counts[:1])


def _score_job(model: RecommenderModel, scorer: Scorer) -> _Job:
    graph = ScoreGraph(model).eval()
    blended = model.blend is not None
    least = 1 if model.blend is None else model.blend.least_events
    people: list[str | Person] = [*scorer.people.some(_TRIED_PEOPLE)]
    people += [Person(history=scorer.ids[:2]), Person()]
    history = scorer.people.histories(people)
    last = (history.present.sum(dim=1) - 1).clamp(min=0)
    contexts = history.context[torch.arange(len(people)), last].numpy()
    rows = np.linspace(0, len(scorer.ids) - 1, min(len(scorer.ids), _TRIED_CANDIDATES)).astype(np.int64).tolist()

    def tensors(asked: slice, rows: list[int], least: int) -> dict[str, Tensor]:
        items = item_tensors(scorer, rows, blended=blended)
        arrays = query_tensors(scorer, people[asked], contexts[asked], blended=blended, least=least)
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in {**arrays, **items}.items()}

    example = tensors(slice(None), rows * 2, least + 2)
    trials = [tensors(slice(None), rows, least), tensors(slice(0, 1), rows[:1], least)]
    about = {"batch_of_people": "any", "order_of_item_sides": "behind the part * dim numbers of an item embedding"}
    return _Job(graph, scorer.fingerprint, example, trials, about)


def _write(graph: torch.nn.Module, example: dict[str, Tensor], axes: Axes, path: Path) -> None:
    dynamic = {
        name: {place: _dynamic(axis, axes) for place, axis in enumerate(shape) if isinstance(axis, str)}
        for name, shape in axes.inputs.items()
    }
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            graph,
            (),
            kwargs={"tensors": example},
            input_names=list(example),
            output_names=list(axes.outputs),
            dynamic_shapes={"tensors": dynamic},
            dynamo=True,
            verbose=False,
        )
        if program is None:
            raise OnnxError("torch.onnx.export gave nothing")
        _tidy(program.model, axes)
        size = sum(weight.numel() * weight.element_size() for weight in graph.state_dict().values())
        program.save(path, external_data=size > _ONE_FILE_BYTES)


def _dynamic(axis: str, axes: Axes) -> Any:
    least = axes.least.get(axis)
    return torch.export.Dim.DYNAMIC if least is None else torch.export.Dim.DYNAMIC(min=least)


def _tidy(model: Any, axes: Axes) -> None:
    """Names of axes as we say them; nothing of the code and the machine that made the graph."""
    import onnx_ir  # noqa: PLC0415 - an extra

    for value in model.graph.inputs:
        value.shape = onnx_ir.Shape(axes.inputs[value.name])
    for value in model.graph.outputs:
        value.shape = onnx_ir.Shape(axes.outputs[value.name])
    kept = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if id(value) not in kept:
                value.shape = None
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


def _difference(graph: torch.nn.Module, path: Path, tensors: dict[str, Tensor]) -> float:
    running = session(path)
    with torch.inference_mode():
        expected: dict[str, Tensor] = graph(tensors)
    wanted = {each.name for each in running.get_inputs()}
    given = running.run(list(expected), {name: t.numpy() for name, t in tensors.items() if name in wanted})
    found = 0.0
    for ours, theirs in zip(expected.values(), given, strict=True):
        if ours.shape != theirs.shape:
            raise OnnxError(f"it gives numbers of shape {theirs.shape}. Expected {tuple(ours.shape)}.")
        largest = max(float(ours.abs().max()), 1e-6)
        found = max(found, float(np.abs(theirs - ours.numpy()).max()) / largest)
    return found


def _layout(trained: Trained, model: RecommenderModel) -> dict[str, object]:
    layout = trained.store.layout
    return {
        "model": trained.job.fingerprint,
        "parts": list(model.parts),
        "embedding_dim": layout.embedding_dim,
        "content_rank": layout.content_rank,
        "vector_width": layout.vector_width,
        "score_dim": layout.score_dim,
        "history_length": trained.config.history_length,
        "kinds_of_event": ["", *trained.vocabulary.events],
        "context": {name: [span.start, span.stop] for name, span in trained.vocabulary.context.spans.items()},
    }


def _said(tensor: Tensor, shape: Sequence[str | int]) -> dict[str, object]:
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(shape)}


def _size(path: Path) -> int:
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))


def _first_line(error: BaseException) -> str:
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    lines = [line for line in str(root).splitlines() if line.strip()]
    return lines[0] if lines else type(root).__name__


def _check_installed() -> None:
    try:
        import onnx  # noqa: F401, PLC0415 - an extra
        import onnxruntime  # noqa: F401, PLC0415
        import onnxscript  # noqa: F401, PLC0415
    except ImportError as error:
        raise missing(error) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporting tells the logs and the warnings what no caller can change."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
