"""The verbs that answer for people, as people and machines call them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from multimodal_rec.cli import app
from multimodal_rec.recommender import Recommender


def call(*arguments: object):
    """The result of one command: exit_code, stdout, stderr."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_search_finds_what_the_library_finds(saved: Path, fitted: Recommender, tmp_path: Path) -> None:
    asked = (saved, "slow piano", "loud drum", "--store", tmp_path / "store", "--k", 3)
    found = json.loads(call("search", *asked, "--user", "u0", "--context", "hour=23", "--json").stdout)
    expected = fitted.search(["slow piano", "loud drum"], k=3, user="u0", context={"hour": 23})
    assert [entry["wish"] for entry in found["results"]] == ["slow piano", "loud drum"]
    assert [[item["item"] for item in entry["items"]] for entry in found["results"]] == expected.ids
    scores = [item["score"] for item in found["results"][0]["items"]]
    assert scores == pytest.approx(expected.scores[0].tolist(), abs=1e-5)
    shown = call("search", *asked)
    assert shown.exit_code == 0
    assert "“slow piano”" in shown.stdout
    assert call("search", *asked, "--taste", 2).exit_code == 2
    stranger = call("search", *asked, "--user", "nobody")
    assert stranger.exit_code == 1
    assert stranger.stderr.startswith("error: user 'nobody' is unknown")
