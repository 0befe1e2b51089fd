"""Exported graphs give what torch gives, for any number of people, events and items, and say what they are."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from multimodal_rec.builders import build_tower
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.collaborative.settings import GraphConfig, ItemItemConfig, SequenceConfig, TasteConfig
from multimodal_rec.config import TowerConfig
from multimodal_rec.errors import ConfigError, OnnxError, StoreError
from multimodal_rec.model import ModelShape, RecommenderModel
from multimodal_rec.onnx_export import _difference, _write
from multimodal_rec.onnx_graphs import TowerGraph
from multimodal_rec.people import Person
from multimodal_rec.recommender import Recommender
from tests.multimodal_rec.tiny import CPU, tiny_config
from tests.towers.tiny import TINY_SPEECH, film, picture, tone, write_clip_config
from towers import Tower
from towers.audio import TorchaudioSound

onnx = pytest.importorskip("onnx", exc_type=ImportError)
onnxruntime = pytest.importorskip("onnxruntime", exc_type=ImportError)

PEOPLE = ["u0", Person(["i3", "i4", "i3"]), "u5", Person(), "u7"]
BLEND = {
    "sequence": SequenceConfig(dim=8, epochs=1, window=6, events_a_step=64),
    "graph": GraphConfig(dim=8, epochs=1, every=1, num_neighbours=2),
    "item_item": ItemItemConfig(rank=4, strength=5.0),
    "taste": TasteConfig(dim=2, num_unexplained=2, epochs=1, every=1, events_a_step=64, window=6, num_alternatives=16),
}


@pytest.fixture(scope="module")
def graphs(fitted: Recommender, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    report = fitted.export_onnx(folder, items=catalogue.items)
    assert set(report.files) == {"text", "image", "score"}
    assert max(report.differences.values()) < 1e-5
    assert "3 graphs written" in str(report)
    assert report.sizes["text"] == (folder / "text.onnx").stat().st_size
    return folder


def running(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_the_scorer_ranks_as_torch_does(fitted: Recommender, graphs: Path) -> None:
    scorer, torch_scorer = fitted.onnx_scorer(graphs, num_threads=1), fitted._ready()
    contexts = fitted._contexts([{"hour": hour, "device": "tv"} for hour in range(len(PEOPLE))], len(PEOPLE))
    for rows in (None, [3], [5, 1, 5]):
        expected = torch_scorer.rank(PEOPLE, contexts, rows)
        given = scorer.rank(PEOPLE, contexts, rows)
        assert given.dtype == np.float32
        np.testing.assert_allclose(given, expected, atol=1e-5)
    np.testing.assert_allclose(
        scorer.rank(PEOPLE[:1], contexts[:1]), torch_scorer.rank(PEOPLE, contexts)[:1], atol=1e-5
    )
    assert scorer.rank([], contexts[:0]).shape == (0, len(torch_scorer.ids))


def test_what_the_json_says_is_enough_to_run_a_tower(fitted: Recommender, graphs: Path, catalogue: Catalogue) -> None:
    about = json.loads((graphs / "onnx.json").read_text())
    assert about["parts"] == ["text", "image", "attributes", "behaviour"]
    assert about["model"] == fitted._fitted().job.fingerprint
    text = about["graphs"]["text"]
    assert text["fingerprint"] == fitted._fitted().model.modality_fingerprint("text")
    assert text["inputs"]["input_ids"] == {"dtype": "int64", "shape": ["window", "token"]}
    assert text["inputs"]["place"]["shape"] == ["item", "slot"]
    row = catalogue.items.index[catalogue.items["item_id"] == "i3"][0]
    prepared = fitted.towers["text"].prepare([[catalogue.items.loc[row, "title"]]])
    feed = {name: tensor.numpy() for name, tensor in prepared.windows.items()}
    feed |= {"place": np.zeros((1, 1), np.int64), "present": np.ones((1, 1), bool)}
    (numbers,) = running(graphs / text["file"]).run(["numbers"], feed)
    table = fitted._ready().table
    # Rows hold float16, and so does what a frozen backbone gave.
    np.testing.assert_allclose(numbers[0], table.tokens[table.ids.index("i3"), 0], atol=5e-3)


def test_graphs_are_valid_and_say_nothing_of_the_machine(graphs: Path) -> None:
    for path in graphs.glob("*.onnx"):
        onnx.checker.check_model(str(path), full_check=True)
        content = path.read_bytes()
        assert b"site-packages" not in content
        assert b".py" not in content
    score = onnx.load(graphs / "score.onnx").graph
    shapes = {each.name: [d.dim_param or d.dim_value for d in each.type.tensor_type.shape.dim] for each in score.input}
    assert shapes["history_item"] == ["person", "event"]
    assert shapes["item_tokens"] == ["item", 4, 8]


def test_queries_search_the_stored_embeddings(fitted: Recommender, graphs: Path) -> None:
    from multimodal_rec.onnx_scorer import item_tensors, query_tensors

    scorer = fitted._ready()
    contexts = fitted._contexts(None, len(PEOPLE))
    feed = {
        **query_tensors(scorer, PEOPLE, contexts, blended=False, least=1),
        **item_tensors(scorer, [0], blended=False),
    }
    (queries,) = running(graphs / "score.onnx").run(["queries"], feed)
    np.testing.assert_allclose(queries, scorer.search_queries(PEOPLE, contexts), atol=1e-5)


def test_another_model_is_refused(own: Recommender, graphs: Path, tmp_path: Path) -> None:
    with torch.no_grad():
        own._fitted().model.query.part_scale.add_(0.1)
    own._scorer = None
    with pytest.raises(OnnxError, match=r"graph 'score'.*is of fingerprint .*Export this model"):
        own.onnx_scorer(graphs)
    about = json.loads((graphs / "onnx.json").read_text())
    (tmp_path / "onnx.json").write_text(json.dumps({**about, "format": 0}))
    with pytest.raises(OnnxError, match=r"in format 0\. This release reads format 1 and no other\. Export again"):
        own.onnx_scorer(tmp_path)
    (tmp_path / "onnx.json").unlink()
    with pytest.raises(OnnxError, match=r"holds no exported graphs.*onnx.json"):
        own.onnx_scorer(tmp_path)


def test_what_cannot_be_exported_is_named_and_the_rest_is_written(
    own: Recommender, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = own.towers["image"].backbone.net

    def of_values(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flatten(1)[:, : own.towers["image"].backbone_dim] if pixels.sum() > 0 else pixels.flatten(1)

    def write(graph: torch.nn.Module, example: Any, axes: Any, path: Path) -> None:
        # The others take long, and are another test's.
        _write(graph, example, axes, path) if path.stem == "image" else path.touch()

    monkeypatch.setattr(net, "forward", of_values)
    monkeypatch.setattr("multimodal_rec.onnx_export._write", write)
    monkeypatch.setattr("multimodal_rec.onnx_export._difference", lambda *_: 0.0)
    with pytest.raises(OnnxError, match=r"1 of 3 graphs could not be exported.*\nimage: ") as caught:
        own.export_onnx(tmp_path, items=catalogue.items)
    assert set(caught.value.reasons) == {"image"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["onnx.json", "score.onnx", "text.onnx"]
    assert set(json.loads((tmp_path / "onnx.json").read_text())["graphs"]) == {"text", "score"}


def test_beyond_tolerance_is_refused(own: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multimodal_rec.onnx_export._write", lambda *given: given[-1].touch())
    monkeypatch.setattr("multimodal_rec.onnx_export._difference", lambda *_: 0.5)
    with pytest.raises(OnnxError, match=r"score: it differs from torch by 5\.0e-01 of its largest number, 1\.0e-04"):
        own.export_onnx(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["onnx.json"]


def test_without_the_extra_it_is_named(own: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install multimodal-rec\[onnx\]"):
        own.export_onnx(tmp_path)


def test_a_model_without_items_is_refused(own: Recommender, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no items of this model.*embed\(items\) first"):
        own.quantised().export_onnx(tmp_path)


@pytest.fixture(scope="module")
def blended(bert: Path, catalogue: Catalogue) -> Iterator[Recommender]:
    config = tiny_config(bert, collaborative=BLEND)
    text = replace(config.towers["text"], columns_apart=True)
    config = replace(config, towers={"text": text})
    part = catalogue.split("last")
    yield (made := Recommender(config).fit(part[0], valid=part[1], training=replace(CPU, epochs=1)))
    made.close()


@pytest.mark.slow
def test_collaborative_scores_are_in_the_graph(blended: Recommender, catalogue: Catalogue, tmp_path: Path) -> None:
    blend = blended._fitted().model.blend
    assert blend is not None
    blend.weights.copy_(torch.tensor([[1.0, 0.5, 0.7, 0.9, 0.6], [0.8, 1.1, 0.6, 0.4, 1.2]]))
    blended.embed(catalogue.items.assign(genre="rock"))
    report = blended.export_onnx(tmp_path, items=catalogue.items)
    assert max(report.differences.values()) < 1e-4
    scorer, torch_scorer = blended.onnx_scorer(tmp_path), blended._ready()
    contexts = blended._contexts({"hour": 3, "device": "tv"}, len(PEOPLE))
    expected = torch_scorer.rank(PEOPLE, contexts)
    np.testing.assert_allclose(scorer.rank(PEOPLE, contexts), expected, atol=1e-4)
    np.testing.assert_allclose(scorer.rank(PEOPLE[:1], contexts[:1], [2]), expected[:1, [2]], atol=1e-4)
    about = json.loads((tmp_path / "onnx.json").read_text())["graphs"]["score"]
    assert about["least"] == {"whole_event": 6}


@pytest.mark.slow
def test_int8_towers_export_their_integers(own: Recommender, catalogue: Catalogue, tmp_path: Path) -> None:
    quantised = own.quantised()
    quantised.embed(catalogue.items)
    report = quantised.export_onnx(tmp_path, items=catalogue.items, tolerance=1e-2)
    kinds = [node.op_type for node in onnx.load(tmp_path / "text.onnx").graph.node]
    assert kinds.count("MatMulInteger") == 12
    assert report.differences["text"] < 1e-2


def of_name(name: str, **settings: Any) -> Tower:
    return build_tower(TowerConfig(name, pretrained=False, **settings), embedding_dim=8, seed=0)


FAMILIES: dict[str, tuple[Callable[[], Tower], list[Any]]] = {
    "vit": (lambda: of_name("timm:test_vit", image_size_px=32), [picture(1), [picture(2), picture(3)]]),
    "clip": (lambda: of_name("open_clip:tiny-clip"), [picture(1), picture(2)]),
    "spectrogram": (lambda: of_name("spectrogram:test_byobnet", clip_seconds=1.0), [tone(440, 2.5), tone(200, 0.5)]),
    "frames": (lambda: of_name("frames:timm:test_vit", image_size_px=32), [film(1, 4), film(2, 2)]),
    "wav2vec": (lambda: Tower(speech("WAV2VEC2_BASE"), 8), [tone(440, 1.2), tone(200, 0.2)]),
    "wavlm": (lambda: Tower(speech("WAVLM_BASE"), 8), [tone(440, 1.2), tone(200, 0.2)]),
    "side": (lambda: beside("timm:test_vit"), [picture(1)]),
}


def beside(name: str) -> Tower:
    """A tower with a side network, as a loaded recommender has it."""
    config = TowerConfig(name, image_size_px=32, tuning="adapter", adapter="side")
    return build_tower(config, embedding_dim=8, seed=0, load_weights=False)


def speech(name: str) -> TorchaudioSound:
    return TorchaudioSound(name, pretrained=False, clip_seconds=0.5, sizes=TINY_SPEECH)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_towers_can_be_exported(family: str, tmp_path: Path) -> None:
    if family == "clip":
        open_clip.add_model_config(write_clip_config(tmp_path))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        make, values = FAMILIES[family]
        tower = make().eval()
    shape = ModelShape(
        embedding_dim=8, attribute_width=1, behaviour_width=1, context_width=1, person_width=1, event_weights=(1.0,)
    )
    graph = TowerGraph(RecommenderModel({tower.modality: tower}, shape).eval(), tower.modality).eval()
    example = graph.inputs(tower.prepare(values * 2), least_slots=2)
    _write(graph, example, graph.axes(example), tmp_path / "tower.onnx")
    for some in (values, values[-1:], values[:1] * 3):
        assert _difference(graph, tmp_path / "tower.onnx", graph.inputs(tower.prepare(some))) < 1e-5
