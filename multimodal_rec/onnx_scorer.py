"""Scores of people in contexts through an exported graph: no torch in the heavy part."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from multimodal_rec.errors import ConfigError, OnnxError
from multimodal_rec.people import Person
from multimodal_rec.scorer import Scorer

ABOUT = "onnx.json"
"""The file that names the graphs of a folder, their tensors and their fingerprints."""
FORMAT = 1
"""Of that file and the graphs that it names."""
_BATCH = 256


@final
class OnnxScorer:
    """Ranks as `Scorer.rank` does, by onnxruntime, over the items and people of a scorer.

    `folder`: what `export_onnx` wrote of the scorer's model; `num_threads` of one call, None for all cores. Threads
    may share it. Raises `OnnxError` where the folder holds nothing of the kind, or what another model scores with.
    """

    def __init__(self, folder: str | Path, scorer: Scorer, *, num_threads: int | None = None) -> None:
        about = read_about(Path(folder))
        graph = about["graphs"].get("score")
        if graph is None or graph["fingerprint"] != scorer.fingerprint:
            found = "none" if graph is None else graph["fingerprint"]
            raise OnnxError(
                f"the graph 'score' in '{folder}' is of fingerprint {found}. Expected {scorer.fingerprint}, that of "
                "the model whose items are to be ranked. Export this model, or load the one that was exported.",
            )
        self._scorer = scorer
        self._blended = "item_sides" in graph["inputs"]
        self._least = int(graph["least"].get("whole_event", 1))
        self._session = session(Path(folder) / graph["file"], num_threads)

    def rank(
        self, people: Sequence[str | Person], contexts: np.ndarray, rows: Sequence[int] | None = None
    ) -> np.ndarray:
        """Context-aware ranking scores, float32 (person, item), of the items in `rows` (None: all).

        `contexts`: encoded, (person, context width).
        """
        items = item_tensors(self._scorer, rows, blended=self._blended)
        blocks = [np.zeros((0, len(items["item_tokens"])), dtype=np.float32)]
        for start in range(0, len(people), _BATCH):
            part = slice(start, start + _BATCH)
            asked = query_tensors(self._scorer, people[part], contexts[part], blended=self._blended, least=self._least)
            blocks.append(self._session.run(["scores"], {**asked, **items})[0])
        return np.concatenate(blocks)


def read_about(folder: Path) -> dict[str, Any]:
    """What a folder says of its graphs. Raises `OnnxError` where it says nothing, or in another format."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        found = about["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OnnxError(
            f"'{folder}' holds no exported graphs: '{ABOUT}' is missing or damaged ({error}). Expected a folder that "
            "export_onnx wrote. Export again.",
        ) from error
    if found != FORMAT:
        raise OnnxError(
            f"'{folder}' holds graphs in format {found}. This release reads format {FORMAT} and no other. Export again."
        )
    return about


def item_tensors(scorer: Scorer, rows: Sequence[int] | None, *, blended: bool) -> dict[str, np.ndarray]:
    """The score graph's `item_*`: what is stored of the items in `rows` (None: all)."""
    table, chosen = scorer.table, slice(None) if rows is None else np.asarray(rows, dtype=np.int64)
    tensors = {"item_tokens": table.tokens[chosen], "item_present": table.present[chosen]}
    if blended:
        fused_dim = table.tokens.shape[1] * table.tokens.shape[2]
        tensors["item_sides"] = np.ascontiguousarray(table.embeddings[chosen, fused_dim:])
    return tensors


def query_tensors(
    scorer: Scorer, people: Sequence[str | Person], contexts: np.ndarray, *, blended: bool, least: int
) -> dict[str, np.ndarray]:
    """The rest of the score graph's inputs: people, their histories, and the items that these hold."""
    history = scorer.people.histories(people)
    whole = scorer.people.histories(people, whole=True) if blended else history
    # Padding names some item too, but no more than one.
    taken, index = np.unique(
        np.concatenate([history.item_index.numpy().ravel(), whole.item_index.numpy().ravel()]), return_inverse=True
    )
    shown = history.present.shape
    tensors = {f"history_{name}": tensor.numpy() for name, tensor in history._asdict().items() if name != "item_index"}
    tensors["history_item"] = index[: history.present.numel()].reshape(shown)
    tensors |= {"person": scorer.people.features(people).numpy(), "context": contexts}
    tensors |= {"taken_tokens": scorer.table.tokens[taken], "taken_present": scorer.table.present[taken]}
    if blended:
        kept = {"kind": whole.kind, "value": whole.value, "age_days": whole.age_days, "present": whole.present}
        arrays = {f"whole_{name}": tensor.numpy() for name, tensor in kept.items()}
        arrays["whole_item"] = index[history.present.numel() :].reshape(whole.present.shape)
        if scorer.model.blend is not None and scorer.model.blend.turns:
            arrays["whole_context"] = whole.context.numpy()
        room = ((0, 0), (0, max(0, least - whole.present.shape[1])))
        tensors |= {name: np.pad(array, [*room, (0, 0)][: array.ndim]) for name, array in arrays.items()}
        tensors["taken_vectors"] = scorer.item_vectors[taken]
    return tensors


def session(path: Path, num_threads: int | None = None) -> Any:
    """A graph ready to run. Raises `ConfigError` where onnxruntime is not installed."""
    try:
        import onnxruntime  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing(error) from error
    options = onnxruntime.SessionOptions()
    # What it has to say of itself is of no use to a caller.
    options.log_severity_level = 3
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def missing(error: ImportError) -> ConfigError:
    """The error that names the extra."""
    return ConfigError(
        f"ONNX graphs need onnx, onnxscript and onnxruntime, which cannot be imported ({error}). Install them with "
        "`pip install multimodal-rec[onnx]`."
    )
