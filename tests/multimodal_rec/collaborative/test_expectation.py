"""What content lets expect: the maps of all scores through few numbers a part."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from multimodal_rec.collaborative.content_map import ContentMap
from multimodal_rec.collaborative.details import AttributeDetails
from multimodal_rec.collaborative.expectation import Expectation, described
from multimodal_rec.collaborative.landmarks import Landmarks
from multimodal_rec.collaborative.score import ContentBlock
from multimodal_rec.fields import FieldEncoder

ITEMS = 60


def taught() -> tuple[dict[str, ContentBlock], list[ContentMap]]:
    """Two blocks, of which an item may lack one, and the maps of two scores, one a thousand times as large."""
    random = np.random.default_rng(0)
    text = random.normal(size=(ITEMS, 5)).astype(np.float32)
    image = random.normal(size=(ITEMS, 3)).astype(np.float32)
    has_image = random.random(ITEMS) < 0.7
    image[~has_image] = 0
    content = {
        "text": ContentBlock(text, np.ones(ITEMS, dtype=bool)),
        "image": ContentBlock(image, has_image),
    }
    small = text @ random.normal(size=(5, 4)) + 3
    large = 1000 * (image @ random.normal(size=(3, 2)))
    known = np.ones(ITEMS, dtype=bool)
    return content, [ContentMap.fit(content, small, known), ContentMap.fit(content, large, known)]


def said_by_maps(maps: list[ContentMap], content: dict[str, ContentBlock]) -> torch.Tensor:
    total = torch.cat([each.offset for each in maps]).expand(ITEMS, -1)
    for name, block in content.items():
        added = torch.cat([each.block(name, torch.from_numpy(block.features)) for each in maps], dim=1)
        total = total + added * torch.from_numpy(block.present).unsqueeze(1)
    return total


def expected(made: Expectation, content: dict[str, ContentBlock]) -> torch.Tensor:
    said = torch.zeros(ITEMS, made.rank)
    for name, block in content.items():
        said += made.part(name, torch.from_numpy(block.features))
    return made.expand(said)


def test_enough_directions_say_what_the_maps_say() -> None:
    content, maps = taught()
    made = Expectation.of(maps, content, rank=8)
    found, wanted = expected(made, content), said_by_maps(maps, content)
    assert found.shape == (ITEMS, 6)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)
    # Rows of no use are there all the same: the width of a store's column is known before its content is.
    assert made.up.shape == (8, 6)


def test_few_directions_keep_of_every_score_most() -> None:
    content, maps = taught()
    found, wanted = expected(Expectation.of(maps, content, rank=4), content), said_by_maps(maps, content)
    for columns in (slice(0, 4), slice(4, 6)):
        own = wanted[:, columns] - wanted[:, columns].mean(dim=0)
        assert (found - wanted)[:, columns].square().sum() < 0.2 * own.square().sum()


def test_a_part_that_nobody_had_says_nothing() -> None:
    content, maps = taught()
    made = Expectation.of(maps, content, rank=4)
    assert torch.equal(made.part("audio", torch.ones(2, 7)), torch.zeros(2, 4))
    nothing = Expectation.of([ContentMap.fit({}, np.ones((5, 3)), np.ones(5, dtype=bool))], {}, rank=4)
    assert nothing.expand(torch.zeros(1, 4)).tolist() == [[1.0, 1.0, 1.0]]


def test_a_part_speaks_by_its_likeness_and_its_curves_too() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"genre": random.choice(["a", "b", "c"], ITEMS), "year": random.integers(1950, 2000, ITEMS)})
    frame.loc[:9, "year"] = None
    encoder = FieldEncoder.fit(frame, {"genre": "category", "year": "number"})
    attributes = torch.from_numpy(encoder.transform(frame))
    raw = taught()[0] | {"attributes": ContentBlock(attributes.numpy(), np.ones(ITEMS, dtype=bool))}
    known = np.arange(ITEMS) < 40
    details = AttributeDetails.of(encoder, attributes)
    landmarks = {name: Landmarks.of(block, known) for name, block in raw.items()}
    content = described(raw, details, landmarks)
    assert set(content) == {*raw, *(f"{name}, likeness" for name in raw), "curves of year"}
    assert not content["curves of year"].present[:10].any()
    assert not content["image, likeness"].features[~raw["image"].present].any()
    # A square and a product, which no sum over the features tells.
    vectors = np.stack([raw["text"].features[:, 0] ** 2, raw["image"].features[:, :2].prod(axis=1)], axis=1)
    maps = [ContentMap.fit(content, vectors, known)]
    made = Expectation.of(maps, content, rank=8, details=details, landmarks=landmarks)
    said = sum((made.part(name, torch.from_numpy(block.features)) for name, block in raw.items()), torch.zeros(()))
    torch.testing.assert_close(made.expand(said), said_by_maps(maps, content), rtol=1e-3, atol=1e-3)
