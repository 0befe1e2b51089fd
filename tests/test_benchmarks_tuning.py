"""The path of `benchmarks/tuning.py` on a handful of real inputs: does it run, resume, and print its table?"""

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from towers.timm_net import load_timm

HOUSE = Path(__file__).parent.parent
SOURCE = HOUSE.parent / "shared" / "data"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not SOURCE.is_dir(), reason=f"no real data at {SOURCE}"),
]


@pytest.fixture
def tuning(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HOUSE / "benchmarks"))
    return importlib.import_module("tuning")


@pytest.fixture
def lessons(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HOUSE / "benchmarks"))
    return importlib.import_module("title_lessons")


def run(tuning: ModuleType, out: Path, task: str, *tunings: str, seeds: int = 1) -> None:
    arguments = ["--source", str(SOURCE), "--out", str(out), "--tasks", task, "--tunings", *tunings]
    tuning.main([*arguments, "--seeds", str(seeds), "--share", "0.015"])


def test_photos_are_tuned_and_runs_are_kept(
    tuning: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # One of each kind of training: from the cache, beside it, with a budget of ranks, and through everything.
    tunings = ("frozen", "side", "adalora", "full")
    run(tuning, tmp_path, "photos", *tunings)
    runs = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.json")}
    assert {json.loads(file.read_text())["tuning"] for file in runs} == set(tunings)
    printed = capsys.readouterr().out
    for name in tunings:
        assert f"| {name} |" in printed
    assert "| side - frozen |" in printed
    # What is there is not run again.
    run(tuning, tmp_path, "photos", *tunings)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.json")} == runs


def test_only_the_first_seed_tries_every_rate(tuning: ModuleType, tmp_path: Path) -> None:
    run(tuning, tmp_path, "photos", "frozen", seeds=2)
    runs = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
    first = {each["rate"]: each["valid"] for each in runs if each["seed"] == 0}
    (second,) = (each["rate"] for each in runs if each["seed"] == 1)
    assert set(first) == set(tuning.Task._field_defaults["frozen_rates"])
    assert second == max(sorted(first), key=first.__getitem__)


def test_the_pretrained_network_is_the_one_that_the_tower_loads(tuning: ModuleType, tmp_path: Path) -> None:
    run(tuning, tmp_path, "photos", "frozen")
    folder = tmp_path / "pretrained" / "pictures"
    saved = load_file(folder / "model.safetensors")
    loaded = load_timm(str(folder), pretrained=True)
    assert loaded.data["input_size"] == (3, 48, 48)
    for name, value in loaded.net.state_dict().items():
        assert torch.equal(value, saved[name]), name


def test_music_runs_in_folds(tuning: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tuning, tmp_path, "music", "frozen", "lora")
    results = [json.loads(file.read_text()) for file in tmp_path.glob("music-*.json")]
    assert {each["tuning"] for each in results} == {"frozen", "lora"}
    assert all(set(each["test"]) == {*tuning.FEELINGS, "liked"} for each in results)
    printed = capsys.readouterr().out
    assert "| tuning | music: nine feelings, AUC | music: liked, AUC |" in printed
    # One head a fold, which what is tuned after it starts from.
    assert len(list(tmp_path.glob("music-head-0.001-0*.safetensors"))) == 4


def test_a_track_is_tested_once_and_never_chooses_what_it_is_tested_on(tuning: ModuleType, tmp_path: Path) -> None:
    task = tuning.TASKS["music"](SOURCE, tmp_path, 0.015)
    parts = [{name: set(part.items.flatten().tolist()) for name, part in fold.items()} for fold in task.folds]
    for fold in parts:
        assert fold["valid"] == parts[0]["valid"]
        assert sum(map(len, fold.values())) == len(set.union(*fold.values())) == len(task.inputs)
    tested = [item for fold in parts for item in fold["test"]]
    assert sorted(tested) == sorted(set(range(len(task.inputs))) - parts[0]["valid"])


def test_a_feeling_is_scored_listener_by_listener(tuning: ModuleType, tmp_path: Path) -> None:
    score = tuning.TASKS["music"](SOURCE, tmp_path, 0.015).score
    outputs, labels = torch.zeros(2, 3, 10), torch.zeros(2, 10, 2)
    # Two tracks of three pieces each; the first is above by the mean of its pieces, and more of its listeners say yes.
    outputs[0, :, 0] = torch.tensor([0.0, 0.0, 3.0])
    labels[:, :] = torch.tensor([[[2.0, 1.0]], [[1.0, 3.0]]])
    scores = score(outputs, labels)
    # Of 3 x 4 pairs of a yes and a no 2 x 3 are right; 2 x 1 and 1 x 3 lie within a track, and 1 x 1 is wrong.
    assert scores["amazement"] == pytest.approx((6 + 0.5 * 5) / 12)
    assert scores["liked"] == pytest.approx(0.5)


def test_what_listeners_said_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(HOUSE / "benchmarks"))
    folder = tmp_path / "emotify"
    folder.mkdir()
    feelings = importlib.import_module("tuning_tasks").FEELINGS
    said = ["track id", "genre", *feelings, "mood", "liked", "disliked", "age"]
    heard = [
        "1,rock,1,0,0,0,0,0,0,0,1,3,1,0,20",
        "1,rock,1,0,0,0,0,0,0,0,0,3,0,1,20",
        "2,pop,0,0,0,0,0,0,0,0,0,3,1,1,20",
    ]
    (folder / "annotations.csv").write_text("\n".join([", ".join(said), *heard]))
    (folder / "tracks.csv").write_text("track_id,genre\n2,pop\n1,rock\n")
    tracks = importlib.import_module("pretraining").read_tracks(tmp_path)
    counts = tracks[["liked", "disliked", "amazement", "no amazement", "sadness", "no sadness"]]
    # The second track's only listener ticked both liked and disliked: no opinion, but a feeling's absence counts.
    assert counts.loc["1"].tolist() == [1, 1, 2, 0, 1, 1]
    assert counts.loc["2"].tolist() == [0, 0, 0, 1, 0, 1]


