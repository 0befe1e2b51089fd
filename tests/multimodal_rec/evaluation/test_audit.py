"""What an audit trains, what it says, and that it goes on where it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig, TowerConfig
from multimodal_rec.errors import ConfigError
from multimodal_rec.evaluation.ablations import FULL, only_part, own_parts, variants, without_part
from multimodal_rec.evaluation.audit import FEWEST_PEOPLE, Audit, audit_parts
from multimodal_rec.splits import Split
from tests.multimodal_rec.tiny import CPU, tiny_config

ONE_EPOCH = replace(CPU, epochs=1)


@pytest.fixture(scope="module")
def split(catalogue: Catalogue) -> Split:
    return catalogue.split("time", valid=0.2, test=0.2)


def planted(values: dict[str, float], *, people: int = 60) -> dict[str, pd.DataFrame]:
    """Runs with these means, in which half of the people prefer one variant and half the other."""
    wobble = pd.Series([0.05, -0.05] * (people // 2), index=[f"u{user}" for user in range(people)])
    return {
        name: pd.DataFrame({"all": value + (wobble if name == FULL else -wobble)}).rename_axis("user_id")
        for name, value in values.items()
    }


def told(split: Split, config: RecommenderConfig, folder: Path, values: dict[str, float]) -> Audit:
    """The audit of runs that are in the folder already: nothing is trained."""
    for name, run in planted(values).items():
        (folder / f"{name.replace(' ', '-')}-seed-0.json").write_text(json.dumps(run.to_dict()))
    return audit_parts(split, config, out=folder, only=[name for name in values if name != FULL])


@pytest.mark.parametrize("num_late", [FEWEST_PEOPLE - 1, FEWEST_PEOPLE])
def test_of_a_handful_of_people_nothing_is_said(num_late: int, split: Split, bert: Path, tmp_path: Path) -> None:
    for name, run in planted({FULL: 0.5, "ids only": 0.1}).items():
        late = run["all"].iloc[:num_late].to_dict()
        kept = {"all": run["all"].to_dict(), "late": late}
        (tmp_path / f"{name.replace(' ', '-')}-seed-0.json").write_text(json.dumps(kept))
    audit = audit_parts(split, tiny_config(bert), training=ONE_EPOCH, out=tmp_path, only=["ids only"])
    among = set(audit.table.index.get_level_values("among"))
    assert among == ({"all", "late"} if num_late == FEWEST_PEOPLE else {"all"})
    assert any("late" in sentence for sentence in audit.sentences) == ("late" in among)


class TestVariants:
    def test_every_part_alone_without_and_meaningless(self, bert: Path, split: Split) -> None:
        names = [variant.name for variant in variants(split, tiny_config(bert))]
        parts = ("text", "image", "attributes")
        expected = {FULL, "ids only", "without behaviour", "without context", "context shuffled"}
        expected |= {f"{how} {part}" for part in parts for how in ("only", "without")}
        expected |= {f"{part} shuffled" for part in parts} | {"text noise", "image noise"}
        assert sorted(names) == sorted(expected)

    def test_ids_only_reads_behaviour_and_nothing_else(self, bert: Path, split: Split) -> None:
        found = {variant.name: variant for variant in variants(split, tiny_config(bert))}
        _, config = found["ids only"].make(0)
        assert own_parts(config, split.test.schema) == ["behaviour"]

    def test_frames_that_shared_a_net_get_it_to_themselves(self) -> None:
        net = TowerConfig("timm:test_byobnet", pretrained=False, tuning="full")
        config = RecommenderConfig({"image": net, "video": TowerConfig("frames:image", max_windows=2)})
        without = without_part(config, "image")
        assert without is not None
        assert without.towers["video"] == replace(net, max_windows=2)
        assert only_part(config, "video").towers == {"video": replace(net, max_windows=2)}

    def test_what_would_leave_nothing_is_not_tried(self) -> None:
        assert without_part(RecommenderConfig({}, attributes=False), "behaviour") is None
        net = TowerConfig("timm:test_byobnet", pretrained=False, tuning="full")
        assert without_part(RecommenderConfig({"image": net}, attributes=False, behaviour=False), "image") is None


class TestSentences:
    def test_a_part_that_is_lost_when_shuffled_really_helps(self, bert: Path, split: Split, tmp_path: Path) -> None:
        values = {FULL: 0.5, "ids only": 0.1, "without image": 0.3, "image shuffled": 0.3}
        result = told(split, tiny_config(bert), tmp_path, values)
        assert result.sentences[0].startswith("Among all items: all beside behaviour helps: +0.4")
        assert result.sentences[1].startswith("Among all items: image really helps: +0.2")

    def test_a_part_that_is_as_good_shuffled_is_found_out(self, bert: Path, split: Split, tmp_path: Path) -> None:
        values = {FULL: 0.5, "without image": 0.3, "image shuffled": 0.5}
        sentence = told(split, tiny_config(bert), tmp_path, values).sentences[0]
        assert "image helps no more than another item's content in its place would" in sentence

    def test_a_part_that_is_not_missed_makes_no_difference(self, bert: Path, split: Split, tmp_path: Path) -> None:
        values = {FULL: 0.5, "without image": 0.5, "image shuffled": 0.5}
        sentence = told(split, tiny_config(bert), tmp_path, values).sentences[0]
        assert "image makes no difference that can be told from chance" in sentence

    def test_a_part_that_is_better_left_out_hurts(self, bert: Path, split: Split, tmp_path: Path) -> None:
        values = {FULL: 0.5, "without context": 0.6, "context shuffled": 0.6}
        assert "context hurts: -0.1" in told(split, tiny_config(bert), tmp_path, values).sentences[0]

    def test_behaviour_has_nothing_to_shuffle(self, bert: Path, split: Split, tmp_path: Path) -> None:
        values = {FULL: 0.5, "without behaviour": 0.3}
        assert "behaviour helps: +0.2" in told(split, tiny_config(bert), tmp_path, values).sentences[0]


class TestAudit:
    def test_trains_judges_and_goes_on_where_it_was(self, bert: Path, split: Split, tmp_path: Path) -> None:
        config, only = tiny_config(bert), ["ids only", "only image", "image noise"]
        said: list[str] = []
        first = audit_parts(split, config, training=ONE_EPOCH, out=tmp_path, only=only, report=said.append)
        assert [line.split(",")[0] for line in said] == [FULL, *only]
        files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
        again = audit_parts(split, config, training=ONE_EPOCH, out=tmp_path, only=only)
        pd.testing.assert_frame_equal(first.table, again.table)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")} == files
        # i0 has no picture: it is never found by a model of pictures, and stays among the questions.
        assert len(set(first.table.xs("all", level="among")["num_users"].tolist())) == 1

    def test_rows_are_plain_values(self, bert: Path, split: Split, tmp_path: Path) -> None:
        result = told(split, tiny_config(bert), tmp_path, {FULL: 0.5, "without image": 0.3})
        assert [row["variant"] for row in result.to_dict()["rows"]] == [FULL, "without image"]
        assert "image" in str(result)

    def test_an_unknown_variant_is_named(self, bert: Path, split: Split) -> None:
        with pytest.raises(ConfigError, match=r"there is no variant 'without smell'. Expected one of 'everything'"):
            audit_parts(split, tiny_config(bert), only=["without smell"])
