"""The verbs on a filled store, as people and machines call them."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.cli import app
from multimodal_rec.commands.storing import EngineChoice, NumbersChoice
from multimodal_rec.compression import NUMBERS
from multimodal_rec.embedding import EmbedReport
from multimodal_rec.ray_engine import RayEngine, ray_engine


def call(*arguments: object):
    """The result of one command: exit_code, stdout, stderr."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_choices_are_those_of_the_library() -> None:
    assert tuple(choice.value for choice in NumbersChoice) == NUMBERS


def test_an_index_and_an_export_of_a_store(saved: Path, tmp_path: Path) -> None:
    model, store = saved, tmp_path / "store"
    asked = ("--store", store, "--user", "u0")
    best = json.loads(call("recommend", model, *asked, "--k", 3, "--json").stdout)["recommendations"][0]["items"]
    built = json.loads(call("index", model, "--store", store, "--exact-up-to", 5, "--json").stdout)
    assert (built["num_items"], built["cells"]) == (14, 7)
    assert len(list((store / "index").glob("*/about.json"))) == 1
    assert "14 items of" in call("index", model, "--store", store).stdout
    whole = call("recommend", model, *asked, "--k", 3, "--shortlist", 14, "--json")
    items = json.loads(whole.stdout)["recommendations"][0]["items"]
    assert [entry["item"] for entry in items] == [entry["item"] for entry in best]
    short = call("recommend", model, *asked, "--k", 3, "--shortlist", 2)
    assert short.exit_code == 1
    assert short.stderr.startswith("error: Query.shortlist is 2, and k is 3")
    assert short.stderr.count("\n") == 1

    exported = call("export", model, tmp_path / "items.npy", "--store", store, "--numbers", "int8", "--dims", 4)
    assert exported.exit_code == 0, exported.output
    assert "as int8, 4 bytes each" in exported.stdout
    assert json.loads((tmp_path / "items.ids.json").read_text())[-1] == "i9"
    as_json = call("export", model, tmp_path / "text.parquet", "--store", store, "--part", "text", "--json")
    assert json.loads(as_json.stdout)["num_items"] == 13
    assert call("export", model, tmp_path / "x.npy", "--store", store, "--numbers", "int4").exit_code == 2
    assert "Expected .parquet or .npy" in call("export", model, tmp_path / "x.csv", "--store", store).stderr


def test_an_update_is_in_the_store_and_in_the_model(saved: Path, tmp_path: Path) -> None:
    model, store = tmp_path / "model", tmp_path / "store"
    shutil.copytree(saved, model)
    asked = ("recommend", model, "--store", store, "--user", "newcomer", "--k", 3, "--json")
    assert call(*asked).exit_code == 1
    events = tmp_path / "events.csv"
    events.write_text("user_id,item_id,timestamp,event\nnewcomer,i3,2025-01-01T09:00:00Z,like\n")
    done = call("update", model, events, "--store", store)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("1 new interactions, 0 known already, 1 new people; 1 items recomputed")
    shown = json.loads(call(*asked).stdout)["recommendations"][0]["items"]
    assert "i3" not in [entry["item"] for entry in shown]
    again = json.loads(call("update", model, events, "--store", store, "--json").stdout)
    assert (again["new_events"], again["known_events"], again["items"]) == (0, 1, 0)
    events.write_text("user_id,item_id,timestamp,event\nnewcomer,i3,yesterday,like\n")
    refused = call("update", model, events, "--store", store)
    assert refused.exit_code == 1
    assert "unreadable timestamp ('yesterday')" in refused.stderr


def test_the_engine_is_the_one_asked_for(
    saved: Path, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def noted(self: RayEngine, items: object, trained: object, *, store: object, retry_failed: bool) -> EmbedReport:
        asked.append(store)
        return EmbedReport(3, 0)

    monkeypatch.setattr(RayEngine, "embed", noted)
    catalogue.write(tmp_path / "items")
    store = str(tmp_path / "store")
    told = ("embed", saved, tmp_path / "items", "--store", store)
    assert call(*told, "--engine", "ray").stdout.startswith("3 embedded, 0 unchanged")
    assert asked == [store]
    assert call(*told).stdout.startswith("0 embedded, 14 unchanged")
    assert asked == [store]
    assert call(*told, "--engine", "spark").exit_code == 2
    for choice in EngineChoice:
        assert (ray_engine(choice.value) is None) == (choice == EngineChoice.LOCAL)


def test_graphs_of_a_model(saved: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", exc_type=ImportError)
    told = call("onnx", saved, tmp_path / "graphs", "--store", tmp_path / "store", "--json")
    assert told.exit_code == 0, told.stderr
    assert json.loads(told.stdout)["files"] == {"text": "text.onnx", "image": "image.onnx", "score": "score.onnx"}
    assert {path.name for path in (tmp_path / "graphs").glob("*.onnx")} == {"text.onnx", "image.onnx", "score.onnx"}
