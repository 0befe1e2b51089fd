"""What is written can be read by others, in the order of the ids, and the loss that is told is the loss there is."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from multimodal_rec.compression import compressed, principal_rotation
from multimodal_rec.errors import ConfigError, StoreError
from multimodal_rec.export import export_embeddings
from multimodal_rec.recommender import Recommender

IDS = [f"ä{row}" for row in range(300)]


@pytest.fixture(scope="module")
def items() -> np.ndarray:
    """Most of what there is lies in 4 of 12 directions, which are no axes."""
    rng = np.random.default_rng(0)
    spread = np.array([4.0] * 4 + [0.3] * 8)
    return (rng.normal(size=(300, 12)) * spread @ np.linalg.qr(rng.normal(size=(12, 12)))[0]).astype(np.float32)


def written(path: Path) -> tuple[list[str], np.ndarray]:
    """Ids and values as somebody reads them who has only pyarrow or NumPy."""
    if path.suffix == ".npy":
        return json.loads(path.with_suffix(".ids.json").read_text()), np.load(path)
    table = pq.read_table(path)
    column = table["embedding"].combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return table["item_id"].to_pylist(), values


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
@pytest.mark.parametrize(("numbers", "dtype"), [("float32", "float32"), ("float16", "float16"), ("int8", "int8")])
def test_numbers_and_ids(tmp_path: Path, items: np.ndarray, suffix: str, numbers, dtype: str) -> None:
    path = tmp_path / "new" / f"items{suffix}"
    report = export_embeddings(path, IDS, items, numbers=numbers)
    ids, values = written(path)
    assert ids == IDS
    assert values.dtype == dtype
    assert report.bytes_an_item == values[0].nbytes
    scale = load_file(path.with_suffix(".transform.safetensors"))["scale"] if numbers == "int8" else 1.0
    np.testing.assert_allclose(values * scale, items, atol=np.abs(items).max() / 250, rtol=1e-3)
    assert report.recall >= (0.95 if numbers == "int8" else 0.99)
    assert sorted(report.files) == sorted(str(file) for file in path.parent.iterdir())


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_bits_lie_above_the_thresholds(tmp_path: Path, items: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"items{suffix}"
    report = export_embeddings(path, IDS, items + 3, numbers="binary")
    _, values = written(path)
    thresholds = load_file(path.with_suffix(".transform.safetensors"))["thresholds"]
    np.testing.assert_array_equal(np.unpackbits(values, axis=1, count=12), items + 3 > thresholds)
    assert (values.dtype, values.shape, report.bytes_an_item) == (np.uint8, (300, 2), 2)
    hamming = np.unpackbits(values[:, None] ^ values[None], axis=2).sum(axis=2)
    assert hamming[0].argmin() == 0
    assert 0.05 < report.recall < 0.9


def test_truncation_keeps_what_matters_and_tells_the_loss(tmp_path: Path, items: np.ndarray) -> None:
    path = tmp_path / "items.npy"
    losses = [export_embeddings(path, IDS, items, dims=dims).recall for dims in (12, 6, 4, 2)]
    assert losses[0] == 1.0
    assert losses == sorted(losses, reverse=True)
    assert losses[2] > 0.5 > losses[3]
    # The first four numbers as they come keep far less than the first four after the rotation.
    cut = export_embeddings(path, IDS, np.ascontiguousarray(items[:, :4]))
    assert cut.dim == 4
    unit = items / np.linalg.norm(items, axis=1, keepdims=True)
    axes = items[:, :4] / np.linalg.norm(items[:, :4], axis=1, keepdims=True)
    first, second = unit @ unit.T, axes @ axes.T
    hits = [len({*np.argsort(-a)[1:11]} & {*np.argsort(-b)[1:11]}) for a, b in zip(first, second, strict=True)]
    assert np.mean(hits) / 10 < losses[2] - 0.1


def test_the_rotation_is_kept_for_queries_and_its_columns_are_nested(tmp_path: Path, items: np.ndarray) -> None:
    path = tmp_path / "items.parquet"
    report = export_embeddings(path, IDS, items, dims=5)
    rotation = load_file(path.with_suffix(".transform.safetensors"))["rotation"]
    np.testing.assert_allclose(written(path)[1], items @ rotation, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(5), atol=1e-5)
    np.testing.assert_allclose(rotation[:, :3], principal_rotation(items, 3), atol=1e-5)
    assert (report.dim, report.dims) == (12, 5)
    assert "5 of 12 numbers as float32, 20 bytes each; recall@10 of the exact neighbours" in str(report)
    about = json.loads(pq.read_schema(path).metadata[b"multimodal_rec"])
    assert about == {"numbers": "float32", "dims": 5, "of": 12}
    export_embeddings(path, IDS, items)
    assert not path.with_suffix(".transform.safetensors").exists(), "an earlier transform is not this one's"


def test_int8_after_a_rotation_keeps_inner_products(items: np.ndarray) -> None:
    made = compressed(items, numbers="int8", dims=12)
    np.testing.assert_allclose(made.decoded(12) @ made.decoded(12).T, items @ items.T, atol=4.0)
    assert made.values.dtype == np.int8
    assert np.abs(made.values).max() == 127


def test_nothing_but_zeros(items: np.ndarray) -> None:
    zeros = np.zeros((3, 4), dtype=np.float32)
    assert not compressed(zeros, numbers="int8").decoded(4).any()
    assert not compressed(zeros, numbers="binary").values.any()


def test_what_cannot_be_written(tmp_path: Path, items: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"items.csv' ends in '.csv'. Expected .parquet or .npy"):
        export_embeddings(tmp_path / "items.csv", IDS, items)
    with pytest.raises(ConfigError, match=r"numbers is 'int4'. Expected one of float32, float16, int8, binary"):
        export_embeddings(tmp_path / "items.npy", IDS, items, numbers="int4")
    with pytest.raises(ConfigError, match=r"dims is 13. Expected 1 to 12"):
        export_embeddings(tmp_path / "items.npy", IDS, items, dims=13)
    with pytest.raises(ConfigError, match=r"float16 ends at 65504, and the largest number is 1e\+06"):
        export_embeddings(tmp_path / "items.npy", ["a"], np.full((1, 2), 1e6, dtype=np.float32), numbers="float16")
    with pytest.raises(StoreError, match=r"there is no embedding to write to .*Embed items first"):
        export_embeddings(tmp_path / "items.npy", [], items[:0])
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written: .*Expected a folder that can be written to"):
        export_embeddings(tmp_path / "file" / "items.npy", IDS, items)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_recommender_exports_items_and_parts(fitted: Recommender, tmp_path: Path) -> None:
    table = fitted._ready().table
    report = fitted.export(tmp_path / "items.npy")
    ids, values = written(tmp_path / "items.npy")
    assert ids == table.ids
    np.testing.assert_array_equal(values, table.embeddings)
    assert report.recall == 1.0
    fitted.export(tmp_path / "text.parquet", part="text")
    ids, values = written(tmp_path / "text.parquet")
    assert "i1" not in ids, "it has no text"
    np.testing.assert_array_equal(values, table.tokens[[table.position[i] for i in ids], 0])
    with pytest.raises(ConfigError, match=r"there is no part 'sound'. Expected 'item', or one of text, image, attri"):
        fitted.export(tmp_path / "x.npy", part="sound")
