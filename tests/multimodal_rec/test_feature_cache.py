"""The cache gives back what was put in, and only that, whatever happened in between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multimodal_rec.feature_cache import FeatureCache

PRINT = "0123456789abcdef"


def _features(seed: int, windows: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(windows, 8)).astype(np.float32)


@pytest.fixture(params=["memory", "disk"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path / "cache"


def test_what_was_put_is_got_in_float16(folder: Path | None) -> None:
    cache = FeatureCache(folder)
    assert cache.get(PRINT, ["a", "b"]) == {}
    cache.put(PRINT, {"a": _features(1), "b": _features(2, windows=1)})
    cache.put(PRINT, {})
    found = cache.get(PRINT, ["b", "a", "a", "c"])
    assert set(found) == {"a", "b"}
    assert found["a"].dtype == np.float16
    np.testing.assert_array_equal(found["a"], _features(1).astype(np.float16))
    assert found["b"].shape == (1, 8)


def test_backbones_are_kept_apart(folder: Path | None) -> None:
    cache = FeatureCache(folder)
    cache.put(PRINT, {"a": _features(1)})
    assert cache.get("f" * 16, ["a"]) == {}


def test_wrong_shapes_are_refused_and_large_values_clipped(folder: Path | None) -> None:
    cache = FeatureCache(folder)
    with pytest.raises(ValueError, match=r"features of 'a' have shape \(8,\). Expected \(window, backbone_dim\)"):
        cache.put(PRINT, {"a": np.zeros(8)})
    cache.put(PRINT, {"a": np.array([[1e6, -1e6]], np.float32)})
    np.testing.assert_array_equal(cache.get(PRINT, ["a"])["a"], [[65504, -65504]])


def test_another_process_finds_it(tmp_path: Path) -> None:
    first, second = FeatureCache(tmp_path), FeatureCache(tmp_path)
    assert second.get(PRINT, ["a"]) == {}
    first.put(PRINT, {"a": _features(1)})
    assert set(second.get(PRINT, ["a"])) == {"a"}
    assert set(FeatureCache(tmp_path).get(PRINT, ["a"])) == {"a"}


def test_damaged_and_half_written_files_count_as_absent(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.put(PRINT, {"a": _features(1)})
    cache.put(PRINT, {"b": _features(2)})
    victim = next(path for path in (tmp_path / PRINT).iterdir() if b'"a"' in path.read_bytes())
    victim.write_bytes(victim.read_bytes()[:-5])
    (tmp_path / PRINT / "killed.draft").write_bytes(b"half")
    for survivor in (cache, FeatureCache(tmp_path)):
        assert set(survivor.get(PRINT, ["a", "b"])) == {"b"}
    cache.put(PRINT, {"a": _features(1)})
    for again in (cache, FeatureCache(tmp_path)):
        np.testing.assert_array_equal(again.get(PRINT, ["a"])["a"], _features(1).astype(np.float16))


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("multimodal_rec.feature_cache.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        cache.put(PRINT, {"a": _features(1)})
    assert list((tmp_path / PRINT).iterdir()) == []
    assert cache.get(PRINT, ["a"]) == {}


def test_fingerprints_cannot_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected letters and digits"):
        FeatureCache(tmp_path).put("../elsewhere", {"a": _features(1)})