def test_titles_run(tuning: ModuleType, tmp_path: Path) -> None:
    run(tuning, tmp_path, "titles", "frozen", "lora")
    results = [json.loads(file.read_text()) for file in tmp_path.glob("titles-*.json")]
    assert {each["tuning"] for each in results} == {"frozen", "lora"}
    assert all(0 <= each["test"]["next"] <= 1 for each in results)


def test_validation_and_test_rank_titles_that_training_never_read(lessons: ModuleType) -> None:
    parts = lessons.purchases(SOURCE / "amazon-titles", 1.0)
    asked = {name: {each.title for each in part} for name, part in parts.items()}
    assert not asked["train"] & asked["valid"] | asked["train"] & asked["test"] | asked["valid"] & asked["test"]
    for part in parts.values():
        for each in part:
            assert each.others
            assert each.title not in each.others
            assert not set(each.others) & (asked["valid"] | asked["test"])
    assert {name: len(part) for name, part in parts.items()} == {"train": 29403, "valid": 5205, "test": 9149}
    assert {name: len(titles) for name, titles in asked.items()} == {"train": 2240, "valid": 513, "test": 915}


def test_what_speaks_for_a_title(lessons: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lessons, "BUYERS", 2)
    (tmp_path / "made_items.tsv").write_text("".join(f"{item}\ttitle {item}\n" for item in "abcdefghijkl"))
    # Two people bought everything, the second backwards; a third one rare thing, which nobody else did.
    rows = [" ".join("abcdefghijk"), " ".join("kjihgfedcbaa"), "l"]
    (tmp_path / "am_made_users.tsv").write_text("".join(f"p{number}\t{row}\n" for number, row in enumerate(rows)))
    parts = lessons.purchases(tmp_path, 1.0, "made")
    training = {each.title for each in parts["train"]}
    order = {0: [f"title {item}" for item in "abcdefghijk"], 1: [f"title {item}" for item in "kjihgfedcba"]}
    assert "title l" not in training
    for name, part in parts.items():
        assert part, name
        for each in part:
            before = order[each.person][: order[each.person].index(each.title)]
            said = order[each.person] if name == "train" else before
            assert each.others == [title for title in said if title in training and title != each.title]


def test_titles_are_scored_by_the_rank_of_the_next_one(lessons: ModuleType) -> None:
    axes = torch.eye(3)
    # Three people before three titles: the first and third find theirs, the second's comes after the two others.
    queries = torch.stack([axes[0], torch.tensor([0.6, 0.0, 0.8]), axes[2]])
    three = lessons.Lessons(queries, torch.tensor([0, 1, 2]))
    assert three.score(2 * axes[:, None], torch.tensor([[0], [1], [2]]))["next"] == pytest.approx((1 + 0.5 + 1) / 3)
    # Two people bought the first title, nobody the third: what is padded is nobody.
    two = three.score(axes[:, None], torch.tensor([[0, 1], [2, -1], [-1, -1]]))["next"]
    assert two == pytest.approx(((1 + 1 / np.log2(3)) / 2 + 1 / np.log2(4)) / 2)


def test_each_buyer_looks_for_the_title_among_the_batch_s(lessons: ModuleType) -> None:
    axes = torch.eye(3)
    labels = torch.tensor([[0, 1], [2, -1], [3, -1]])
    queries = axes[[0, 0, 1, 2]]
    scale = np.exp(-1 / lessons.TEMPERATURE)
    apart = lessons.Lessons(queries, torch.tensor([7, 8, 9, 5])).loss(axes[:, None], labels)
    assert float(apart) == pytest.approx(np.log1p(2 * scale), abs=1e-7)
    # All titles alike: each is found among three, but by person 7, who bought the first two, among two.
    shared = lessons.Lessons(queries, torch.tensor([7, 8, 7, 5])).loss(torch.ones(3, 1, 3), labels)
    assert float(shared) == pytest.approx(((np.log(2) + np.log(3)) / 2 + np.log(2) + np.log(3)) / 3)


def test_the_halves_share_nothing_and_do_not_depend_on_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HOUSE / "benchmarks"))
    halves = importlib.import_module("pretraining").halves
    ids = [str(number) for number in range(101)]
    first, second = halves(ids)
    assert sorted(first + second) == sorted(ids)
    assert len(first) == 50
    assert halves(np.random.default_rng(1).permutation(ids).tolist()) == (first, second)
