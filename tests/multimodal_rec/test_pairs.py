"""Frames in, frames out: each row's own score, in the row's place."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from multimodal_rec import pairs
from multimodal_rec.errors import CatalogueError, ContextError, UnknownIdError
from multimodal_rec.recommender import Recommender


def frame_of(num_rows: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "margin": rng.random(num_rows),
            "item_id": [f"i{item}" for item in rng.integers(0, 14, num_rows)],
            "hour": rng.choice([9.0, 23.0, np.nan], num_rows),
            "user_id": [f"u{user}" for user in rng.integers(0, 12, num_rows)],
            "device": pd.Series(rng.choice(["tv", "phone", ""], num_rows)).replace("", None),
        },
        index=rng.permutation(num_rows) * 7,
    )
    return pd.concat([frame, frame.iloc[:5]])


@pytest.mark.parametrize("cells", [1, 40, 1 << 19])
def test_every_row_gets_the_score_of_its_pair(fitted: Recommender, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "_CELLS", cells)
    frame = frame_of()
    scored = fitted.score_frame(frame)
    pd.testing.assert_frame_equal(scored.drop(columns="score"), frame)
    assert scored["score"].dtype == np.float32
    alone = [
        fitted.score(
            [row["user_id"]],
            [row["item_id"]],
            context={name: row[name] for name in ("hour", "device") if pd.notna(row[name])},
        )[0, 0]
        for row in frame.to_dict("records")
    ]
    np.testing.assert_allclose(scored["score"], alone, atol=1e-5)


def test_a_missing_context_says_nothing(fitted: Recommender) -> None:
    frame = pd.DataFrame({"user_id": ["u1", "u1"], "item_id": ["i2", "i2"], "hour": [np.nan, 9.0]})
    missing, told = fitted.score_frame(frame)["score"]
    assert missing == pytest.approx(float(fitted.score(["u1"], ["i2"])[0, 0]), abs=1e-6)
    assert missing != told


def test_unknown_ids_under_each_policy(fitted: Recommender) -> None:
    frame = pd.DataFrame({"user_id": ["u0", "nobody", "u1"], "item_id": ["i0", "i1", "i99"]})
    with pytest.raises(UnknownIdError, match=r"user_id 'nobody' of row 1 is unknown.*\(2 of 3 rows"):
        fitted.score_frame(frame)
    with pytest.raises(UnknownIdError, match="item_id 'i99' of row 1 is not embedded"):
        fitted.score_frame(frame.iloc[[0, 2]])
    assert np.isneginf(fitted.score_frame(frame, on_unknown="skip")["score"]).tolist() == [False, True, True]
    cold = fitted.score_frame(frame, on_unknown="cold")["score"].to_numpy()
    assert np.isneginf(cold).tolist() == [False, False, True]
    assert cold[1] == pytest.approx(float(fitted.score(["nobody"], ["i1"], on_unknown="cold")[0, 0]), abs=1e-6)


def test_no_rows(fitted: Recommender) -> None:
    empty = frame_of().iloc[:0]
    assert list(fitted.score_frame(empty)["score"]) == []
    assert len(fitted.recommend_frame(empty.drop(columns=["item_id", "margin"]))) == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda frame: frame.drop(columns="item_id"), CatalogueError, "no column 'item_id'; it has margin, hour"),
        (lambda frame: frame.assign(user_id=7), CatalogueError, r"user_id of row 0 is 7, a int. .*astype\(str\)"),
        (
            lambda frame: frame.assign(item_id=[None, *frame["item_id"][1:]]),
            CatalogueError,
            "item_id of row 0 is (None|nan)",
        ),
        (lambda frame: frame.assign(score=1.0), CatalogueError, "has a column 'score' already"),
        (lambda frame: frame.assign(hour="late"), ContextError, "context 'hour' is 'late' in row 0"),
        (lambda frame: frame.assign(hour=31), ContextError, r"context .hour. is .*31.* in row 0"),
        (lambda frame: frame.to_dict(), CatalogueError, "expected a DataFrame with user_id, item_id; got a dict"),
    ],
)
def test_what_is_refused(fitted: Recommender, change, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fitted.score_frame(change(frame_of()))


def test_recommendations_as_rows(fitted: Recommender) -> None:
    frame = pd.DataFrame({"user_id": ["u3", "u0"], "hour": [23.0, np.nan], "note": ["a", "b"]}, index=[5, 2])
    found = fitted.recommend_frame(frame, k=3)
    ids, scores = fitted.recommend(["u3", "u0"], k=3, context=[{"hour": 23}, None])
    assert list(found.columns) == ["user_id", "hour", "note", "rank", "item_id", "score"]
    assert found["item_id"].tolist() == [*ids[0], *ids[1]]
    assert found["rank"].tolist() == [1, 2, 3] * 2
    assert found.index.tolist() == [5, 5, 5, 2, 2, 2]
    np.testing.assert_allclose(found["score"], scores.ravel(), atol=1e-6)
    assert found["note"].tolist() == ["a"] * 3 + ["b"] * 3
