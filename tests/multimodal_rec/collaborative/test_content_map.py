"""What content lets expect: the ridge that it is, absent blocks, blocks that say nothing, new items."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from multimodal_rec.collaborative import content_map
from multimodal_rec.collaborative.content_map import ContentMap
from multimodal_rec.collaborative.score import ContentBlock
from multimodal_rec.errors import ConfigError

NUM_ITEMS = 200


def block(features: np.ndarray, present: np.ndarray | None = None) -> ContentBlock:
    there = np.ones(len(features), dtype=bool) if present is None else present
    return ContentBlock(np.where(there[:, None], features, 0.0).astype(np.float32), there)


def expected(learned: ContentMap, content: dict[str, ContentBlock]) -> np.ndarray:
    """Offset + what present blocks add, (item, width)."""
    total: Tensor = learned.offset
    for name, each in content.items():
        added = learned.block(name, torch.from_numpy(each.features))
        total = total + added * torch.from_numpy(each.present)[:, None]
    return total.numpy()


def planted(noise: float = 0.1, seed: int = 0) -> tuple[dict[str, ContentBlock], np.ndarray, np.ndarray]:
    """Content of which `text` tells three numbers, `noise` nothing; the numbers; the first half of items is known."""
    random = np.random.default_rng(seed)
    text, nothing = random.standard_normal((NUM_ITEMS, 6)), random.standard_normal((NUM_ITEMS, 30))
    vectors = 3.0 + text @ random.standard_normal((6, 3)) + noise * random.standard_normal((NUM_ITEMS, 3))
    return {"text": block(text + 5.0), "noise": block(nothing)}, vectors, np.arange(NUM_ITEMS) < NUM_ITEMS // 2


def explained(vectors: np.ndarray, found: np.ndarray) -> float:
    return 1 - float(((vectors - found) ** 2).sum() / ((vectors - vectors.mean(axis=0)) ** 2).sum())


def test_new_items_get_what_their_content_tells() -> None:
    content, vectors, known = planted()
    found = expected(ContentMap.fit(content, vectors, known), content)
    assert explained(vectors[~known], found[~known]) > 0.97


def test_a_block_that_tells_nothing_adds_next_to_nothing() -> None:
    content, vectors, known = planted(noise=0.5)
    learned = ContentMap.fit(content, vectors, known)
    said = {name: learned.block(name, torch.from_numpy(each.features)).std() for name, each in content.items()}
    assert said["noise"] < 0.1 * said["text"]


def test_what_content_cannot_tell_is_expected_to_be_the_mean() -> None:
    content, vectors, known = planted()
    vectors = np.random.default_rng(5).standard_normal(vectors.shape)
    found = expected(ContentMap.fit(content, vectors, known), content)
    assert np.abs(found[~known] - vectors[known].mean(axis=0)).max() < 0.35


def test_it_is_the_ridge_regression_with_the_weighed_blocks() -> None:
    content, vectors, known = planted(noise=1.0)
    learned = ContentMap.fit(content, vectors, known)
    blocks = [content_map._prepared(each, np.flatnonzero(known)) for each in content.values()]
    targets = vectors[known] - vectors[known].mean(axis=0)
    kernels = np.stack([each.features @ each.features.T for each in blocks])
    weighed = content_map._weighed(kernels, targets)
    kernel = np.tensordot(weighed.blocks, kernels, 1)
    noise = content_map.CAUTION * weighed.noise
    wanted = kernel @ np.linalg.solve(kernel + noise * np.eye(len(kernel)), targets) + vectors[known].mean(axis=0)
    np.testing.assert_allclose(expected(learned, content)[known], wanted, atol=1e-4)


def test_both_systems_give_the_same_map() -> None:
    content, vectors, known = planted(noise=1.0)
    wide = {name: block(np.tile(each.features, (1, 20)), each.present) for name, each in content.items()}
    few = expected(ContentMap.fit(content, vectors, known), content)
    # Columns told twenty times are the same kernel, and more columns than items the other system.
    np.testing.assert_allclose(expected(ContentMap.fit(wide, vectors, known), wide), few, atol=1e-3)


def test_variances_and_noise_are_near_what_made_the_numbers() -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((150, 5)) / np.sqrt(5), random.standard_normal((150, 5)) / np.sqrt(5)
    made = features[0] @ random.standard_normal((5, 400)) * np.sqrt(3.0) + random.standard_normal((150, 400))
    found = content_map._weighed(np.stack([each @ each.T for each in features]), made, steps=200)
    assert found.blocks[0] / found.noise == pytest.approx(3.0, rel=0.15)
    assert found.blocks[1] / found.noise < 0.05


def test_an_absent_block_adds_nothing_and_may_hold_anything() -> None:
    content, vectors, known = planted()
    there = np.random.default_rng(1).random(NUM_ITEMS) < 0.7
    gone = {"text": block(content["text"].features, there), "noise": content["noise"]}
    filled = {"text": ContentBlock(np.where(there[:, None], content["text"].features, np.nan), there)}
    learned, other = ContentMap.fit(gone, vectors, known), ContentMap.fit({**gone, **filled}, vectors, known)
    torch.testing.assert_close(other.state_dict(), learned.state_dict(), rtol=0, atol=0)
    found = expected(learned, gone)
    without = expected(learned, {"noise": gone["noise"]})
    np.testing.assert_allclose(found[~there], without[~there])
    new = ~known & there
    assert explained(vectors[new], found[new]) > 0.9


def test_neither_the_size_nor_the_mean_of_a_block_matters() -> None:
    content, vectors, known = planted(noise=1.0)
    scaled = {"text": block(content["text"].features * 1e3 - 40.0), "noise": content["noise"]}
    wanted = expected(ContentMap.fit(content, vectors, known), content)
    np.testing.assert_allclose(expected(ContentMap.fit(scaled, vectors, known), scaled), wanted, atol=2e-2)


def test_columns_alone_weigh_blocks_for_themselves() -> None:
    random = np.random.default_rng(2)
    text, tags = random.standard_normal((NUM_ITEMS, 8)), random.standard_normal((NUM_ITEMS, 60))
    taste = text @ random.standard_normal((8, 20)) + 3 * random.standard_normal((NUM_ITEMS, 20))
    popularity = tags @ random.standard_normal((60, 1)) / 8
    vectors, known = np.hstack([taste, popularity]), np.arange(NUM_ITEMS) < 150
    content = {"text": block(text), "tags": block(tags)}
    apart = expected(ContentMap.fit(content, vectors, known, alone=(20,)), content)
    together = expected(ContentMap.fit(content, vectors, known), content)
    assert explained(vectors[~known, 20:], apart[~known, 20:]) > 0.5
    assert explained(vectors[~known, 20:], together[~known, 20:]) < 0.3


def test_without_content_or_known_items_it_is_the_mean_or_nothing() -> None:
    content, vectors, known = planted()
    learned = ContentMap.fit({}, vectors, known)
    np.testing.assert_allclose(learned.offset, vectors[known].mean(axis=0), rtol=1e-5)
    nothing = expected(ContentMap.fit(content, vectors, np.zeros_like(known)), content)
    assert np.all(nothing == 0)
    constant = {"text": block(np.ones((NUM_ITEMS, 3)))}
    found = expected(ContentMap.fit(constant, vectors, known), constant)
    np.testing.assert_allclose(found, np.tile(vectors[known].mean(axis=0), (NUM_ITEMS, 1)), rtol=1e-5)


def test_it_survives_being_saved_and_is_the_same_for_a_seed() -> None:
    content, vectors, known = planted()
    learned, again = (ContentMap.fit(content, vectors, known, seed=1) for _ in range(2))
    loaded = ContentMap({"text": 6, "noise": 30}, 3)
    loaded.load_state_dict(learned.state_dict())
    torch.testing.assert_close(again.state_dict(), learned.state_dict(), rtol=0, atol=0)
    np.testing.assert_array_equal(expected(loaded, content), expected(learned, content))


def test_what_cannot_be_learned_from_is_refused() -> None:
    content, vectors, known = planted()
    with pytest.raises(ConfigError, match=r"Expected \(200, width\): a row an item"):
        ContentMap.fit({"text": block(np.ones((3, 2)))}, vectors, known)
    with pytest.raises(ConfigError, match="content 'text' holds NaN or infinity"):
        ContentMap.fit({"text": block(np.full((NUM_ITEMS, 2), np.nan))}, vectors, known)
    with pytest.raises(ConfigError, match="vectors hold NaN or infinity"):
        ContentMap.fit(content, np.full_like(vectors, np.inf), known)
    with pytest.raises(ConfigError, match="Expected columns from 0 to 2, each once"):
        ContentMap.fit(content, vectors, known, alone=(3,))
    with pytest.raises(ConfigError, match=r"Expected \(item, width\) and \(item,\)"):
        ContentMap.fit(content, vectors, known[:3])
    with pytest.raises(KeyError, match=r"block 'sound' is unknown\. Expected one of 'text', 'noise'"):
        ContentMap.fit(content, vectors, known).block("sound", torch.zeros(1, 2))


def test_what_is_little_trusted_teaches_little() -> None:
    content, vectors, known = planted()
    random = np.random.default_rng(3)
    noisy = known & (random.random(NUM_ITEMS) < 0.5)
    taught = vectors + np.where(noisy[:, None], 20.0 * random.standard_normal(vectors.shape), 0.0)
    trust = np.where(noisy, 1e-3, 1.0)
    alike = expected(ContentMap.fit(content, taught, known), content)
    weighed = expected(ContentMap.fit(content, taught, known, trust=trust), content)
    assert explained(vectors[~known], weighed[~known]) > 0.85
    assert explained(vectors[~known], alike[~known]) < 0.7
    # Only how the items compare matters: twice the trust in all is the same trust.
    twice = expected(ContentMap.fit(content, taught, known, trust=2 * trust), content)
    np.testing.assert_allclose(twice, weighed, atol=1e-4)


def test_trust_that_is_none_is_refused() -> None:
    content, vectors, known = planted()
    with pytest.raises(ConfigError, match=r"trust is \(200,\). Expected a number above 0 for each of 200 items"):
        ContentMap.fit(content, vectors, known, trust=np.zeros(NUM_ITEMS))
    with pytest.raises(ConfigError, match=r"trust is \(3,\)"):
        ContentMap.fit(content, vectors, known, trust=np.ones(3))
