"""Embeddings in fewer bytes: rotated so that the first numbers carry most, cut off, and rounded."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from multimodal_rec.errors import ConfigError

Numbers = Literal["float32", "float16", "int8", "binary"]
NUMBERS: tuple[Numbers, ...] = ("float32", "float16", "int8", "binary")

_FLOAT16_MAX = 65504.0
# Rows that are rotated or taken apart at a time, so that no second float64 copy of a catalogue is made.
_ROWS = 65_536


class Transform(NamedTuple):
    """How an embedding was made smaller; the same steps, in this order, bring another one there."""

    rotation: np.ndarray | None = None
    """Float32 (dim, dims), orthonormal columns: x @ rotation. The first d columns are the best d there are."""
    thresholds: np.ndarray | None = None
    """Float32 (dims,): a bit is set where the number lies above."""
    scale: np.ndarray | None = None
    """Float32 (1,): x / scale, rounded."""


class Compressed(NamedTuple):
    """Embeddings in fewer bytes."""

    values: np.ndarray
    """(item, dims) of float32, float16 or int8; for binary uint8 (item, dims / 8), the first number in the top bit."""
    transform: Transform

    def decoded(self, dims: int) -> np.ndarray:
        """What the values stand for, float32 (item, dims), in the rotated space; bits as -1 and 1."""
        if self.transform.thresholds is not None:
            return np.unpackbits(self.values, axis=1, count=dims).astype(np.float32) * 2 - 1
        decoded = self.values.astype(np.float32)
        return decoded if self.transform.scale is None else decoded * self.transform.scale


def principal_rotation(embeddings: np.ndarray, dims: int) -> np.ndarray:
    """The rotation that keeps most of all inner products in its first numbers, float32 (dim, dims).

    `embeddings`: float32 (item, dim). Eigenvectors of the second moments, not of the covariance: inner products are
    those of the embeddings as they are, and what they have in common belongs to them (Eckart and Young 1936). Signs
    are fixed, so that the same embeddings give the same rotation.
    """
    moments = np.zeros((embeddings.shape[1], embeddings.shape[1]))
    for start in range(0, len(embeddings), _ROWS):
        block = embeddings[start : start + _ROWS].astype(np.float64)
        moments += block.T @ block
    vectors = np.linalg.eigh(moments)[1][:, ::-1][:, :dims]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return (vectors * np.where(largest < 0, -1.0, 1.0)).astype(np.float32)


def compressed(embeddings: np.ndarray, *, numbers: Numbers = "float32", dims: int | None = None) -> Compressed:
    """Embeddings rounded to float16, to int8 with one scale for all, or to one bit a number.

    `embeddings`: float32 (item, dim). `dims`, 1 to dim, rotates them (`principal_rotation`) and keeps the first
    `dims`; None leaves them as they are. One scale, because inner products of the rounded numbers then need no other.
    Bits are set above the mean of their number; their Hamming distance stands for the angle. Raises `ConfigError` for
    other numbers or dims.
    """
    dim = embeddings.shape[1]
    if numbers not in NUMBERS:
        raise ConfigError(f"numbers is '{numbers}'. Expected one of {', '.join(NUMBERS)}.")
    if dims is not None and not 1 <= dims <= dim:
        raise ConfigError(f"dims is {dims}. Expected 1 to {dim}, the length of these embeddings, or None for all.")
    rotation = None if dims is None else principal_rotation(embeddings, dims)
    rotated = embeddings if rotation is None else embeddings @ rotation
    if numbers == "float32":
        return Compressed(rotated, Transform(rotation))
    if numbers == "float16":
        largest = float(np.abs(rotated).max(initial=0.0))
        if largest > _FLOAT16_MAX:
            raise ConfigError(f"float16 ends at 65504, and the largest number is {largest:g}. Take float32 or int8.")
        return Compressed(rotated.astype(np.float16), Transform(rotation))
    if numbers == "int8":
        scale = np.array([float(np.abs(rotated).max(initial=0.0)) / 127 or 1.0], dtype=np.float32)
        values = np.clip(np.rint(rotated / scale), -127, 127).astype(np.int8)
        return Compressed(values, Transform(rotation, scale=scale))
    thresholds = rotated.mean(axis=0, dtype=np.float64).astype(np.float32)
    return Compressed(np.packbits(rotated > thresholds, axis=1), Transform(rotation, thresholds=thresholds))
