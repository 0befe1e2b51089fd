"""The verbs that answer for people, as people and machines call them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from multimodal_rec.cli import app
from multimodal_rec.recommender import Recommender
from multimodal_rec.reranking import MMR, Cap
from multimodal_rec.retrieval import Query


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


def test_steps_and_filters_are_those_of_the_library(saved: Path, fitted: Recommender, tmp_path: Path) -> None:
    asked = ("recommend", saved, "--store", tmp_path / "store", "--user", "u0", "--k", 4)
    steps = ("--step", "mmr=0.6", "--step", "cap:genre=2", "--pool", 9)
    found = json.loads(call(*asked, *steps, "--never", "price=2", "--json").stdout)
    query = Query(steps=(MMR(0.6), Cap("genre", 2)), pool=9, never={"price": 2})
    expected = fitted.recommend(["u0"], k=4, query=query)
    (row,) = found["recommendations"]
    assert [item["item"] for item in row["items"]] == [item_id for item_id in expected.ids[0] if item_id is not None]
    assert row["reason"] == expected.reasons[0]
    jazz = call(*asked, "--where", "genre=jazz", "--k", 14)
    assert jazz.exit_code == 0
    assert "of 14 items, the query admits 7" in " ".join(jazz.stdout.split())
    found = json.loads(
        call("search", saved, "slow", "--store", tmp_path / "store", "--step", "cap:genre=1", "--json").stdout
    )
    assert len(found["results"][0]["items"]) == 2


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--step", "mrm=0.3"), 2, "Did you mean 'mmr'?"),
        (("--step", "mmr=2"), 2, "MMR.diversity is 2.0. Expected a number from 0 to 1."),
        (("--step", "cap:creator=1"), 1, "Cap.attribute names the attribute 'creator', which no embedded item has"),
        (("--never", "genre"), 2, "'genre' is not NAME=VALUE"),
        (("--where", "gener=jazz"), 1, "Did you mean 'genre'?"),
        (("--pool", "0"), 2, "greater than or equal to 1"),
        (("--unknown", "perhaps"), 2, "'raise', 'skip', 'cold'"),
    ],
)
def test_steps_that_cannot_be(
    saved: Path, tmp_path: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    asked = ["recommend", str(saved), "--store", str(tmp_path / "store"), "--user", "u0", *arguments]
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, asked)
    assert result.exit_code == status
    assert message in " ".join(result.output.split())


def test_somebody_unknown_as_the_caller_wishes(saved: Path, fitted: Recommender, tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store", "--user", "nobody", "--k", 3, "--json")
    for verb, asked, key in (("recommend", (saved,), "recommendations"), ("search", (saved, "slow piano"), "results")):
        (skipped,) = json.loads(call(verb, *asked, *store, "--unknown", "skip").stdout)[key]
        assert skipped["items"] == []
        assert skipped["reason"].startswith("nothing is known of this person")
        (cold,) = json.loads(call(verb, *asked, *store, "--unknown", "cold").stdout)[key]
        assert len(cold["items"]) == 3
        assert call(verb, *asked, *store).exit_code == 1
