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

from multimodal_rec.key_index import KeyIndex

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
        self._shards: dict[str, _Shards] = {}

    def get(self, fingerprint: str, hashes: Sequence[str]) -> dict[str, np.ndarray]:
        """Content hash → float16 (window, backbone_dim), for those of `hashes` that are there."""
        if self._folder is None:
            return {key: self._memory[fingerprint, key] for key in hashes if (fingerprint, key) in self._memory}
        shards = self._known(fingerprint)
        places = shards.index.find(hashes)
        if (places < 0).any() and shards.refresh():
            places = shards.index.find(hashes)
        wanted: dict[int, list[str]] = {}
        for key, place in dict(zip(hashes, places.tolist(), strict=True)).items():
            if place >= 0:
                wanted.setdefault(place, []).append(key)
        found: dict[str, np.ndarray] = {}
        for place, keys in wanted.items():
            try:
                with safe_open(shards.files[place], framework="numpy") as shard:
                    held = set(shard.keys())
                    found.update({key: shard.get_tensor(key) for key in keys if key in held})
            except (OSError, SafetensorError):
                shards.index.forget(place)
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
        self._known(fingerprint).add(folder / name, list(halves))

    def _known(self, fingerprint: str) -> _Shards:
        if fingerprint not in self._shards:
            self._shards[fingerprint] = _Shards((self._folder or Path()) / _safe(fingerprint))
            self._shards[fingerprint].refresh()
        return self._shards[fingerprint]


class _Shards:
    """The files of one backbone, and which of them holds what."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[Path] = []
        self.index = KeyIndex()
        self._places: dict[str, int] = {}
        self._changed_ns = -1

    def add(self, path: Path, keys: Sequence[str]) -> None:
        """Note a file that was just written."""
        place = self._places.get(path.name)
        if place is None:
            place = self._places[path.name] = len(self.files)
            self.files.append(path)
        else:
            # Written anew, because it was damaged.
            self.index.forget(place)
        self.index.add(keys, place)

    def refresh(self) -> bool:
        """Read the headers of the files that came since, and say whether there were any: others write, too."""
        try:
            changed_ns = self.folder.stat().st_mtime_ns
        except OSError:
            return False
        if changed_ns == self._changed_ns:
            return False
        self._changed_ns = changed_ns
        before = len(self.files)
        with os.scandir(self.folder) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if entry.name.endswith(".safetensors") and entry.name not in self._places
            )
        for name in names:
            self._places[name] = len(self.files)
            self.files.append(self.folder / name)
            try:
                with safe_open(self.folder / name, framework="numpy") as shard:
                    self.index.add(list(shard.keys()), self._places[name])
            except (OSError, SafetensorError):
                continue
        return len(self.files) > before


def _safe(fingerprint: str) -> str:
    if not fingerprint.isalnum():
        raise ValueError(f"fingerprint '{fingerprint}' is no name of a folder. Expected letters and digits.")
    return fingerprint
