"""MMRec's layout becomes a catalogue: parts, vectors by modality, items nobody took, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.errors import CatalogueError
from multimodal_rec.mmrec import read_mmrec

IMAGE = np.arange(12, dtype=np.float16).reshape(4, 3)
TEXT = np.arange(20, dtype=np.float64).reshape(4, 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pd.DataFrame(
        {"userID": [7, 7, 9, 9], "itemID": [0, 2, 2, 1], "rating": [4.0, 5.0, 1.0, 2.0], "x_label": [0, 1, 0, 2]}
    ).to_csv(tmp_path / "shop.inter", sep="\t", index=False)
    np.save(tmp_path / "image_feat.npy", IMAGE)
    np.save(tmp_path / "text_feat.npy", TEXT)
    return tmp_path


def test_parts_and_vectors_by_modality(folder: Path) -> None:
    catalogue = read_mmrec(folder, licence="CC0-1.0")
    assert (catalogue.schema.name, catalogue.schema.licence) == ("shop", "CC0-1.0")
    assert catalogue.schema.vectors == {"text": ("text_feat",), "image": ("image_feat",)}
    # Item 3 has features, and nobody took it.
    assert catalogue.item_ids == ("0", "1", "2", "3")
    assert np.stack(catalogue.items["image_feat"].tolist()).tolist() == IMAGE.tolist()
    assert catalogue.items["text_feat"].iloc[3].dtype == np.float32
    assert catalogue.interactions["value"].tolist() == [4.0, 5.0, 1.0, 2.0]
    train, valid, test = catalogue.split("label", column="x_label")
    pairs = [list(zip(p.interactions["user_id"], p.interactions["item_id"], strict=True)) for p in (train, valid, test)]
    assert pairs == [[("7", "0"), ("9", "2")], [("7", "2")], [("9", "1")]]


def test_it_can_be_written_and_read_as_any_catalogue(folder: Path, tmp_path: Path) -> None:
    catalogue = read_mmrec(folder)
    again = Catalogue.read(catalogue.write(tmp_path / "out"))
    assert again.schema == catalogue.schema
    assert np.stack(again.items["text_feat"].tolist()).tolist() == TEXT.tolist()


def test_files_may_be_named_and_one_modality_may_have_several(folder: Path) -> None:
    (folder / "image_feat.npy").rename(folder / "clip.npy")
    np.save(folder / "cover.npy", IMAGE * 2)
    (folder / "other.inter").write_text("userID\titemID\n1\t3\n")
    catalogue = read_mmrec(
        folder, inter="other.inter", features={"image": ["clip.npy", folder / "cover.npy"]}, name="mine", kind="music"
    )
    assert (catalogue.schema.name, catalogue.schema.kind) == ("mine", "music")
    assert catalogue.schema.vectors == {"image": ("clip", "cover")}
    assert catalogue.interactions.to_dict("records") == [{"user_id": "1", "item_id": "3"}]


def test_types_after_the_names_and_times_are_read(folder: Path) -> None:
    (folder / "shop.inter").write_text("userID:token\titemID:token\ttimestamp:float\n1\t3\t1700000000\n")
    assert read_mmrec(folder).interactions["timestamp"].tolist() == [1_700_000_000]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("shop.inter", "userID\titemID\n1\t4\n1\t0\n1\tx\n", r"2 rows of .* in row 0 \('4'\). Expected .* from 0 to 3"),
        ("shop.inter", "user\titemID\n1\t4\n", "no column 'userID'; it has 'user', 'itemID'"),
        ("other.inter", "", "should hold one table .* and has other.inter, shop.inter. Name it with inter=FILE"),
        ("text_feat.npy", "no matrix", "'.*text_feat.npy' cannot be read as a NumPy matrix"),
    ],
)
def test_files_that_do_not_fit_are_refused(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(CatalogueError, match=message):
        read_mmrec(folder)


def test_features_that_do_not_fit_are_refused(folder: Path) -> None:
    np.save(folder / "audio_feat.npy", np.zeros((5, 2)))
    with pytest.raises(CatalogueError, match=r"different numbers of rows: .*4 in text_feat.npy.*5 in audio_feat.npy"):
        read_mmrec(folder)
    np.save(folder / "audio_feat.npy", np.zeros(4))
    with pytest.raises(CatalogueError, match=r"holds no matrix of numbers. Expected the shape \(item, dim\)"):
        read_mmrec(folder)
    with pytest.raises(CatalogueError, match=r"two files of features are called 'text_feat.npy'"):
        read_mmrec(folder, features={"text": ["text_feat.npy"], "image": ["text_feat.npy"]})
    for path in folder.glob("*.npy"):
        path.unlink()
    with pytest.raises(CatalogueError, match=r"no features were found .* such as image_feat.npy"):
        read_mmrec(folder)
