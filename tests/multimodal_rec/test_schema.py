"""catalogue.toml: round trip, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimodal_rec.errors import CatalogueError, ConfigError
from multimodal_rec.schema import Schema


def full() -> Schema:
    return Schema(
        'Müsic "one" \x7f\U0001f3b5',
        kind="music",
        licence="CC0-1.0",
        text=("title", "description"),
        image=("cover",),
        audio=("clip",),
        attributes={"genre": "category", "sub genre": "tags", "price": "number"},
        context={"hour": "cyclic:24"},
        user_attributes={"age": "number"},
        profile="bio",
        events={"like": 1, "dislike": -1.0},
    )


def test_toml_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(full().to_toml(), encoding="utf-8")
    assert Schema.read(path) == full()
    assert Schema.from_toml('name = "bare"') == Schema("bare")
    assert Schema.from_toml(Schema("bare").to_toml()) == Schema("bare")


def test_modalities_keep_the_models_order_and_a_soundtrack_counts_as_sound() -> None:
    assert full().modalities == ("text", "image", "audio")
    assert Schema("v", video=("film",)).modalities == ("audio", "video")
    assert Schema("t", text=("title",)).modalities == ("text",)
    assert full().media_columns == ("cover", "clip")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('nam = "x"', r"catalogue\.toml has no key 'nam'\. Did you mean 'name'\?"),
        ('name = "x"\nzzz = 1', r"has no key 'zzz'\. It has: name, kind"),
        ('name = "x"\n[columns]\nimages = ["a"]', r"\[columns\] has no key 'images'\. Did you mean 'image'\?"),
        ('name = "x"\n[profile]\ntxt = "a"', r"\[profile\] has no key 'txt'"),
        ('name = "x"\nkind = "musik"', r"kind is 'musik'.*Did you mean 'music'\?"),
        ('name = "x"\n[context]\nhour = "cyclic"', r"column 'hour'.*period above 0"),
        ('name = "x"\n[context]\nitem_id = "category"', r"'item_id' cannot be declared under context"),
        ('name = "x"\n[columns]\ntext = "title"', r"columns for text are 'title'\. Expected a list"),
        ('name = "x"\n[columns]\nimage = ["a"]\naudio = ["a"]', r"'a' is declared as image and as audio"),
        ('name = "x"\n[columns]\ntext = ["a"]\n[attributes]\na = "number"', r"'a' .* a number has no words to read"),
        ('name = "x"\n[columns]\ntext = ["a"]\nimage = ["a"]', r"'a' is declared as image and as text"),
        ('name = "x"\n[events]\nlike = "much"', r"event 'like' has the weight 'much'\. Expected a number"),
        ('name = "x"\ncontext = 3', r"'context' is 3\. Expected a table"),
        ("name = 3", r"'name' is 3\. Expected text in quotes"),
        ('kind = "music"', r"it has no name\. Add a line"),
        ("name =", r"is not TOML: .*Correct that line"),
    ],
)
def test_a_mistake_in_the_toml_is_explained(toml: str, message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        Schema.from_toml(toml)


def test_an_absent_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"no schema can be read from .*catalogue\.toml"):
        Schema.read(tmp_path / "catalogue.toml")


def test_the_constructor_checks_too() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'category'"):
        Schema("x", attributes={"genre": "categori"})
