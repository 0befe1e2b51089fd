import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from multimodal_rec import demo
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.cli import app
from multimodal_rec.schema import Schema
from tests.towers.tiny import write_bert

VERBS = (
    *(
        "check",
        "towers",
        "train",
        "embed",
        "index",
        "export",
        "onnx",
        "score",
        "recommend",
        "evaluate",
        "audit",
        "demo",
    ),
    *("versions", "publish", "switch", "rollback", "withdraw", "delete", "compact"),
)
WORDS = ("slow piano", "loud drum", "the rain", "a piano in the rain", "a slow drum", "loud rain")


def call(*arguments: object):
    """The result of one command: exit_code, stdout, stderr."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def one_line(text: str) -> bool:
    return text.startswith("error: ") and text.count("\n") == 1


@pytest.fixture
def catalogue(tmp_path) -> Path:
    """Twelve items with a text and a genre; eight people who each had six of them, in an order."""
    items = pd.DataFrame(
        {
            "item_id": [f"i{index}" for index in range(12)],
            "title": [WORDS[index % len(WORDS)] for index in range(12)],
            "genre": ["calm" if index % 2 else "lively" for index in range(12)],
        }
    )
    rows = [
        {
            "user_id": f"u{user}",
            "item_id": f"i{(user + 2 * step) % 12}",
            "timestamp": 1_700_000_000 + 86_400 * step + 60 * user,
            "hour": (8 + 12 * (step % 2)) % 24,
        }
        for user in range(8)
        for step in range(6)
    ]
    schema = Schema(
        "tiny", kind="music", text=("title",), attributes={"genre": "category"}, context={"hour": "cyclic:24"}
    )
    return Catalogue.from_frames(items, pd.DataFrame(rows), schema=schema).write(tmp_path / "catalogue", format="csv")


def with_items(catalogue: Path, folder: Path, items: pd.DataFrame) -> Path:
    """A copy of a catalogue in `folder`, with these items added."""
    shutil.copytree(catalogue, folder)
    both = pd.concat([pd.read_csv(folder / "items.csv", dtype=str), items])
    both.to_csv(folder / "items.csv", index=False)
    return folder


@pytest.fixture
def config(tmp_path) -> Path:
    """A run with a BERT of random weights, two epochs long."""
    backbone = f"hf:{write_bert(tmp_path / 'bert')}"
    path = tmp_path / "run.toml"
    path.write_text(
        "[model]\nembedding_dim = 16\n"
        f"[model.towers.text]\nbackbone = {json.dumps(backbone)}\nmax_tokens = 16\n"
        "[training]\ndevice = 'cpu'\nepochs = 2\nbatch_size = 16\n"
    )
    return path


def test_help_names_every_verb():
    result = call("--help")
    assert result.exit_code == 0
    assert all(verb in result.stdout for verb in VERBS)


def test_help_does_not_import_torch():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom multimodal_rec.cli import app\n"
        "assert CliRunner().invoke(app, ['train', '--help']).exit_code == 0\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Usage"),
        (("trian",), "No such command 'trian'"),
        (("check",), "Missing argument 'CATALOGUE'"),
        (("train", "c"), "Missing option '--out'"),
        (("train", "c", "--out", "m", "--split", "tiem"), "Did you mean 'time'?"),
        (("train", "c", "--out", "m", "--split", "time:x"), "Only label takes a column"),
        (("recommend", "m", "--user", "u"), "Missing option '--store'"),
        (("recommend", "m", "--store", "s", "--user", "u", "--k", "0"), "greater than or equal to 1"),
        (("recommend", "m", "--store", "s", "--user", "u", "--context", "hour"), "'hour' is not NAME=VALUE"),
        (("score", "m", "--store", "s", "--user", "u", "--item", "i", "--context", "=8"), "'=8' is not NAME=VALUE"),
        (
            ("score", "m", "--store", "s", "--user", "u", "--item", "i", "--context", "a=1", "--context", "a=2"),
            "'a' is given twice",
        ),
        (("demo", "--seed", "-1"), "greater than or equal to 0"),
        (("check", "c", "--loud"), "No such option: --loud"),
    ],
)
def test_wrong_usage_ends_with_status_2(arguments, message, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_check_of_a_good_catalogue(catalogue):
    result = call("check", catalogue)
    assert result.exit_code == 0
    assert "no problems: Catalogue('tiny', music: 12 items, 8 users, 48 interactions; text)" in result.stdout
    assert json.loads(call("check", catalogue, "--json").stdout) == {
        "ok": True,
        "name": "tiny",
        "kind": "music",
        "items": 12,
        "users": 8,
        "interactions": 48,
        "modalities": ["text"],
        "problems": [],
    }


def test_check_lists_every_problem(catalogue):
    items = pd.read_csv(catalogue / "items.csv")
    items.loc[3, "item_id"] = "i2"
    items.loc[5, "title"] = None
    items.to_csv(catalogue / "items.csv", index=False)
    result = call("check", catalogue)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "items.csv, row 3, column 'item_id'" in result.stderr
    content = json.loads(call("check", catalogue, "--json").stdout)
    assert content["ok"] is False
    assert {"file": "items.csv", "row": 3, "column": "item_id"}.items() <= content["problems"][0].items()
    assert len(content["problems"]) == len(result.stderr.strip().splitlines()) - 1 > 1


def test_an_error_is_one_line_without_a_traceback(tmp_path):
    result = call("train", tmp_path / "nowhere", "--out", tmp_path / "model")
    assert result.exit_code == 1
    assert one_line(result.stderr)
    assert f"no catalogue at '{tmp_path / 'nowhere'}'" in result.stderr
    assert result.stdout == ""


def test_an_error_in_json_goes_to_both_streams(tmp_path):
    result = call("train", tmp_path / "nowhere", "--out", tmp_path / "model", "--json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert content["type"] == "CatalogueError"
    assert content["error"].startswith("no catalogue at")
    assert one_line(result.stderr)


def test_debug_lets_the_error_through(tmp_path):
    result = call("train", tmp_path / "nowhere", "--out", tmp_path / "model", "--debug")
    assert result.exit_code == 1
    assert type(result.exception).__name__ == "CatalogueError"


def test_an_error_of_many_lines_says_the_first_problem(catalogue, tmp_path):
    interactions = pd.read_csv(catalogue / "interactions.csv")
    interactions.loc[[1, 2], "hour"] = 31
    interactions.to_csv(catalogue / "interactions.csv", index=False)
    result = call("train", catalogue, "--out", tmp_path / "model")
    assert result.exit_code == 1
    assert one_line(result.stderr)
    assert "First of 2: interactions.csv, row 1, column 'hour'" in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model\n", "is not TOML"),
        ("[modle]\n", "has no table 'modle'. Did you mean 'model'?"),
        ("model = 3\n", "'model' is 3. Expected a table"),
        ("[training]\nepoch = 3\n", "TrainingConfig has no setting 'epoch'. Did you mean 'epochs'?"),
        ("[model]\nembeding_dim = 3\n", "Did you mean 'embedding_dim'?"),
        ("[training]\nepochs = 'many'\n", "run.toml"),
        ("[split]\nhwo = 'time'\n", "has no setting 'hwo'. Did you mean 'how'?"),
        ("[split]\nvalid = 'some'\n", "[split] valid is 'some'. Expected a share"),
    ],
)
def test_a_wrong_configuration_file(text, message, catalogue, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(text)
    result = call("train", catalogue, "--out", tmp_path / "model", "--config", path)
    assert result.exit_code == 1
    assert one_line(result.stderr)
    assert message in result.stderr
    assert "run.toml" in result.stderr


def test_a_missing_configuration_file(catalogue, tmp_path):
    result = call("train", catalogue, "--out", tmp_path / "model", "--config", tmp_path / "no.toml")
    assert result.exit_code == 1
    assert f"no configuration can be read from '{tmp_path / 'no.toml'}'" in result.stderr


def test_a_missing_model_is_one_line(tmp_path):
    result = call("recommend", tmp_path / "none", "--store", tmp_path / "store", "--user", "u0")
    assert result.exit_code == 1
    assert one_line(result.stderr)


def test_from_training_to_recommendations(catalogue, config, tmp_path):
    model, store = tmp_path / "model", tmp_path / "store"
    trained = call("train", catalogue, "--out", model, "--config", config, "--split", "last", "--json")
    assert trained.exit_code == 0, trained.output
    assert {"model": str(model), "split": "last", "interactions": 32}.items() <= json.loads(trained.stdout).items()

    # The model brings the items it was trained on; one more has arrived since.
    more = with_items(catalogue, tmp_path / "more", pd.DataFrame({"item_id": ["new"], "title": ["a loud piano"]}))
    embedded = call("embed", model, more, "--store", store, "--json")
    assert embedded.exit_code == 0, embedded.output
    content = json.loads(embedded.stdout)
    assert (content["embedded"], content["unchanged"], content["failed"]) == (1, 12, {})
    again = json.loads(call("embed", model, more, "--store", store, "--json").stdout)
    assert (again["embedded"], again["unchanged"]) == (0, 13)

    asked = ("--store", store, "--user", "u0", "--context", "hour=20")
    result = call("recommend", model, *asked, "--k", 3, "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["recommendations"]
    scores = [entry["score"] for entry in row["items"]]
    assert row["user"] == "u0"
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)

    best = row["items"][0]["item"]
    result = call("score", model, *asked, "--item", best, "--item", "i0", "--json")
    assert result.exit_code == 0, result.output
    entries = json.loads(result.stdout)["scores"]
    assert [entry["item"] for entry in entries] == [best, "i0"]
    assert entries[0]["score"] == pytest.approx(scores[0], abs=1e-3)
    assert best in call("recommend", model, *asked, "--k", 3).stdout
    assert best in call("score", model, *asked, "--item", best).stdout

    result = call("evaluate", model, catalogue, "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert (content["split"], content["people"]) == ("last", 8)
    assert 0 <= content["metrics"]["ndcg@10"]["low"] <= content["metrics"]["ndcg@10"]["high"] <= 1
    assert "ndcg@10" in call("evaluate", model, catalogue, "--split", "last").stdout

    unknown = call("recommend", model, "--store", store, "--user", "nobody")
    assert unknown.exit_code == 1
    assert one_line(unknown.stderr)
    assert "nobody" in unknown.stderr
    undeclared = call("recommend", model, "--store", store, "--user", "u0", "--context", "weather=rain")
    assert undeclared.exit_code == 1
    assert "'weather' was never declared" in undeclared.stderr


def test_an_item_that_cannot_be_embedded_is_listed_and_the_others_are_kept(catalogue, config, tmp_path):
    model, store = tmp_path / "model", tmp_path / "store"
    assert call("train", catalogue, "--out", model, "--config", config).exit_code == 0
    arrivals = pd.DataFrame({"item_id": ["bare", "new"], "title": ["", "a slow piano"], "genre": ["calm", "calm"]})
    more = with_items(catalogue, tmp_path / "more", arrivals)
    result = call("embed", model, more, "--store", store, "--json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert (content["embedded"], content["unchanged"]) == (1, 12)
    assert "bare" in "".join([*content["failed"].values(), *content["failed"], *content["set_aside"]])
    scored = call("score", model, "--store", store, "--user", "u0", "--item", "new")
    assert scored.exit_code == 0, scored.output


def test_an_audit_prints_rows_and_sentences_and_keeps_its_runs(catalogue, config, tmp_path):
    only = ("--only", "without text", "--only", "text shuffled")
    said = call("audit", catalogue, "--config", config, "--out", tmp_path / "audit", *only)
    assert said.exit_code == 0, said.stderr
    assert "everything, seed 0: NDCG@10" in said.stdout
    assert "Among all items: text" in " ".join(said.stdout.split())
    again = call("audit", catalogue, "--config", config, "--out", tmp_path / "audit", *only, "--json")
    rows = json.loads(again.stdout)["rows"]
    assert [row["variant"] for row in rows if row["among"] == "all"] == ["everything", "without text", "text shuffled"]
    assert len(list((tmp_path / "audit").glob("*.json"))) == 3


def test_an_audit_of_an_unknown_variant_is_one_line(catalogue, config, tmp_path):
    said = call("audit", catalogue, "--config", config, "--out", tmp_path / "audit", "--only", "without smell")
    assert said.exit_code == 1
    assert one_line(said.stderr)
    assert "there is no variant 'without smell'" in said.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_demo_runs_where_it_is_told_to(as_json, tmp_path, monkeypatch):
    asked = []

    def run(out, *, seed, console):
        asked.append((out, seed, console.stderr))
        return 0

    monkeypatch.setattr(demo, "run_demo", run)
    result = call("demo", "--out", tmp_path, "--seed", 4, *(["--json"] if as_json else []))
    assert result.exit_code == 0, result.output
    # With --json the demo's own words keep off standard output.
    assert asked == [(tmp_path, 4, as_json)]
    if as_json:
        assert json.loads(result.stdout) == {"report": str(tmp_path / "report.html"), "ok": True}


def test_python_m_is_the_command_line():
    command = [sys.executable, "-m", "multimodal_rec", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert all(verb in result.stdout for verb in VERBS)


def test_a_model_is_not_judged_on_what_it_learned_from(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "split.json").write_text('{"how": "random"}')
    result = call("evaluate", tmp_path, tmp_path, "--split", "time")
    assert result.exit_code == 2
    assert "trained with --split random" in result.output


def test_towers_prints_what_they_cost_on_a_catalogue(catalogue, config, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    result = call("towers", catalogue, "--config", config, "--batch-size", 2)
    assert result.exit_code == 0, result.output
    assert "Towers, 2 items a step on cpu in fp32" in result.stdout
    for figure in ("parameters", "of them learn", "memory a step", "activations", "trained items/s", "the cache"):
        assert figure in result.stdout
    assert "in one of the 48 that training takes" in result.stdout
    assert "Filling the cache holds" in result.stdout
    assert "This catalogue (12 text): about" in result.stdout


def test_towers_in_json_and_without_a_catalogue(config):
    result = call("towers", "--config", config, "--batch-size", 2, "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    (tower,) = content["towers"]
    assert {"modality": "text", "tuning": "frozen", "batch_size": 2, "cached": True}.items() <= tower.items()
    assert tower["trainable_share"] == tower["trainable"] / tower["parameters"]
    assert tower["items_per_second"] > 0
    assert content["memory"]["weights"] == tower["memory"]["weights"]
    assert content["memory"]["activations"] == 24 * tower["memory"]["activations"]
    assert content["seconds"] is content["items"] is None


def test_towers_needs_a_catalogue_or_a_configuration_with_towers(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = call("towers")
    assert result.exit_code == 2
    assert "give a catalogue, a configuration with --config, or both" in result.output
    assert call("towers", "--config", "run.toml", "--batch-size", "0").exit_code == 2
    (tmp_path / "run.toml").write_text("[training]\nepochs = 3\n")
    result = call("towers", "--config", tmp_path / "run.toml")
    assert result.exit_code == 1
    assert one_line(result.stderr)
    assert "has no towers, so there is nothing to measure" in result.stderr
