"""What people say of themselves → features: through a backbone that is kept as it is, each distinct text once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TypeGuard, final

import numpy as np
import torch
from torch import Tensor, nn

from multimodal_rec.feature_cache import FeatureCache
from towers import Tower


@final
class ProfileTower(nn.Module):
    """The tower that reads profiles, and how its rows lie among the people a model was trained on. Nothing learns."""

    centre: Tensor
    scale: Tensor

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower.requires_grad_(False)
        self.register_buffer("centre", torch.zeros(tower.feature_dim))
        self.register_buffer("scale", torch.ones(()))

    @property
    def width(self) -> int:
        """How many numbers a profile becomes."""
        return len(self.centre)

    @torch.no_grad()
    def settle(self, rows: np.ndarray) -> None:
        """Make the mean of these rows (person, width) the origin, and the size of a centred number about 1.

        Without rows, both stay as they are.
        """
        if len(rows):
            centre = rows.mean(axis=0)
            scale = float(np.sqrt(np.mean((rows - centre) ** 2)))
            self.centre.copy_(torch.from_numpy(centre))
            self.scale.fill_(scale if scale > 0 else 1.0)


class ProfileReader:
    """Profiles as features, from the cache where they were read before; none at all where `profile` is None."""

    def __init__(self, profile: ProfileTower | None, cache: FeatureCache, *, batch_size: int = 32) -> None:
        self._profile = profile
        self._cache = cache
        self._batch_size = batch_size

    @property
    def reads(self) -> bool:
        """Whether profiles are read at all."""
        return self._profile is not None

    def read(self, texts: Sequence[object]) -> np.ndarray:
        """Features, float32 (text, width): 0 where there is no text, so that nothing is said of whoever has none.

        They are the backbone's pooled output, centred on the people that the model was trained on and divided by one
        number, so that a feature is about 1.
        """
        if self._profile is None:
            return np.zeros((len(texts), 0), dtype=np.float32)
        rows, there = self._rows(self._profile, texts)
        centre, scale = self._profile.centre.cpu().numpy(), float(self._profile.scale)
        return np.where(there[:, None], (rows - centre) / scale, 0).astype(np.float32)

    def prepare(self, texts: Sequence[object], everybody: Sequence[object]) -> None:
        """Let the people who say `texts` be the origin, read what `everybody` says, and put the backbone down.

        For before training: from then on it is known what anybody who is asked about meanwhile says.
        """
        if self._profile is not None:
            self._rows(self._profile, everybody)
            rows, there = self._rows(self._profile, texts)
            self._profile.settle(rows[there])
            self._profile.tower.release_backbone()

    def _rows(self, profile: ProfileTower, texts: Sequence[object]) -> tuple[np.ndarray, np.ndarray]:
        """What the backbone gives, float32 (text, width), and which texts there are, bool (text,)."""
        keys = [_key(text) if is_said(text) else None for text in texts]
        distinct = {key: str(text) for key, text in zip(keys, texts, strict=True) if key is not None}
        found = self._cache.get(self._fingerprint, list(distinct)) if distinct else {}
        # Of like length together, since a batch is as long as its longest text.
        missing = sorted((key for key in distinct if key not in found), key=lambda key: len(distinct[key]))
        for start in range(0, len(missing), self._batch_size):
            chunk = missing[start : start + self._batch_size]
            rows = profile.tower.encode([distinct[key] for key in chunk], batch_size=self._batch_size, project=False)
            # Rounded to the cache's precision at once: the first run and a later, cached one must agree.
            fresh = dict(zip(chunk, rows[:, None, :].astype(np.float16), strict=True))
            self._cache.put(self._fingerprint, fresh)
            found |= fresh
        rows = np.zeros((len(texts), profile.width), dtype=np.float32)
        for place, key in enumerate(keys):
            if key is not None:
                rows[place] = found[key][0]
        return rows, np.array([key is not None for key in keys], dtype=bool)

    @cached_property
    def _fingerprint(self) -> str:
        # Over all of the backbone's weights, which stay as they are: once is enough.
        return "" if self._profile is None else self._profile.tower.backbone_fingerprint()


def is_said(profile: object) -> TypeGuard[str]:
    """Whether a profile holds more than blanks."""
    return isinstance(profile, str) and bool(profile.strip())


def _key(text: str) -> str:
    # Not the key of an item's text: of that, every window is kept.
    return hashlib.sha256(f"profile {text}".encode("utf-8", "surrogatepass")).hexdigest()
