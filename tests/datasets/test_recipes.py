"""The recipes for real data: what they make of it, and that another edition is refused."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import CatalogueError
from multimodal_rec.fields import tag_keys

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"


def recipe(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"prepare_{name.replace('-', '_')}", ROOT / "datasets" / name / "prepare.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def source(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"the real data is not beside this checkout: no {name} under ../shared/data")
    return DATA / name


@pytest.fixture(scope="module")
def movielens(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return recipe("movielens-100k").prepare(source("movielens-100k"), tmp_path_factory.mktemp("movielens"))


@pytest.fixture(scope="module")
def emotify(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return recipe("emotify").prepare(source("emotify"), tmp_path_factory.mktemp("emotify"))


@pytest.fixture(scope="module")
def lastfm(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return recipe("lastfm-2k").prepare(source("lastfm-2k"), tmp_path_factory.mktemp("lastfm"))


@pytest.fixture(scope="module")
def tiktok(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return recipe("tiktok").prepare(source("tiktok"), tmp_path_factory.mktemp("tiktok"))


@pytest.mark.parametrize("name", ["movielens-100k", "emotify", "lastfm-2k", "tiktok", "amazon-titles"])
def test_another_edition_of_the_source_is_refused(name: str, tmp_path: Path) -> None:
    module = recipe(name)
    with pytest.raises(CatalogueError, match=r"is missing\. Expected a folder with"):
        module.prepare(tmp_path, tmp_path / "out")
    for table in module.CHECKSUMS:
        (tmp_path / table).write_text("other content\n")
    with pytest.raises(CatalogueError, match=r"has the SHA-256 \w{64}\. Expected \w{64}"):
        module.prepare(tmp_path, tmp_path / "out")


@pytest.mark.real_data
def test_movielens_has_the_protocols_sizes(movielens: Catalogue) -> None:
    assert (movielens.num_items, movielens.num_users, len(movielens.interactions)) == (1662, 943, 99386)
    assert movielens.schema.modalities == ("text", "image")
    toy_story = movielens.items.set_index("item_id").loc["1"]
    assert toy_story["title"] == "Toy Story (1995)"
    assert toy_story["actors"] == ("Tom Hanks", "Tim Allen", "Don Rickles", "Jim Varney")
    assert toy_story["year"] == 1995
    assert Path(toy_story["poster"][0]).is_file()
    assert "N/A" not in set(movielens.items["rated"])


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("how", "recall", "ndcg"),
    [("last", 0.0774, 0.0404), ("share", 0.0724, 0.0852)],
)
def test_movielens_splits_give_the_published_popularity(
    movielens: Catalogue, how: str, recall: float, ndcg: float
) -> None:
    train, valid, test = movielens.split(how)
    known = np.concatenate([_pairs(movielens, train), _pairs(movielens, valid)])
    scores = np.tile(np.bincount(known[:, 1], minlength=1662).astype(float), (943, 1))
    scores[known[:, 0], known[:, 1]] = -np.inf
    relevant = np.zeros(scores.shape, dtype=bool)
    relevant[tuple(_pairs(movielens, test).T)] = True
    hits = np.take_along_axis(relevant, np.argsort(-scores, axis=1, kind="stable")[:, :10], axis=1)
    count = relevant.sum(axis=1)
    discount = 1 / np.log2(np.arange(2, 12))
    ideal = np.cumsum(discount)[np.minimum(count, 10) - 1]
    assert (hits.sum(axis=1) / count).mean() == pytest.approx(recall, abs=5e-5)
    assert (hits @ discount / ideal).mean() == pytest.approx(ndcg, abs=5e-5)


@pytest.mark.real_data
def test_movielens_cold_films_are_the_protocols(movielens: Catalogue) -> None:
    _, _, test = movielens.split("cold_items", valid=0, test=0.2)
    ids = np.array(sorted(map(int, movielens.item_ids)))
    cold = ids[np.random.default_rng(0).permutation(1662)[:332]]
    assert set(test.interactions["item_id"].map(int)) == set(cold.tolist())
    assert len(test.interactions) == 18093


@pytest.mark.real_data
def test_emotify_events_and_people(emotify: Catalogue) -> None:
    assert (emotify.num_items, emotify.num_users, len(emotify.interactions)) == (400, 466, 8407)
    assert emotify.interactions["event"].value_counts().to_dict() == {"heard": 3477, "like": 3232, "dislike": 1698}
    assert set(emotify.interactions["mood"]) == {"1", "2", "3", "4", "5"}
    assert emotify.event_weights.sum() == 3232 - 1698


@pytest.mark.real_data
def test_emotify_mood_is_the_listeners_own_state(emotify: Catalogue) -> None:
    pairs = set(zip(emotify.interactions["user_id"], emotify.interactions["mood"], strict=True))
    moods = np.array(list(Counter(user for user, _ in pairs).values()))
    assert (moods == 1).mean() > 0.5


@pytest.mark.real_data
def test_lastfm_has_words_vectors_and_the_published_parts(lastfm: Catalogue) -> None:
    assert (lastfm.num_items, lastfm.num_users) == (1425, 1858)
    assert lastfm.schema.modalities == ("text", "audio")
    assert lastfm.schema.vectors == {"text": ("text_minilm",), "audio": ("audio_vggish", "audio_whisper")}
    assert [len(part.interactions) for part in lastfm.split("label", column="x_label")] == [44327, 4799, 7219]
    rows = lastfm.items.set_index("item_id")
    assert rows.at["0", "name"] == "Groove Armada"
    assert rows.at["0", "tags"].startswith("00s, 10s, 1st vine, 2009")
    assert lastfm.schema.attributes == {"labels": "tags"}
    assert tag_keys(rows.at["0", "labels"])[:3] == ("00s", "10s", "1st vine")
    given = np.load(source("lastfm-2k") / "audio_whisper.npy")
    assert (np.stack(lastfm.items["audio_whisper"].tolist()) == given[[int(i) for i in lastfm.item_ids]]).all()


@pytest.mark.real_data
def test_lastfm_vectors_give_the_published_content_neighbours(lastfm: Catalogue) -> None:
    train, _, test = lastfm.split("label", column="x_label")
    learned, asked = (_pairs(lastfm, part) for part in (train, test))
    taken = np.zeros((1858, 1425), dtype=np.float32)
    taken[tuple(learned.T)] = 1
    relevant = np.zeros(taken.shape, dtype=bool)
    relevant[tuple(asked.T)] = True
    order = np.argsort([int(item_id) for item_id in lastfm.item_ids])
    content = np.stack(lastfm.items["text_minilm"].tolist())[order]
    content -= content[taken.any(axis=0)].mean(axis=0)
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    scores = np.where(taken > 0, -np.inf, taken @ content @ content.T)
    hits = np.take_along_axis(relevant, np.argsort(-scores, axis=1, kind="stable")[:, :20], axis=1)
    people = relevant.any(axis=1)
    assert (hits.sum(axis=1) / np.maximum(relevant.sum(axis=1), 1))[people].mean() == pytest.approx(0.2869, abs=5e-5)


@pytest.mark.real_data
def test_tiktok_has_float32_vectors_and_the_published_parts(tiktok: Catalogue) -> None:
    assert (tiktok.num_items, tiktok.num_users) == (6710, 9308)
    assert tiktok.schema.vectors == {"image": ("image",), "audio": ("audio",)}
    train, valid, test = tiktok.split("label", column="x_label")
    assert [len(part.interactions) for part in (train, valid, test)] == [59541, 3051, 6130]
    assert len(set(tiktok.item_ids) - set(train.interactions["item_id"])) == 465
    assert {(cell.dtype.name, cell.shape) for cell in tiktok.items["image"]} == {("float32", (128,))}
    given = np.load(source("tiktok") / "image.npy").astype(np.float32)
    assert (np.stack(tiktok.items["image"].tolist()) == given[[int(i) for i in tiktok.item_ids]]).all()


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("which", "sizes"), [("instruments", (20618, 10000, 83828)), ("scientific", (20825, 12076, 85211))]
)
def test_amazon_titles_keep_their_order(which: str, sizes: tuple[int, int, int], tmp_path: Path) -> None:
    found = recipe("amazon-titles").prepare(source("amazon-titles"), tmp_path, which=which)
    assert (found.num_items, found.num_users, len(found.interactions)) == sizes
    assert not found.items["title"].str.contains("&quot;|&amp;").any()
    first = found.interactions.loc[found.interactions["user_id"] == found.interactions["user_id"].iloc[0]]
    assert first["position"].tolist() == list(range(len(first)))
    _, valid, test = found.split("last")
    assert len(test.interactions) == len(valid.interactions) == sizes[1]


def _pairs(whole: Catalogue, part: Catalogue) -> np.ndarray:
    users = {user: index for index, user in enumerate(sorted(set(whole.interactions["user_id"])))}
    items = {item: index for index, item in enumerate(sorted(whole.item_ids, key=int))}
    frame = part.interactions
    return np.stack([frame["user_id"].map(users.__getitem__), frame["item_id"].map(items.__getitem__)], axis=1)
