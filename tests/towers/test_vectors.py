"""Vectors that were computed elsewhere: which columns, how they are standardised and joined, what is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from tests.contracts import TowerContract
from towers import Backbone, BackboneOptions, Tower, VectorStatistics, apply_tuning, build_backbone, chosen_columns
from towers.vectors import PrecomputedVectors

RANDOM = np.random.default_rng(0)
WIDE = RANDOM.normal(128, 25, (50, 8))
NARROW = RANDOM.normal(0, 0.01, (50, 2))


def both() -> PrecomputedVectors:
    return PrecomputedVectors(VectorStatistics.fit({"wide": WIDE, "narrow": NARROW}), modality="audio")


class _Vectors(TowerContract):
    refuses = frozenset({"lora", "dora", "adalora", "bottleneck", "side", "full", "top"})

    def backbone(self) -> Backbone:
        matrix = torch.randn(20, 6).numpy()
        return PrecomputedVectors(VectorStatistics.fit({"vggish": matrix}), modality="audio")

    def inputs(self) -> list[Any]:
        return list(np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32))


class TestVectors(_Vectors):
    pass


class TestVectorsOfVideo(_Vectors):
    modality = "video"


class TestTwoColumns(_Vectors):
    def backbone(self) -> Backbone:
        matrix = torch.randn(20, 6).numpy()
        return PrecomputedVectors(VectorStatistics.fit({"vggish": matrix, "whisper": matrix[:, :3]}), modality="audio")

    def inputs(self) -> list[Any]:
        long, short = np.random.default_rng(1).normal(size=(6,)), np.random.default_rng(2).normal(size=(3,))
        return [[long, short], [long, None], (None, short), np.arange(9, dtype=np.float64)]


def test_a_column_is_centred_and_scaled_by_one_number() -> None:
    matrix = np.array([[1.0, 10.0], [3.0, 30.0]])
    statistics = VectorStatistics.fit({"x": matrix})
    # Centred: ±1 and ±10, whose mean square is (1 + 100) / 2.
    assert statistics.means[0].tolist() == [2.0, 20.0]
    assert statistics.scales == pytest.approx((50.5**0.5,))
    rows = Tower(PrecomputedVectors(statistics, modality="text"), 4).encode(list(matrix), project=False)
    np.testing.assert_allclose(rows, np.array([[-1.0, -10.0], [1.0, 10.0]]) / 50.5**0.5, rtol=1e-6)


def test_columns_count_the_same_however_long_and_large_their_vectors_are() -> None:
    rows = Tower(both(), 4).encode([[wide, narrow] for wide, narrow in zip(WIDE, NARROW, strict=True)], project=False)
    assert np.square(rows[:, :8]).sum(axis=1).mean() == pytest.approx(5, rel=1e-4)
    assert np.square(rows[:, 8:]).sum(axis=1).mean() == pytest.approx(5, rel=1e-4)


def test_a_column_that_an_item_lacks_is_its_mean() -> None:
    tower = Tower(both(), 4)
    alone = tower.encode([[WIDE[0], None]], project=False)
    assert (alone[0, 8:] == 0).all()
    filled = tower.encode([[WIDE[0], NARROW.mean(axis=0)]], project=False)
    np.testing.assert_allclose(alone, filled, atol=1e-4)


def test_statistics_leave_out_the_absent_and_survive_json() -> None:
    cells = [None, *WIDE.astype(np.float32), None]
    fitted = VectorStatistics.fit({"wide": cells})
    whole = VectorStatistics.fit({"wide": WIDE.astype(np.float32)})
    assert (fitted.means[0] == whole.means[0]).all()
    assert fitted.scales == whole.scales
    again = VectorStatistics.from_dict(fitted.to_dict())
    assert (again.columns, again.scales, again.dims) == (fitted.columns, fitted.scales, (8,))
    assert (again.means[0] == fitted.means[0]).all()


def test_statistics_of_half_precision_do_not_overflow() -> None:
    statistics = VectorStatistics.fit({"x": np.full((3000, 2), 60_000, dtype=np.float16)})
    assert statistics.means[0].tolist() == [60_000.0 // 32 * 32] * 2
    assert statistics.scales == (1.0,)


def test_vectors_that_are_all_the_same_are_not_blown_up() -> None:
    matrix = np.full((7, 3), 0.1, dtype=np.float32)
    rows = Tower(PrecomputedVectors(VectorStatistics.fit({"x": matrix}), modality="text"), 4)
    assert np.abs(rows.encode(list(matrix), project=False)).max() < 1e-6


def test_an_absurd_vector_stays_finite() -> None:
    tower = Tower(both(), 4)
    rows = tower.encode([[np.full(8, 3e38), np.full(2, -3e38)]], project=False)
    assert rows.tolist() == [[1e4] * 8 + [-1e4] * 2]


@pytest.mark.parametrize(
    ("rest", "columns"),
    [
        ("", ("vggish", "whisper", "a,b")),
        ("whisper", ("whisper",)),
        ("whisper, vggish", ("whisper", "vggish")),
        ("a,b", ("a,b",)),
    ],
)
def test_a_name_chooses_columns(rest: str, columns: tuple[str, ...]) -> None:
    assert chosen_columns(rest, ("vggish", "whisper", "a,b")) == columns


def test_a_wrong_name_names_the_nearest_column() -> None:
    with pytest.raises(ValueError, match=r"'vgish', which is not declared .* Did you mean 'vggish'"):
        chosen_columns("vgish", ("vggish", "whisper"))
    with pytest.raises(ValueError, match=re.escape('audio = ["vggish"] under [vectors] in catalogue.toml')):
        chosen_columns("", ())


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (WIDE[0], ValueError, "1 vectors were given. Expected one .or None. for each of 'wide', 'narrow'"),
        ([WIDE[0][:5], None], ValueError, r"a vector of 'wide' has the shape \(5,\). Expected \(8,\) as in training"),
        ([WIDE[0], np.array([1.0, np.nan])], ValueError, "a vector of 'narrow' holds NaN or infinity"),
        ([np.full(8, 1e300), None], ValueError, "a vector of 'wide' holds NaN or infinity"),
        ([None, None], ValueError, "no vector was given. Expected one of 'wide', 'narrow'"),
        ("slow piano", TypeError, "expected a float array of 10 numbers, .*; got str"),
        ([1.0, 2.0], TypeError, "expected a float array .*; got list"),
        (np.array(["a"]), TypeError, "expected a float array .*; got ndarray"),
    ],
)
def test_other_inputs_are_refused(value: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        both().prepare(value, 1)


def test_the_fingerprint_holds_the_statistics() -> None:
    moved = PrecomputedVectors(VectorStatistics.fit({"wide": WIDE + 1, "narrow": NARROW}), modality="audio")
    assert both().fingerprint() == both().fingerprint() != moved.fingerprint()


@pytest.mark.parametrize(("tuning", "what"), [("full", "tuning='full'"), ("adapter", "adapter='lora'")])
def test_tuning_is_refused_with_the_remedy(tuning: str, what: str) -> None:
    with pytest.raises(ValueError, match=f"{what} needs weights, .*Take tuning='frozen', or a backbone that reads"):
        apply_tuning(both(), tuning)


def test_without_statistics_the_name_alone_is_not_enough() -> None:
    with pytest.raises(ValueError, match=r"'vectors:' has to know how the vectors lie, .*VectorStatistics.fit"):
        build_backbone("vectors:")
    built = build_backbone("vectors:wide", BackboneOptions(modality="image", vectors=VectorStatistics.fit({"x": WIDE})))
    assert (built.modality, built.dim) == ("image", 8)


def test_a_column_without_any_vector_cannot_be_learned() -> None:
    with pytest.raises(ValueError, match="no item has a vector in the column 'x'"):
        VectorStatistics.fit({"x": [None, None]})
