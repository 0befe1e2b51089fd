"""Vectors in place of media: their files, alignment by id, defects, and a model that reads nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from multimodal_rec.builders import build_tower
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.cli import app
from multimodal_rec.config import RecommenderConfig, TowerConfig, TrainingConfig
from multimodal_rec.content import ItemContent
from multimodal_rec.content_statistics import content_statistics
from multimodal_rec.cost_report import cost_report
from multimodal_rec.defaults import default_config
from multimodal_rec.errors import CatalogueError, ConfigError
from multimodal_rec.recommender import Recommender
from multimodal_rec.run_file import RunFile
from multimodal_rec.schema import Schema
from multimodal_rec.vectors import vector_matrix
from multimodal_rec.vocabulary import Vocabulary
from towers import VectorStatistics

SCHEMA = Schema("tiny", kind="music", text=("title",), vectors={"audio": ("vggish", "whisper"), "text": ("minilm",)})

AUDIO_ONLY = Schema("sounds", kind="music", vectors={"audio": ("vggish",)})

CPU = TrainingConfig(device="cpu", epochs=15, batch_size=32, progress=False)


def items() -> pd.DataFrame:
    """Six items; i1 lacks vggish, i2 lacks whisper, i4 has nothing but its title."""
    random = np.random.default_rng(0)
    absent = {"vggish": ("i1", "i4"), "whisper": ("i2", "i4"), "minilm": ("i4",)}
    frame = pd.DataFrame({"item_id": [f"i{item}" for item in range(6)], "title": [f"song {item}" for item in range(6)]})
    for column, dim in (("vggish", 4), ("whisper", 3), ("minilm", 5)):
        cells = [None if i in absent[column] else random.normal(100, 10, dim) for i in frame["item_id"]]
        frame[column] = pd.Series(cells, dtype=object)
    return frame


def log(num_items: int = 6) -> pd.DataFrame:
    return pd.DataFrame(
        [{"user_id": f"u{user}", "item_id": f"i{item}"} for user in range(4) for item in range(num_items)]
    )


def sounds(num_items: int = 40, num_users: int = 30) -> Catalogue:
    """Items of two kinds that only their vectors tell apart, and people who like one kind each."""
    random = np.random.default_rng(1)
    kind = np.arange(num_items) % 2
    vectors = random.normal(50, 1, (num_items, 8)) + np.where(kind[:, None] == 0, 4.0, -4.0) * np.eye(8)[0]
    frame = pd.DataFrame({"item_id": [f"i{item}" for item in range(num_items)]})
    frame["vggish"] = pd.Series(list(vectors), dtype=object)
    rows = [
        {"user_id": f"u{user}", "item_id": f"i{item}", "position": place}
        for user in range(num_users)
        # The last four items are taken by nobody.
        for place, item in enumerate(random.permutation(np.arange(user % 2, num_items - 4, 2))[:8])
    ]
    return Catalogue.from_frames(frame, pd.DataFrame(rows), schema=AUDIO_ONLY)


@pytest.fixture(scope="module")
def fitted() -> Iterator[Recommender]:
    recommender = Recommender(replace(default_config(AUDIO_ONLY), embedding_dim=8, behaviour_rank=4))
    yield recommender.fit(sounds(), training=CPU)
    recommender.close()


def same_cells(left: Catalogue, right: Catalogue, column: str) -> bool:
    pairs = list(zip(left.items[column].tolist(), right.items[column].tolist(), strict=True))
    return all(
        (a is None and b is None) or (a is not None and b is not None and a.dtype == b.dtype and (a == b).all())
        for a, b in pairs
    )


def test_cells_are_float32_or_none() -> None:
    frame = items()
    frame.at[0, "whisper"] = [1, 2.5, 3]
    frame.at[1, "vggish"] = float("nan")
    frame.at[2, "whisper"] = []
    catalogue = Catalogue.from_frames(frame, log(), schema=SCHEMA)
    assert catalogue.items["whisper"].iloc[0].tolist() == [1, 2.5, 3]
    assert {cell.dtype.name for column in SCHEMA.vector_columns for cell in catalogue.items[column].dropna()} == {
        "float32"
    }
    assert catalogue.items["vggish"].iloc[1] is None
    assert catalogue.items["whisper"].iloc[2] is None


def test_float32_rows_are_not_copied() -> None:
    matrix = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    frame = pd.DataFrame({"item_id": list("abcdef"), "vggish": pd.Series(list(matrix), dtype=object)})
    catalogue = Catalogue.from_frames(frame, schema=AUDIO_ONLY)
    assert all(np.shares_memory(cell, matrix) for cell in catalogue.items["vggish"])


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_a_catalogue_comes_back_from_disk(file_format: Literal["parquet", "csv"], tmp_path: Path) -> None:
    catalogue = Catalogue.from_frames(items(), log(), schema=SCHEMA)
    catalogue.write(tmp_path, format=file_format)
    again = Catalogue.read(tmp_path)
    assert again.schema == SCHEMA == Schema.from_toml(SCHEMA.to_toml())
    assert (tmp_path / "vectors" / "vggish.ids.txt").read_text() == "i0\ni2\ni3\ni5\n"
    for column in SCHEMA.vector_columns:
        assert same_cells(again, catalogue, column)
    # Also over the very files that it was read from.
    assert same_cells(Catalogue.read(again.write(tmp_path, format=file_format)), again, "whisper")


def test_a_column_that_nobody_has_comes_back(tmp_path: Path) -> None:
    frame = items()
    frame["vggish"] = None
    again = Catalogue.read(Catalogue.from_frames(frame, log(), schema=SCHEMA).write(tmp_path))
    assert again.items["vggish"].tolist() == [None] * 6


def test_lists_in_parquet_are_vectors(tmp_path: Path) -> None:
    (tmp_path / "catalogue.toml").write_text(SCHEMA.to_toml())
    items().to_parquet(tmp_path / "items.parquet")
    catalogue = Catalogue.read(tmp_path)
    assert same_cells(catalogue, Catalogue.from_frames(items(), schema=SCHEMA), "vggish")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_files_are_joined_by_id_and_never_by_row(dtype: type, tmp_path: Path) -> None:
    Catalogue.from_frames(items(), log(), schema=SCHEMA).write(tmp_path)
    matrix = np.arange(20).reshape(5, 4).astype(dtype)
    np.save(tmp_path / "vectors" / "vggish.npy", matrix)
    (tmp_path / "vectors" / "vggish.ids.txt").write_bytes(b"\xef\xbb\xbfi5\r\ni0\r\ni3\r\ni1\r\ni2")
    cells = dict(zip(*(Catalogue.read(tmp_path).items[name] for name in ("item_id", "vggish")), strict=True))
    assert cells.pop("i4") is None
    assert {item_id: cell[0] for item_id, cell in cells.items()} == {"i5": 0, "i0": 4, "i3": 8, "i1": 12, "i2": 16}
    assert {cell.dtype.name for cell in cells.values()} == {"float32"}


def _ids(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "vggish.ids.txt").write_text(text)


def _matrix(matrix: np.ndarray) -> Callable[[Path], object]:
    return lambda folder: np.save(folder / "vggish.npy", matrix)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_ids("i0\ni2\ni3\n"), r"vggish.ids.txt, column 'vggish': 3 ids for the 4 vectors of vectors/vggish.npy\. Exp"),
        (_matrix(np.zeros(4)), r"vggish.npy, column 'vggish': it holds float64 of shape \(4,\). Expected numbers of"),
        (_matrix(np.array([["a"]])), "it holds <U1 of shape"),
        (lambda folder: (folder / "vggish.npy").write_text("junk"), "no NumPy matrix can be read from it"),
        (
            lambda folder: (folder / "vggish.npy").unlink(),
            r"the file is missing, while vectors/vggish.ids.txt is there",
        ),
        (lambda folder: (folder / "vggish.ids.txt").unlink(), "the file is missing, while vectors/vggish.npy is there"),
        (lambda folder: (folder / "vggish.ids.txt").write_bytes(b"\xff\n"), "no UTF-8 text can be read from it"),
    ],
)
def test_files_that_cannot_be_joined_are_one_problem(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    Catalogue.from_frames(items(), log(), schema=SCHEMA).write(tmp_path)
    damage(tmp_path / "vectors")
    for on_error in ("raise", "quarantine"):
        with pytest.raises(CatalogueError, match=message) as caught:
            Catalogue.read(tmp_path, on_error=on_error)
        assert len(caught.value.problems) == 1


def test_a_line_without_an_item_and_a_repeated_one_can_be_set_aside(tmp_path: Path) -> None:
    Catalogue.from_frames(items(), log(), schema=SCHEMA).write(tmp_path)
    _ids("i0\ni9\ni0\ni5\n")(tmp_path / "vectors")
    with pytest.raises(CatalogueError) as caught:
        Catalogue.read(tmp_path)
    assert str(caught.value).splitlines()[1:] == [
        "vectors/vggish.ids.txt, row 1: no item has this id ('i9'). Add it to items, or leave its line and its vector "
        "out.",
        "vectors/vggish.ids.txt, row 2: this id was already used in row 0 ('i0'). Keep one vector an item.",
    ]
    before = np.load(tmp_path / "vectors" / "vggish.npy")
    kept = Catalogue.read(tmp_path, on_error="quarantine")
    assert len(kept.quarantined) == 2
    assert kept.num_items == 6
    cells = kept.items["vggish"].tolist()
    assert (cells[0] == before[0]).all()
    assert (cells[5] == before[3]).all()
    assert cells[1:5] == [None] * 4


def test_bad_vectors_are_problems_of_their_rows() -> None:
    frame = items()
    frame.at[0, "vggish"] = [1.0, np.nan, 2.0, 3.0]
    frame.at[2, "vggish"] = [1.0, np.inf, 2.0, 3.0]
    frame.at[3, "vggish"] = [1.0, 2.0]
    frame.at[5, "vggish"] = "0.1|0.2"
    frame.at[1, "vggish"] = [1.0, 2.0, 3.0, 4.0]
    frame.at[4, "vggish"] = [1.0, 2.0, 3.0, 1e300]
    frame.loc[6] = ["i6", "song 6", [1.0, 2.0, 3.0, 5.0], ["a"], None]
    frame.loc[7] = ["i7", "song 7", [1.0, 2.0, 3.0, 5.0], None, None]
    with pytest.raises(CatalogueError) as caught:
        Catalogue.from_frames(frame, log(), schema=SCHEMA)
    assert str(caught.value).splitlines()[1:] == [
        "items, row 0, column 'vggish': a vector with NaN or infinity. Compute it again, or leave the cell empty.",
        "items, row 2, column 'vggish': a vector with NaN or infinity. Compute it again, or leave the cell empty.",
        "items, row 3, column 'vggish': a vector of another number of dimensions (2). Expected 4 as in most rows: "
        "compute it with the same network.",
        "items, row 4, column 'vggish': a vector with NaN or infinity. Compute it again, or leave the cell empty.",
        """items, row 5, column 'vggish': not a vector ("'0.1|0.2'"). Expected a list of numbers, or nothing; or put """
        "them into vectors/.",
        "items, row 6, column 'whisper': not a vector ('a list of 1'). Expected a list of numbers, or nothing; or put "
        "them into vectors/.",
    ]
    kept = Catalogue.from_frames(frame, log(), schema=SCHEMA, on_error="quarantine")
    assert kept.item_ids == ("i1", "i7")


def test_other_defects_are_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"vectors of one number. Declare it as an attribute, vggish = \"number\""):
        Catalogue.from_frames(pd.DataFrame({"item_id": ["a"], "vggish": [[1.0]]}), schema=AUDIO_ONLY)
    frame = pd.DataFrame({"item_id": ["a", "b"], "vggish": [[1.0, 2.0], None]})
    with pytest.raises(CatalogueError, match=r"column 'item_id': this item has no text, .*, and no vector \('b'\)"):
        Catalogue.from_frames(frame, schema=AUDIO_ONLY)
    with pytest.raises(CatalogueError, match="column 'vggish': column is missing"):
        Catalogue.from_frames(pd.DataFrame({"item_id": ["a"]}), schema=AUDIO_ONLY)
    catalogue = Catalogue.from_frames(items(), log(), schema=SCHEMA)
    with pytest.raises(CatalogueError, match=r"'a\\nb' holds a line break"):
        replace(catalogue, items=catalogue.items.assign(item_id=["a\nb", *"cdefg"])).write(tmp_path / "breaks")
    catalogue.write(tmp_path)
    items().to_parquet(tmp_path / "items.parquet")
    with pytest.raises(CatalogueError, match=r"'minilm' is in the items and in vectors/minilm.npy"):
        Catalogue.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[vectors]\nsound = ["a"]', "has no key 'sound'. It has: text, image"),
        ('[vectors]\naudio = "a"', "columns for vectors of audio are 'a'. Expected a list"),
        ('[columns]\naudio = ["a"]\n[vectors]\naudio = ["a"]', "'a' is declared as audio and as vectors of audio"),
        ('[attributes]\na = "number"\n[vectors]\naudio = ["a"]', "'a' is declared as attributes and as vectors"),
        ('[vectors]\naudio = ["../a"]', "'../a' of vectors cannot be the name of a file"),
        ('[vectors]\naudio = ["item_id"]', "'item_id' cannot be declared"),
    ],
)
def test_wrong_declarations_are_refused(text: str, message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        Schema.from_toml(f'name = "x"\n{text}')


def test_a_modality_of_vectors_alone_is_one_and_gets_a_tower_of_vectors() -> None:
    assert SCHEMA.modalities == ("text", "audio")
    assert SCHEMA.media_modalities == ("text",)
    towers = default_config(replace(SCHEMA, video=("clip",), vectors={"image": ("clip_vit",)})).towers
    assert towers["image"].backbone == "vectors:"
    # Frames would have no backbone to share.
    assert towers["video"].backbone.startswith("timm:")
    assert default_config(SCHEMA).towers["text"].backbone.startswith("hf:")


def test_the_towers_name_decides_what_is_read() -> None:
    catalogue = Catalogue.from_frames(items(), log(), schema=SCHEMA)
    words = ItemContent(catalogue.items, SCHEMA)
    numbers = ItemContent(catalogue.items, SCHEMA, vectors={"text": ("minilm",), "audio": ("whisper",)})
    assert words.load(0, "text") == "song 0"
    assert numbers.load(4, "text") is None
    loaded = numbers.load(0, "text")
    assert isinstance(loaded, list)
    assert loaded[0] is catalogue.items["minilm"].iloc[0]
    # Audio has nothing but vectors, so all of them are read unless some are chosen.
    assert [cell is None for cell in words.vectors(2, "audio")] == [False, True]
    assert numbers.vectors(2, "audio") == [None]
    assert words.present("audio").tolist() == [True, True, True, True, False, True]


def test_cells_of_a_frame_that_was_not_checked_are_read_all_the_same() -> None:
    frame = pd.DataFrame({"vggish": [np.array([1.0, 2.0]), [1, 2], float("nan"), None, "words"]})
    content = ItemContent(frame, AUDIO_ONLY)
    assert content.content_hash(0, "audio") == content.content_hash(1, "audio") is not None
    assert [content.load(row, "audio") for row in (2, 3)] == [None, None]
    assert content.present("audio").tolist() == [True, True, False, False, True]


def test_content_hashes_follow_the_numbers() -> None:
    frame = Catalogue.from_frames(items(), log(), schema=SCHEMA).items
    content = ItemContent(frame, SCHEMA)
    copied = frame.assign(vggish=[None if cell is None else cell.copy() for cell in frame["vggish"]])
    copied["vggish"].iloc[3][0] += 1
    changed = ItemContent(copied, SCHEMA)
    same = [content.content_hash(row, "audio") == changed.content_hash(row, "audio") for row in range(6)]
    assert same == [True, True, True, False, True, True]
    assert content.content_hash(4, "audio") is None


def test_statistics_come_from_the_training_part_alone() -> None:
    catalogue = Catalogue.from_frames(items(), log(), schema=SCHEMA)
    part = replace(catalogue, items=catalogue.items.iloc[:3])
    config = RecommenderConfig({"audio": TowerConfig("vectors:vggish")})
    vocabulary = Vocabulary.fit(part, config)
    statistics = vocabulary.vectors["audio"]
    assert statistics.columns == ("vggish",)
    expected = np.stack([part.items["vggish"].iloc[row] for row in (0, 2)]).mean(axis=0)
    np.testing.assert_allclose(statistics.means[0], expected, rtol=1e-6)
    assert Vocabulary.from_dict(vocabulary.to_dict()).to_dict() == vocabulary.to_dict()


@pytest.mark.parametrize(
    ("towers", "message"),
    [
        ({"audio": TowerConfig("vectors:vgish")}, "the audio tower cannot read .* Did you mean 'vggish'"),
        ({"audio": TowerConfig("spectrogram:test_byobnet")}, "has audio as vectors only. Take TowerConfig"),
        (
            {"audio": TowerConfig("vectors:whisper")},
            "cannot learn from this catalogue: no item has a vector in the col",
        ),
    ],
)
def test_towers_that_do_not_fit_the_catalogue_are_refused(towers: dict[str, TowerConfig], message: str) -> None:
    catalogue = Catalogue.from_frames(items().assign(whisper=None), log(), schema=SCHEMA)
    with pytest.raises(CatalogueError, match=message):
        Recommender(RecommenderConfig(towers)).fit(catalogue, training=CPU)


def test_towers_of_vectors_alone_say_what_they_need() -> None:
    statistics = VectorStatistics.fit({"vggish": np.eye(4)})
    tower = build_tower(TowerConfig("vectors:"), modality="audio", embedding_dim=8, vectors=statistics, seed=0)
    assert tower.encode(list(np.eye(4))).shape == (4, 8)
    with pytest.raises(ConfigError, match=r"may stand for any modality. Say for which, such as modality='audio'"):
        build_tower(TowerConfig("vectors:"), vectors=statistics)
    with pytest.raises(ConfigError, match="has to know how the vectors lie"):
        build_tower(TowerConfig("vectors:"), modality="audio")
    with pytest.raises(ConfigError, match=r"tuning='full' needs weights, .* Take tuning='frozen'"):
        build_tower(TowerConfig("vectors:", tuning="full"), modality="audio", vectors=statistics)
    image = build_tower(TowerConfig("vectors:"), modality="image", vectors=statistics)
    with pytest.raises(ConfigError, match="that tower reads vectors, no pictures"):
        build_tower(TowerConfig("frames:image"), modality="video", shared=image)


def test_a_cold_item_is_ranked_by_its_vector(fitted: Recommender) -> None:
    kinds = {f"i{item}": item % 2 for item in range(36, 40)}
    scores = fitted.score([f"u{user}" for user in range(10)], list(kinds))
    for user, row in enumerate(scores):
        liked = [score for score, kind in zip(row, kinds.values(), strict=True) if kind == user % 2]
        other = [score for score, kind in zip(row, kinds.values(), strict=True) if kind != user % 2]
        assert min(liked) > max(other)


def test_a_new_item_is_embedded_and_survives_saving(fitted: Recommender, tmp_path: Path) -> None:
    model = fitted.save(tmp_path / "model")
    own = Recommender.load(model, device="cpu")
    people = ["u0", "u1", "u2"]
    known = [f"i{item}" for item in range(40)]
    assert (own.score(people, known) == fitted.score(people, known)).all()
    like_u0 = sounds().items["vggish"].iloc[2] + np.float32(0.1)
    new = pd.DataFrame({"item_id": ["new"], "vggish": pd.Series([like_u0], dtype=object)})
    report = own.embed(new)
    assert (report.embedded, report.unchanged) == (1, 0)
    assert own.embed(new).unchanged == 1
    scores = own.score(["u0", "u1"], ["new"])
    assert scores[0, 0] > scores[1, 0]
    again = Recommender.load(own.save(tmp_path / "again"), device="cpu")
    assert (again.score(people, [*known, "new"]) == own.score(people, [*known, "new"])).all()
    own.close()
    again.close()


def test_a_new_item_of_another_network_is_named(fitted: Recommender, tmp_path: Path) -> None:
    own = Recommender.load(fitted.save(tmp_path / "model"), device="cpu")
    wrong = pd.DataFrame({"item_id": ["short", "word"], "vggish": [np.ones(5, np.float32), "word"]})
    report = own.embed(wrong, on_error="quarantine")
    assert report.failed == {
        "short": "audio: a vector of 'vggish' has the shape (5,). Expected (8,) as in training: compute it with the "
        "same network.",
        "word": "audio: expected a float array of 8 numbers, or a list with an array or None for each of 'vggish'; "
        "got list.",
    }
    own.close()


def test_fitted_statistics_travel_in_the_weights(fitted: Recommender, tmp_path: Path) -> None:
    own = Recommender.load(fitted.save(tmp_path / "model"), device="cpu")
    assert own.towers["audio"].fingerprint() == fitted.towers["audio"].fingerprint()
    mean = dict(own.towers["audio"].named_buffers())["backbone.net.mean"].numpy()
    np.testing.assert_allclose(mean, np.stack(sounds().items["vggish"].tolist()).mean(axis=0), rtol=1e-5)
    own.close()


def test_evaluation_finds_what_the_vectors_tell(fitted: Recommender) -> None:
    catalogue = sounds()
    asked = pd.DataFrame(
        [{"user_id": f"u{user}", "item_id": f"i{36 + user % 2}", "position": 99} for user in range(20)]
    )
    test = replace(catalogue, interactions=asked)
    cold = [f"i{item}" for item in range(36, 40)]
    evaluation = fitted.evaluate(test, candidates=cold)
    # Two of the four have the person's kind: at rank 1 or 2 among them.
    assert float(evaluation.per_user["mrr"].to_numpy().min()) >= 0.5


def test_costs_are_measured_with_and_without_a_catalogue(tmp_path: Path) -> None:
    folder = sounds().write(tmp_path / "sounds")
    run = RunFile()
    report = cost_report(folder, run, batch_size=2)
    assert report.num_items == {"audio": 40}
    assert [(cost.backbone, cost.tuning, cost.cached) for cost in report.costs] == [("vectors:", "frozen", True)]
    # LayerNorm's 16 and a linear layer's 8 · 32 + 32.
    assert report.costs[0].parameters == 16 + 288
    (tmp_path / "run.toml").write_text('[model.towers.image]\nbackbone = "vectors:clip,dino"\n')
    (alone,) = cost_report(None, RunFile.read(tmp_path / "run.toml"), batch_size=2).costs
    assert (alone.modality, alone.parameters) == ("image", 2 * 512 + 512 * 32 + 32)


def test_the_command_line_reads_vectors_by_configuration_alone(tmp_path: Path) -> None:
    def run(*arguments: str) -> dict[str, Any]:
        result = CliRunner().invoke(app, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    catalogue = sounds()
    folder, model, store = str(catalogue.write(tmp_path / "sounds")), str(tmp_path / "model"), str(tmp_path / "store")
    (tmp_path / "run.toml").write_text(
        '[model]\nembedding_dim = 8\n[model.towers.audio]\nbackbone = "vectors:vggish"\n'
        '[training]\nepochs = 1\ndevice = "cpu"\n'
    )
    assert run("check", folder)["modalities"] == ["audio"]
    assert run("towers", folder)["towers"][0]["backbone"] == "vectors:"
    run("train", folder, "--out", model, "--config", str(tmp_path / "run.toml"))
    new = pd.DataFrame({"item_id": ["new"], "vggish": [catalogue.items["vggish"].iloc[0] + 1]})
    more = pd.concat([catalogue.items, new], ignore_index=True)
    arrived = str(Catalogue.from_frames(more, schema=AUDIO_ONLY).write(tmp_path / "arrived"))
    assert run("embed", model, arrived, "--store", store)["embedded"] == 1
    scored = run("score", model, "--store", store, "--user", "u0", "--item", "new")
    assert np.isfinite(scored["scores"][0]["score"])


def test_content_statistics_hold_centred_vectors() -> None:
    catalogue = Catalogue.from_frames(items(), log(), schema=SCHEMA)
    blocks = content_statistics(catalogue.items, SCHEMA)
    assert blocks.shape == (6, 4 + 3 + 5)
    norms = np.linalg.norm(blocks[:, 5:9], axis=1)
    np.testing.assert_allclose(norms, [1, 0, 1, 1, 0, 1], atol=1e-6)
    # Vectors that all point one way would have cosines of nearly 1.
    assert (blocks[0, 5:9] @ blocks[3, 5:9]) < 0.9


def test_a_matrix_of_cells_has_zeros_where_there_is_no_vector() -> None:
    matrix, present = vector_matrix([None, np.array([1.0, 2.0], np.float32)])
    assert matrix.tolist() == [[0, 0], [1, 2]]
    assert present.tolist() == [False, True]
    assert vector_matrix([None])[0].shape == (1, 1)
