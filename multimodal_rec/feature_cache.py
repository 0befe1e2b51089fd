"""What frozen backbones gave, kept by backbone and content, so that nothing runs through one twice."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

_FLOAT16_MAX = 65504.0


class FeatureCache:
    """Backbone outputs in float16, one array (window, backbone_dim) for each backbone fingerprint and content hash.

    `folder`: where they are kept, one subfolder a backbone; None keeps them in memory. Each `put` writes one
    safetensors file under another name first and then renames it, so that a killed process leaves whole files only;
    a file that is damaged all the same counts as absent. Several processes may share a folder.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder = None if folder is None else Path(folder)
        self._memory: dict[tuple[str, str], np.ndarray] = {}
        self._shards: dict[str, dict[str, Path]] = {}
        self._seen: dict[str, set[str]] = {}

    def get(self, fingerprint: str, hashes: Sequence[str]) -> dict[str, np.ndarray]:
        """Content hash → float16 (window, backbone_dim), for those of `hashes` that are there."""
        if self._folder is None:
            return {key: self._memory[fingerprint, key] for key in hashes if (fingerprint, key) in self._memory}
        index = self._index(fingerprint)
        if any(key not in index for key in hashes):
            index = self._refresh(fingerprint)
        wanted: dict[Path, list[str]] = {}
        for key in dict.fromkeys(hashes):
            if key in index:
                wanted.setdefault(index[key], []).append(key)
        found: dict[str, np.ndarray] = {}
        for path, keys in wanted.items():
            try:
                with safe_open(path, framework="numpy") as shard:
                    found.update({key: shard.get_tensor(key) for key in keys})
            except (OSError, SafetensorError):
                self._forget(fingerprint, path)
        return found

    def put(self, fingerprint: str, features: Mapping[str, np.ndarray]) -> None:
        """Keep content hash → (window, backbone_dim); values beyond float16's range are clipped to it.

        Raises `ValueError` for an array of another shape.
        """
        for key, value in features.items():
            if value.ndim != 2 or 0 in value.shape:
                raise ValueError(f"features of '{key}' have shape {value.shape}. Expected (window, backbone_dim).")
        halves = {
            key: np.ascontiguousarray(np.clip(value, -_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16))
            for key, value in features.items()
        }
        if not halves:
            return
        if self._folder is None:
            self._memory.update({(fingerprint, key): value for key, value in halves.items()})
            return
        folder = self._folder / _safe(fingerprint)
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256("\n".join(sorted(halves)).encode()).hexdigest()[:32] + ".safetensors"
        descriptor, draft = tempfile.mkstemp(dir=folder, suffix=".draft")
        os.close(descriptor)
        try:
            save_file(halves, draft)
            with Path(draft).open("rb") as written:
                # Without it a power cut can leave the new name on an empty file.
                os.fsync(written.fileno())
            Path(draft).replace(folder / name)
        finally:
            Path(draft).unlink(missing_ok=True)
        self._index(fingerprint).update(dict.fromkeys(halves, folder / name))
        self._seen[fingerprint].add(name)

    def _index(self, fingerprint: str) -> dict[str, Path]:
        if fingerprint not in self._shards:
            self._shards[fingerprint], self._seen[fingerprint] = {}, set()
            self._refresh(fingerprint)
        return self._shards[fingerprint]

    def _refresh(self, fingerprint: str) -> dict[str, Path]:
        """Read the headers of the files that came since: another process may have written them."""
        index, seen = self._shards[fingerprint], self._seen[fingerprint]
        folder = (self._folder or Path()) / _safe(fingerprint)
        for path in sorted(folder.glob("*.safetensors")):
            if path.name not in seen:
                seen.add(path.name)
                try:
                    with safe_open(path, framework="numpy") as shard:
                        index.update(dict.fromkeys(shard.keys(), path))
                except (OSError, SafetensorError):
                    continue
        return index

    def _forget(self, fingerprint: str, path: Path) -> None:
        index = self._shards[fingerprint]
        for key in [key for key, where in index.items() if where == path]:
            del index[key]


def _safe(fingerprint: str) -> str:
    if not fingerprint.isalnum():
        raise ValueError(f"fingerprint '{fingerprint}' is no name of a folder. Expected letters and digits.")
    return fingerprint
