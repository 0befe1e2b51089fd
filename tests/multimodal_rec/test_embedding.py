"""The offline job: only what changed tower_runs, and one bad item costs no other."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import ItemError
from multimodal_rec.recommender import Recommender
from tests.multimodal_rec.tiny import CPU, NUM_ITEMS, tiny_config
from tests.towers.tiny import picture


@pytest.fixture
def items(catalogue: Catalogue) -> pd.DataFrame:
    return catalogue.items.copy()


def _new(items: pd.DataFrame, **values: object) -> pd.DataFrame:
    """One item that nobody knows, as a frame."""
    row = {"item_id": "new", "title": None, "cover": [], "genre": None, "price": None, **values}
    return pd.DataFrame({name: pd.Series([row[name]], dtype=object) for name in items.columns})


def _at(items: pd.DataFrame, item_id: str, column: str, value: object) -> pd.DataFrame:
    cells = [value if this == item_id else cell for this, cell in zip(items["item_id"], items[column], strict=True)]
    return items.assign(**{column: pd.Series(cells, dtype=object)})


def test_what_is_unchanged_runs_through_no_tower(
    own: Recommender, items: pd.DataFrame, tower_runs: Counter[str]
) -> None:
    report = own.embed(items)
    assert (report.embedded, report.unchanged, report.failed) == (0, NUM_ITEMS, {})
    assert not tower_runs


def test_a_changed_text_runs_the_text_tower_alone(
    own: Recommender, items: pd.DataFrame, tower_runs: Counter[str]
) -> None:
    before = own.store.read_items(model=None)
    report = own.embed(_at(items, "i4", "title", "the loud loud drum"))
    assert (report.embedded, report.unchanged) == (1, NUM_ITEMS - 1)
    assert tower_runs == {"text": 1}
    after = own.store.read_items(model=None)
    row = after.ids.index("i4")
    changed = (before.tokens != after.tokens).any(axis=2)
    assert changed[row].tolist() == [True, False, False, False]
    assert changed.sum() == 1
    assert (before.embeddings[row] != after.embeddings[row]).any()


def test_a_changed_picture_runs_the_image_tower_alone(
    own: Recommender, items: pd.DataFrame, tower_runs: Counter[str], tmp_path: Path
) -> None:
    picture(77, size=(32, 32)).save(tmp_path / "other.png")
    assert own.embed(_at(items, "i4", "cover", [str(tmp_path / "other.png")])).embedded == 1
    assert tower_runs == {"image": 1}


def test_a_picture_taken_away_is_absent(own: Recommender, items: pd.DataFrame, tower_runs: Counter[str]) -> None:
    assert own.embed(_at(items, "i4", "cover", [])).embedded == 1
    assert not tower_runs
    table = own.store.read_items(model=None)
    assert table.present[table.ids.index("i4")].tolist() == [True, False, True, True]


def test_a_changed_attribute_runs_no_tower(own: Recommender, items: pd.DataFrame, tower_runs: Counter[str]) -> None:
    assert own.embed(_at(items, "i4", "genre", "rock")).embedded == 1
    assert not tower_runs
    table = own.store.read_items(model=None)
    assert table.attributes[table.ids.index("i4")]["genre"] == "rock"


def test_a_new_item_is_scored_from_its_content_alone(own: Recommender, items: pd.DataFrame) -> None:
    report = own.embed(_new(items, title="slow piano", genre="jazz"))
    assert (report.embedded, report.unchanged) == (1, 0)
    table = own.store.read_items(model=None)
    assert table.present[table.ids.index("new")].tolist() == [True, False, True, False]
    assert np.isfinite(own.score(["u0"], ["new"])).all()
    assert "new" in own.recommend(["u0"], k=NUM_ITEMS).ids[0]


def test_one_at_a_time_equals_all_at_once(own: Recommender, items: pd.DataFrame) -> None:
    together = own.store.read_items(model=None)
    own.store.delete_items(list(together.ids))
    for row in range(NUM_ITEMS):
        own.embed(items.iloc[row : row + 1])
    one_by_one = own.store.read_items(model=None)
    assert one_by_one.ids == together.ids
    np.testing.assert_allclose(one_by_one.tokens, together.tokens, atol=4e-3)
    np.testing.assert_array_equal(one_by_one.present, together.present)


def test_bad_items_are_raised_and_the_others_written(own: Recommender, items: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    bad = _at(items, "i5", "cover", [str(tmp_path / "gone.png")])
    bad = _at(bad, "i6", "cover", [str(tmp_path / "broken.png")])
    own.store.delete_items(items["item_id"].tolist())
    bad = pd.concat([bad, _new(items)], ignore_index=True)
    with pytest.raises(ItemError, match=r"3 items could not be embedded; the other 12 are in the store") as raised:
        own.embed(bad)
    reasons = raised.value.reasons
    assert sorted(reasons) == ["i5", "i6", "new"]
    assert "gone.png' cannot be read: No such file" in reasons["i5"]
    assert "broken.png' cannot be read" in reasons["i6"]
    assert own.store.num_items == NUM_ITEMS - 2
    assert own.store.failures()["item_id"].tolist() == ["i5", "i6", "new"]
    assert own.store.failures()["reason"].tolist() == [reasons["i5"], reasons["i6"], reasons["new"]]
    # Mended, they are there like the others.
    assert own.embed(items).embedded == 2
    assert own.store.failures()["item_id"].tolist() == ["new"]


def test_bad_items_are_reported_where_they_may_be_set_aside(
    own: Recommender, items: pd.DataFrame, tmp_path: Path
) -> None:
    bad = _at(items, "i5", "cover", [str(tmp_path / "gone.png")])
    report = own.embed(bad, on_error="quarantine")
    assert (report.embedded, report.unchanged, list(report.failed)) == (0, NUM_ITEMS - 1, ["i5"])


def test_an_item_with_nothing_to_read_says_what_it_has(
    own: Recommender, catalogue: Catalogue, items: pd.DataFrame
) -> None:
    with pytest.raises(ItemError, match=r"none of this model's modalities \('text', 'image'\).*no modality at all"):
        own.embed(_new(items))


def test_an_item_known_by_another_modality_says_so_even_where_its_file_is_gone(
    bert: Path, catalogue: Catalogue, items: pd.DataFrame, tmp_path: Path
) -> None:
    config = tiny_config(bert)
    config = replace(config, towers={"text": config.towers["text"]})
    recommender = Recommender(config).fit(catalogue, training=replace(CPU, epochs=1))
    assert recommender.store.num_items == NUM_ITEMS  # i1 has no text, and is known by its attributes
    new = pd.concat(
        [_new(items, cover=[str(tmp_path / "gone.png")]), _new(items, item_id="good", title="rain")], ignore_index=True
    )
    report = recommender.embed(new, on_error="quarantine")
    assert report.embedded == 1
    assert "none of this model's modalities ('text')" in report.failed["new"]
    assert "it has 'image'" in report.failed["new"]
    recommender.close()


def test_an_id_that_comes_twice_is_refused(own: Recommender, items: pd.DataFrame) -> None:
    with pytest.raises(ItemError, match="item 'i0': comes more than once"):
        own.embed(pd.concat([items, items.iloc[:1]], ignore_index=True))


def test_nothing_to_embed_is_nothing_done(own: Recommender, items: pd.DataFrame) -> None:
    report = own.embed(items.iloc[:0])
    assert (report.embedded, report.unchanged, report.failed) == (0, 0, {})
