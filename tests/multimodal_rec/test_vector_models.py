"""Models that read vectors in place of media: what their towers need, and what they rank, keep and cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from multimodal_rec.builders import build_tower
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.cli import app
from multimodal_rec.config import RecommenderConfig, TowerConfig
from multimodal_rec.content import ItemContent
from multimodal_rec.content_statistics import content_statistics
from multimodal_rec.cost_report import cost_report
from multimodal_rec.defaults import default_config
from multimodal_rec.errors import CatalogueError, ConfigError
from multimodal_rec.recommender import Recommender
from multimodal_rec.run_file import RunFile
from multimodal_rec.vectors import vector_matrix
from multimodal_rec.vocabulary import Vocabulary
from tests.multimodal_rec.tiny_vectors import AUDIO_ONLY, CPU, SCHEMA, items, log, sounds
from towers import VectorStatistics


@pytest.fixture(scope="module")
def fitted() -> Iterator[Recommender]:
    recommender = Recommender(replace(default_config(AUDIO_ONLY), embedding_dim=8, behaviour_rank=4))
    yield recommender.fit(sounds(), training=CPU)
    recommender.close()


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
