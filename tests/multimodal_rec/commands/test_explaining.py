"""The verb explain, as people and machines call it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from multimodal_rec.cli import app


def call(*arguments: object):
    """The result of one command: exit_code, stdout, stderr."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_why_as_a_table_and_for_machines(saved: Path, tmp_path: Path) -> None:
    asked = ("explain", saved, "--store", tmp_path / "store", "--user", "u1", "--context", "hour=23")
    answer = json.loads(call(*asked, "--item", "i3", "--item", "i1", "--json").stdout)
    assert (answer["user"], answer["context"]) == ("u1", {"hour": "23"})
    first, second = answer["explanations"]
    assert (first["item_id"], second["item_id"]) == ("i3", "i1")
    assert sum(first["contributions"].values()) == pytest.approx(first["score"] - first["neutral"], abs=1e-6)
    shown = call(*asked, "--item", "i3").stdout
    assert first["because"].split(",")[0] in " ".join(shown.split())
    assert all(word in shown for word in ("general", "history", "hour", "behaviour"))


def test_an_unknown_item_is_one_line(saved: Path, tmp_path: Path) -> None:
    done = call("explain", saved, "--store", tmp_path / "store", "--user", "u1", "--item", "i99")
    assert done.exit_code == 1
    assert "item 'i99' is not embedded" in done.stderr
    assert done.stderr.count("\n") == 1
