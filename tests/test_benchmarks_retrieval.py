"""The benchmark of retrieval runs, and its generator makes what it says."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "retrieval.py"


def test_generated_items_lie_in_themes() -> None:
    spec = importlib.util.spec_from_file_location("retrieval_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    data = module.clustered(2000, 7, dim=16, seed=3)
    assert (data.items.shape, data.queries.shape) == ((2000, 16), (7, 16))
    assert data.items.dtype == data.queries.dtype == np.float32
    unit = data.items / np.linalg.norm(data.items, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, np.nan)
    same = data.cluster[:, None] == data.cluster[None]
    assert np.nanmean(cosines[same]) > np.nanmean(cosines[~same]) + 0.4
    np.testing.assert_array_equal(module.clustered(2000, 7, dim=16, seed=3).items, data.items)


def test_it_prints_every_search_and_filter() -> None:
    command = [sys.executable, str(BENCHMARK), "--items", "2000", "--queries", "3", "--threads", "1"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=BENCHMARK.parent.parent).stdout
    assert "found, first time" in printed
    for what in ("multimodal-rec, index", "multimodal-rec, found", "found and ranked", "FAISS flat", "FAISS IVF89,SQ8"):
        assert printed.count(f"{what} ") >= 5, printed
    assert "recall@100" in printed
