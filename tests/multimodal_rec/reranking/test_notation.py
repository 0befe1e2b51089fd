"""Steps and filters as a command line spells them."""

import pytest

from multimodal_rec.errors import ConfigError
from multimodal_rec.reranking import (
    DPP,
    MMR,
    Calibrated,
    Cap,
    Deduplicate,
    Explore,
    ExposureFloor,
    Group,
    MustHave,
    Step,
)
from multimodal_rec.reranking.notation import EXAMPLES, filters_of, step_of


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("mmr=0.7", MMR(0.7)),
        ("mmr", MMR()),
        ("dpp=.2", DPP(0.2)),
        ("calibrated:genre=0.5", Calibrated("genre", 0.5)),
        ("calibrated:genre", Calibrated("genre")),
        ("cap:creator=1", Cap("creator", 1)),
        ("must:genre:jazz=2", MustHave(Group({"genre": ("jazz",)}), 2)),
        ("must:year:1999", MustHave(Group({"year": ("1999", 1999.0)}))),
        ("must:title:a: b=c=3", MustHave(Group({"title": ("a: b=c",)}), 3)),
        ("floor:new=0.2", ExposureFloor(Group(max_events=0), 0.2)),
        ("floor:new:5=0.2", ExposureFloor(Group(max_events=5), 0.2)),
        ("floor:creator:Ann=0.1", ExposureFloor(Group({"creator": ("Ann",)}), 0.1)),
        ("dedupe", Deduplicate()),
        ("dedupe=0.9", Deduplicate(0.9)),
        ("explore=0.4", Explore(0.4)),
    ],
)
def test_a_word_and_a_number_are_a_step(text: str, step: Step) -> None:
    assert step_of(text) == step


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_are_steps(example: str) -> None:
    assert isinstance(step_of(example), Step)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mrm=0.3", r"there is no step 'mrm'. Expected one of mmr, dpp, .*Did you mean 'mmr'\?"),
        ("", "there is no step ''"),
        ("mmr=high", r"'high' in step 'mmr=high' is not a number. Write it as in mmr=0.3\."),
        ("mmr=nan", "'nan' in step 'mmr=nan' is not a number"),
        ("mmr=1.5", r"MMR.diversity is 1.5. Expected a number from 0 to 1"),
        ("mmr:genre=0.5", r"step 'mmr:genre=0.5' cannot be read. Write it as in mmr=0.3\."),
        ("cap=2", r"step 'cap=2' cannot be read. Write it as in cap:creator=2\."),
        ("cap:=2", "step 'cap:=2' cannot be read"),
        ("cap:creator=1.5", "'1.5' in step 'cap:creator=1.5' is not a whole number"),
        ("cap:creator=0", r"Cap.at_most is 0. Expected at least 1"),
        ("must:genre=1", "step 'must:genre=1' names no items by 'genre'. Expected ATTRIBUTE:VALUE, or 'new'"),
        ("must", r"step 'must' cannot be read. Write it as in must:genre:jazz=1\."),
        ("floor:new:few=0.2", "'few' in step 'floor:new:few=0.2' is no number of events"),
    ],
)
def test_what_is_no_step(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        step_of(text)


def test_filters() -> None:
    assert filters_of(["genre=jazz", "genre=folk", "year=1999"]) == {
        "genre": ("jazz", "folk"),
        "year": ("1999", 1999.0),
    }
    assert filters_of([]) == {}
    with pytest.raises(ConfigError, match="'genre' is not NAME=VALUE"):
        filters_of(["genre"])
