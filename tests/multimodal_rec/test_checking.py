"""Checking: every defect found at once, each with its place, and the normal form of what is right."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from multimodal_rec.checking import Tables, check_tables, set_aside, unix_seconds
from multimodal_rec.errors import Problem
from multimodal_rec.schema import Schema

FILES = ("items.csv", "interactions.csv", "users.csv")
SCHEMA = Schema(
    "shop",
    text=("title",),
    image=("photo",),
    attributes={"price": "number", "tags": "tags", "brand": "category"},
    context={"hour": "cyclic:24"},
    user_attributes={"age": "number"},
    profile="bio",
    events={"buy": 1.0},
)


def items() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "item_id": pd.Series(["a", "b", "c"], dtype=object),
            "title": pd.Series(["A", None, "C"], dtype=object),
            "photo": pd.Series(["one.png", "one.png|sub/two.png", None], dtype=object),
            "price": pd.Series([1, "2.5", None], dtype=object),
            "tags": pd.Series(["x|y", ["z"], None], dtype=object),
            "brand": pd.Series([1, 2.0, None], dtype=object),
        }
    )


def interactions() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": [1, 1, 2],
            "item_id": ["a", "b", "a"],
            "timestamp": pd.Series([10, "20", "1970-01-01T00:00:30Z"], dtype=object),
            "event": pd.Series(["buy", "buy", None], dtype=object),
            "hour": pd.Series([0, 23.5, None], dtype=object),
        }
    )


def users() -> pd.DataFrame:
    return pd.DataFrame({"user_id": [1, 2], "age": [30, None], "bio": ["likes tea", " "]})


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    (folder / "sub").mkdir(parents=True)
    for name in ("one.png", "sub/two.png"):
        Image.new("RGB", (4, 4), "red").save(folder / name)
    Image.new("RGB", (4, 4), "blue").save(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    return folder


def problems_of(media: Path, **changes: pd.DataFrame | None) -> tuple[Problem, ...]:
    tables = Tables(items(), interactions(), users())._replace(**changes)
    return check_tables(tables, SCHEMA, media=media, files=FILES).problems


def places(problems: tuple[Problem, ...]) -> list[tuple[str, int | None, str | None]]:
    return [problem[:3] for problem in problems]


def test_normal_form(media: Path) -> None:
    checked = check_tables(Tables(items(), interactions(), users()), SCHEMA, media=media, files=FILES)
    assert checked.problems == ()
    tables = checked.tables
    assert tables.items["photo"].tolist() == [
        [str(media / "one.png")],
        [str(media / "one.png"), str(media / "sub/two.png")],
        [],
    ]
    assert tables.items["title"].tolist() == ["A", None, "C"]
    assert tables.items["tags"].tolist() == [("x", "y"), ("z",), ()]
    assert tables.items["brand"].tolist() == ["1", "2", None]
    np.testing.assert_array_equal(tables.items["price"], [1, 2.5, np.nan])
    assert tables.interactions["user_id"].tolist() == ["1", "1", "2"]
    assert tables.interactions["timestamp"].dtype == np.int64
    assert tables.interactions["timestamp"].tolist() == [10, 20, 30]
    assert tables.interactions["event"].tolist() == ["buy", "buy", None]
    assert tables.users is not None
    assert tables.users["bio"].tolist() == ["likes tea", None]
    again = check_tables(tables, SCHEMA, media=media, files=FILES)
    assert again.problems == ()
    pd.testing.assert_frame_equal(again.tables.items, tables.items)
    pd.testing.assert_frame_equal(again.tables.interactions, tables.interactions)


def test_all_problems_of_all_files_at_once(media: Path) -> None:
    bad_items = pd.DataFrame(
        {
            "item_id": pd.Series(["a", "a", None, "d", "e", "f", "g"], dtype=object),
            "title": pd.Series(["A", "A", "C", None, "E", ["F"], "G"], dtype=object),
            "photo": pd.Series([None, None, None, None, "../secret.png", None, 3], dtype=object),
            "price": pd.Series([1, 2, 3, 4, 5, 6, "cheap"], dtype=object),
            "tags": None,
            "brand": None,
        }
    )
    bad_interactions = pd.DataFrame(
        {
            "user_id": ["1", "9", None, "2", "2"],
            "item_id": ["zz", "a", "a", "a", "a"],
            "timestamp": pd.Series(["soon", 1, 2, None, 1_700_000_000_000], dtype=object),
            "event": ["buy", "steal", "buy", "buy", "buy"],
            "hour": [1, 2, 3, 24, 5],
        }
    )
    bad_users = pd.DataFrame({"user_id": ["1", "2", "2"], "age": pd.Series([1, "old", 3], dtype=object), "bio": None})
    problems = problems_of(media, items=bad_items, interactions=bad_interactions, users=bad_users)
    assert set(places(problems)) == {
        *[("items.csv", 1, "item_id"), ("items.csv", 2, "item_id"), ("items.csv", 3, "item_id")],
        *[("items.csv", 4, "photo"), ("items.csv", 5, "title"), ("items.csv", 6, "photo"), ("items.csv", 6, "price")],
        *[("interactions.csv", 0, "item_id"), ("interactions.csv", 0, "timestamp")],
        *[("interactions.csv", 1, "user_id"), ("interactions.csv", 1, "event"), ("interactions.csv", 2, "user_id")],
        *[("interactions.csv", 3, "hour"), ("interactions.csv", 3, "timestamp"), ("interactions.csv", 4, "timestamp")],
        *[("users.csv", 1, "age"), ("users.csv", 2, "user_id")],
    }
    assert len(problems) == len(set(places(problems)))
    assert list(problems) == sorted(problems, key=lambda p: (FILES.index(p.file), p.row))
    words = {problem[:3]: str(problem) for problem in problems}
    assert words["items.csv", 6, "price"] == (
        "items.csv, row 6, column 'price': wrong value ('cheap'). Expected a finite number."
    )
    assert "this id was already used above ('a')" in words["items.csv", 1, "item_id"]
    assert "has no text, picture, sound or video ('d')" in words["items.csv", 3, "item_id"]
    assert "item_id is not in items.csv ('zz')" in words["interactions.csv", 0, "item_id"]
    assert "unknown event ('steal'). Expected one of 'buy'" in words["interactions.csv", 1, "event"]
    assert "not milliseconds" in words["interactions.csv", 4, "timestamp"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../secret.png", "leads out of the media folder"),
        ("sub/../../secret.png", "leads out of the media folder"),
        ("link.png", "leads out of the media folder"),
        ("/etc/hosts", "leads out of the media folder"),
        ("three.png", "media file is missing"),
        ("sub", "media file is missing"),
        ("a\0b", "cannot be a file name"),
    ],
)
def test_a_media_path_must_be_a_file_in_the_media_folder(media: Path, path: str, message: str) -> None:
    frame = items()
    frame.at[0, "photo"] = path
    (problem,) = problems_of(media, items=frame)
    assert problem[:4] == ("items.csv", 0, "photo", path)
    assert message in problem.message


def test_a_path_that_stays_inside_is_fine(media: Path) -> None:
    frame = items()
    frame.at[0, "photo"] = ["sub/../one.png", str(media / "one.png")]
    assert problems_of(media, items=frame) == ()


def test_without_a_media_folder_paths_are_absolute(media: Path) -> None:
    frame = items().iloc[[0]]
    frame["photo"] = ["one.png"]
    tables = Tables(frame, interactions().iloc[:0], None)
    assert "relative media path without a media folder" in str(check_tables(tables, SCHEMA, media=None).problems[0])
    frame["photo"] = [str(media / "one.png")]
    assert check_tables(tables, SCHEMA, media=None).problems == ()


@pytest.mark.parametrize(
    ("table", "column", "file"),
    [
        ("items", "item_id", "items.csv"),
        ("items", "price", "items.csv"),
        ("items", "photo", "items.csv"),
        ("interactions", "user_id", "interactions.csv"),
        ("interactions", "hour", "interactions.csv"),
        ("users", "user_id", "users.csv"),
        ("users", "bio", "users.csv"),
    ],
)
def test_a_missing_column_is_one_problem_of_the_whole_file(media: Path, table: str, column: str, file: str) -> None:
    frame = {"items": items, "interactions": interactions, "users": users}[table]().drop(columns=column)
    (problem,) = problems_of(media, **{table: frame})
    assert problem[:3] == (file, None, column)
    assert str(problem).startswith(f"{file}, column '{column}': column is missing. Add the column")


def test_users_are_only_checked_against_a_users_table(media: Path) -> None:
    assert problems_of(media, users=None) == ()


def test_a_schema_without_anything_to_read_is_a_problem() -> None:
    tables = Tables(pd.DataFrame({"item_id": ["a"]}), interactions(), None)
    problems = check_tables(tables, Schema("bare"), media=None).problems
    assert "no column is declared that a model could read" in str(problems[0])


def test_setting_aside_takes_the_interactions_along(media: Path) -> None:
    frame = items()
    frame.at[0, "photo"] = "three.png"
    checked = check_tables(Tables(frame, interactions(), users()), SCHEMA, media=media, files=FILES)
    tables, problems = set_aside(checked.tables, checked.problems, files=FILES)
    assert tables.items["item_id"].tolist() == ["b", "c"]
    assert tables.interactions["item_id"].tolist() == ["b"]
    assert places(problems) == [
        ("items.csv", 0, "photo"),
        ("interactions.csv", 0, "item_id"),
        ("interactions.csv", 2, "item_id"),
    ]
    assert "the item of this interaction was set aside ('a')" in str(problems[1])


def test_a_second_row_of_one_id_goes_and_the_first_keeps_its_interactions(media: Path) -> None:
    frame = pd.concat([items(), items().iloc[[0]]])
    checked = check_tables(Tables(frame, interactions(), users()), SCHEMA, media=media, files=FILES)
    tables, problems = set_aside(checked.tables, checked.problems, files=FILES)
    assert places(problems) == [("items.csv", 3, "item_id")]
    assert (len(tables.items), len(tables.interactions)) == (3, 3)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([0, 90]),
        pd.Series([0.9, 90.5]),
        pd.Series(["0", "1970-01-01 00:01:30"]),
        pd.Series(["1970-01-01T01:00:00+01:00", "1970-01-01T00:01:30Z"]),
        pd.to_datetime(pd.Series(["1970-01-01", "1970-01-01 00:01:30.7"], dtype="str"), format="ISO8601"),
        pd.to_datetime(pd.Series([0, 90]), unit="s", utc=True),
        pd.Series([datetime.datetime(1970, 1, 1), datetime.datetime(1970, 1, 1, 0, 1, 30)], dtype=object),
    ],
)
def test_times_of_every_kind_are_whole_unix_seconds(column: pd.Series) -> None:
    seconds, missing, bad = unix_seconds(column)
    assert seconds.dtype == np.int64
    assert seconds.tolist() == [0, 90]
    assert not missing.any()
    assert not bad.any()


def test_times_that_are_none() -> None:
    _, missing, bad = unix_seconds(pd.Series([None, "soon", np.inf, 1e12, "", 5], dtype=object))
    assert missing.tolist() == [True, False, False, False, False, False]
    assert bad.tolist() == [False, True, True, True, True, False]


def test_a_column_without_any_time_is_no_column(media: Path) -> None:
    frame = interactions().assign(timestamp=None)
    checked = check_tables(Tables(items(), frame, users()), SCHEMA, media=media)
    assert checked.problems == ()
    assert "timestamp" not in checked.tables.interactions


def test_position_and_value_are_numbers(media: Path) -> None:
    frame = interactions().assign(position=[1, None, 2], value=["5", "x", None])
    assert places(problems_of(media, interactions=frame)) == [
        ("interactions.csv", 1, "position"),
        ("interactions.csv", 1, "value"),
    ]
