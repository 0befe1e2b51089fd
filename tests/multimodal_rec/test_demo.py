"""The demo at a small size: what it prints, and what lies where afterwards."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.content_statistics import content_statistics
from multimodal_rec.demo import CONTEXTS, KINDS, DemoSize, run_catalogue, run_demo
from multimodal_rec.evaluation.comparison import CONTENT_KNN, MEASURES, MODEL
from multimodal_rec.planting import PARTS, context_sign
from multimodal_rec.rendering import synthesise_sound, write_picture, write_sound
from multimodal_rec.report import CatalogueSection
from multimodal_rec.samples import write_sample
from multimodal_rec.schema import Schema
from towers import Sound

SIZE = DemoSize(num_items=30, num_users=18, epochs=1)


class _Links(HTMLParser):
    """Every local file that a page shows or plays."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [unquote(value) for name, value in attrs if name == "src" and value is not None]


def console() -> Console:
    return Console(file=io.StringIO(), width=100, soft_wrap=True, highlight=False)


def printed(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


class Shown:
    """One catalogue's run, shared: what it printed and what the report is to say."""

    section: CatalogueSection
    text: str


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    out = tmp_path_factory.mktemp("demo")
    write_sample("music", out / "samples" / "music", num_items=SIZE.num_items, num_users=SIZE.num_users)
    to, result = console(), Shown()
    result.section = run_catalogue("music", out, seed=0, console=to, size=SIZE)
    result.text = printed(to)
    return result


def test_the_table_has_the_model_its_baselines_a_row_a_part_and_the_oracles(shown: Shown) -> None:
    table = shown.section.table
    parts = ("text", "image", "audio", "attributes", "behaviour", "context")
    assert list(table.columns) == list(MEASURES)
    assert list(table.index) == [
        "popularity",
        "item k-NN",
        "EASE",
        CONTENT_KNN,
        MODEL,
        *(f"{MODEL}, {part} hidden" for part in parts),
        "learnable oracle",
        "true oracle",
    ]
    assert ((table >= 0) & (table <= 1)).all(axis=None)
    assert table.loc["true oracle", "NDCG@10"] > table.loc["popularity", "NDCG@10"]
    assert set(shown.section.references) == set(table.index[5:])


def test_late_items_are_told_apart_by_content_alone(shown: Shown) -> None:
    late = shown.section.table["NDCG@10, late"]
    # Nobody took them before: what reads behaviour only scores them all alike.
    assert late["popularity"] == late["item k-NN"] == late["EASE"]
    assert late[CONTENT_KNN] != late["popularity"]


def test_three_people_in_two_contexts_with_a_reason(shown: Shown) -> None:
    rows = shown.section.recommendations
    assert len(rows) == 6
    assert len({row.user_id for row in rows}) == 3
    assert [dict(row.context) for row in rows[:2]] == [dict(context) for context in CONTEXTS["music"]]
    for row in rows:
        liked = {card.item_id for card in row.liked}
        assert row.reason
        assert len(row.items) == 5
        assert liked.isdisjoint(card.item_id for card in row.items)
        scores = [card.score for card in row.items]
        assert scores == sorted(scores, reverse=True)


def test_stages_and_tables_are_printed(shown: Shown) -> None:
    for stage in ("check", "train", "embed what came later", "judge", "recommend and explain"):
        assert re.search(rf"^  {stage}.* \d+\.\d s$", shown.text, flags=re.MULTILINE), stage
    assert "3 items embedded, 27 were already" in shown.text
    for word in (*MEASURES, "popularity", "true oracle", "why the first", "hour 21", shown.section.notes[-1]):
        assert word in shown.text


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_contexts_turn_every_taste_that_a_context_turns(kind: str) -> None:
    first, second = (pd.DataFrame([context]) for context in CONTEXTS[kind])
    for part in (part for part in PARTS[kind] if part.flips_with is not None):
        np.testing.assert_allclose(context_sign(first, part), -context_sign(second, part))


@pytest.mark.slow
def test_the_whole_demo_leaves_a_page_whose_media_are_there(tmp_path: Path) -> None:
    to = console()
    assert run_demo(tmp_path, seed=1, console=to, size=SIZE) == 0
    page = tmp_path / "report.html"
    text = page.read_text(encoding="utf-8")
    reader = _Links()
    reader.feed(text)
    suffixes = {Path(link).suffix for link in reader.links}
    assert {".mp4", ".jpg", ".png"} <= suffixes
    assert suffixes & {".wav", ".flac", ".ogg"}
    assert all((tmp_path / link).is_file() for link in reader.links)
    assert all(f'<h2 id="catalogue-{number}-title">' in text for number in (1, 2, 3))
    assert printed(to).rstrip().endswith(f"Open {page}")


def test_content_statistics_find_what_looks_and_sounds_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, colour in (("red", (200, 30, 30)), ("rose", (210, 60, 50)), ("blue", (20, 40, 210))):
        write_picture(tmp_path / f"{name}.png", Image.new("RGB", (20, 12), colour))
    for name, brightness in (("dull", 0.0), ("bright", 1.0)):
        sound: Sound = synthesise_sound(0.5, brightness, rng=rng)
        write_sound(tmp_path / f"{name}.wav", sound)
    items = pd.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "cover": ["red.png", "rose.png", "blue.png", None],
            "clip": [None, None, "dull.wav", "bright.wav"],
            "genre": ["calm", "lively", "lively", None],
        }
    )
    schema = Schema("tiny", kind="music", image=("cover",), audio=("clip",), attributes={"genre": "category"})
    catalogue = Catalogue.from_frames(items, schema=schema, media=tmp_path)
    features = content_statistics(catalogue.items, schema)
    picture, sound_block, genre = features[:, :192], features[:, 192:-2], features[:, -2:]
    likeness = picture @ picture.T
    assert likeness[0, 1] > likeness[0, 2]
    np.testing.assert_allclose(np.linalg.norm(picture, axis=1), [1, 1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(sound_block, axis=1), [0, 0, 1, 1], atol=1e-6)
    assert sound_block[2] @ sound_block[3] < 0.999
    np.testing.assert_array_equal(genre @ genre.T, [[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]])


def test_text_features_are_one_more_block() -> None:
    schema = Schema("tiny", text=("title",))
    items = pd.DataFrame({"item_id": ["a", "b"], "title": ["one", None]})
    features = content_statistics(items, schema, text=np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(features, [[0.6, 0.8], [0.0, 0.0]], atol=1e-6)
    assert content_statistics(items, schema).shape == (2, 1)
