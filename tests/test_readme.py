"""The README: its example runs, its file tree is complete, its commands and links exist."""

import re
from pathlib import Path

import numpy as np
import pytest

from multimodal_rec.cli import app
from multimodal_rec.config import RecommenderConfig
from multimodal_rec.run_file import RunFile
from multimodal_rec.schema import Schema

HOUSE = Path(__file__).parent.parent
README = (HOUSE / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [text for name, text in fences if name == language]


def test_the_example_is_whole_by_line_30_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = blocks("python")[0]
    assert README[: README.index(example) + len(example)].count("\n") < 30
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert "ndcg@10" in capsys.readouterr().out
    again = names["again"].score(["u000"], names["ids"][0], context=names["evening"])  # pyright: ignore
    np.testing.assert_allclose(again, names["scores"][:1], rtol=1e-5)  # pyright: ignore


def configuration(block: int) -> RecommenderConfig:
    names: dict[str, object] = {}
    exec(compile(blocks("python")[block], "README.md", "exec"), names)
    config = names["config"]
    assert isinstance(config, RecommenderConfig)
    return config


def test_the_blended_scores_are_a_valid_configuration() -> None:
    assert set(configuration(1).collaborative) == {"sequence", "item_item"}


def test_the_towers_are_a_valid_configuration() -> None:
    config = configuration(2)
    assert {tower.tuning for tower in config.towers.values()} == {"frozen", "adapter", "full"}


def test_the_measuring_example_runs_after_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for example in (blocks("python")[0], blocks("python")[3]):
        exec(compile(example, "README.md", "exec"), names)
    assert "p_t_holm" in capsys.readouterr().out


def test_the_examples_of_what_a_service_asks_run_after_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for example in (blocks("python")[place] for place in (0, 4, 5, 6)):
        exec(compile(example, "README.md", "exec"), names)
    assert capsys.readouterr().out.count("recall@10 of the exact neighbours") == 2
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "items.parquet",
        "small.ids.json",
        "small.npy",
        "small.transform.safetensors",
    ]
    assert {"why", "varied", "mixed", "both"} <= set(names)


def test_the_toml_files_are_read_as_what_they_say(tmp_path: Path) -> None:
    catalogue, run = blocks("toml")
    assert Schema.from_toml(catalogue).events == {"purchase": 1.0, "return": -1.0}
    (tmp_path / "run.toml").write_text(run, encoding="utf-8")
    assert RunFile.read(tmp_path / "run.toml").split.how == "time"


def test_every_command_is_shown() -> None:
    shown = set(re.findall(r"^ {4}multimodal-rec (\w+)", README, flags=re.MULTILINE))
    assert shown == {command.name or command.callback.__name__ for command in app.registered_commands}  # pyright: ignore


@pytest.mark.parametrize("package", ["multimodal_rec", "towers", "fusion"])
def test_the_file_tree_has_every_file(package: str) -> None:
    tree = next(block for block in blocks("") if block.startswith("multimodal_rec/"))
    listed: list[str] = []
    folders: list[str] = []
    for line in tree.splitlines():
        name, says = line.split(maxsplit=1)
        assert says
        depth = (len(line) - len(line.lstrip())) // 4
        path = "".join([*folders[:depth], name])
        listed.append(path)
        if name.endswith("/"):
            folders[depth:] = [name]
    files = sorted(path.relative_to(HOUSE).as_posix() for path in (HOUSE / package).rglob("*.py"))
    assert sorted(path for path in listed if path.startswith(f"{package}/") and path.endswith(".py")) == files


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\((.+?)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (HOUSE / link).exists()] == []
