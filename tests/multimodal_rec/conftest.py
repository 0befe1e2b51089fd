"""One tiny catalogue and one recommender trained on it, for all tests of a process that only read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.content import ItemContent
from multimodal_rec.recommender import Recommender
from tests.multimodal_rec.tiny import COLLABORATIVE, CPU, tiny_config, write_catalogue
from tests.towers.tiny import write_bert
from towers import Tower, TowerBatch


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return write_bert(tmp_path_factory.mktemp("tiny") / "bert")


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return write_catalogue(tmp_path_factory.mktemp("tiny") / "catalogue")


@pytest.fixture(scope="session")
def fitted(bert: Path, catalogue: Catalogue) -> Iterator[Recommender]:
    """Only to be read: what is embedded or fitted anew belongs into a recommender of the test's own."""
    recommender = Recommender(tiny_config(bert)).fit(catalogue, training=CPU)
    yield recommender
    recommender.close()


@pytest.fixture(scope="session")
def saved(fitted: Recommender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `fitted`, to load a copy that a test may change."""
    return fitted.save(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def own(saved: Path) -> Iterator[Recommender]:
    """A copy of `fitted`, in memory, that a test may change."""
    recommender = Recommender.load(saved, device="cpu")
    yield recommender
    recommender.close()


@pytest.fixture(scope="session")
def saved_blend(bert: Path, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recommender with every collaborative score, whose items lie in it."""
    recommender = Recommender(tiny_config(bert, collaborative=COLLABORATIVE))
    folder = recommender.fit(catalogue, training=replace(CPU, epochs=2)).save(tmp_path_factory.mktemp("tiny") / "blend")
    recommender.close()
    return folder


@pytest.fixture
def own_blend(saved_blend: Path) -> Iterator[Recommender]:
    """A copy of that recommender, in memory, that a test may change."""
    recommender = Recommender.load(saved_blend, device="cpu")
    yield recommender
    recommender.close()


@pytest.fixture
def tower_runs(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many items ran through the tower of each modality."""
    counts: Counter[str] = Counter()
    features = Tower.features

    def counted(self: Tower, batch: TowerBatch) -> object:
        counts[self.modality] += len(batch.counts)
        return features(self, batch)

    monkeypatch.setattr(Tower, "features", counted)
    return counts


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many items of each modality were decoded."""
    counts: Counter[str] = Counter()
    load = ItemContent.load

    def counted(self: ItemContent, row: int, modality: str) -> object:
        counts[modality] += 1
        return load(self, row, modality)

    monkeypatch.setattr(ItemContent, "load", counted)
    return counts
