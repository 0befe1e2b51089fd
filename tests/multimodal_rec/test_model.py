"""The whole model: tokens, fingerprints, and both scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from multimodal_rec.builders import build_model
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig, TowerConfig
from multimodal_rec.model import ItemFeatures, ModalityFeatures, RecommenderModel
from multimodal_rec.vocabulary import Vocabulary
from tests.multimodal_rec.tiny import tiny_config


@pytest.fixture
def model(bert: Path, catalogue: Catalogue) -> RecommenderModel:
    config = tiny_config(bert)
    model = build_model(config, Vocabulary.fit(catalogue, config)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in (model.fusion, model.ranking):
            for weight in module.parameters():
                weight.normal_(generator=generator)
    return model


def _features(model: RecommenderModel, num_items: int = 5) -> ItemFeatures:
    """Random features; item 1 lacks the text, item 2 the picture, item 3 everything but behaviour."""
    generator = torch.Generator().manual_seed(1)
    modalities = {}
    for name in model.towers:
        windows = torch.randn(num_items, 2, model.tower(name).backbone_dim, generator=generator)
        present = torch.ones(num_items, 2, dtype=torch.bool)
        present[0, 1] = False
        present[[3, {"text": 1, "image": 2}[name]]] = False
        modalities[name] = ModalityFeatures(windows, present)
    known = torch.ones(num_items, dtype=torch.bool)
    known[3] = False
    return ItemFeatures(
        modalities,
        torch.randn(num_items, model.shape.attribute_width, generator=generator),
        known,
        torch.randn(num_items, model.shape.behaviour_width, generator=generator),
        torch.ones(num_items, dtype=torch.bool),
    )


def test_parts_are_modalities_in_order_then_attributes_and_behaviour(bert: Path, catalogue: Catalogue) -> None:
    config = tiny_config(bert)
    backwards = replace(config, towers=dict(reversed(config.towers.items())))
    assert build_model(backwards, Vocabulary.fit(catalogue, config)).parts == (
        "text",
        "image",
        "attributes",
        "behaviour",
    )


def test_tokens_have_one_size_and_say_what_is_present(model: RecommenderModel) -> None:
    tokens, present = model.tokens(_features(model))
    assert tokens.shape == (5, 4, model.shape.embedding_dim)
    assert present.tolist() == [
        [True] * 4,
        [False, True, True, True],
        [True, False, True, True],
        [False, False, False, True],
        [True] * 4,
    ]
    norms = tokens[present].norm(dim=-1)
    torch.testing.assert_close(norms, torch.full_like(norms, model.shape.embedding_dim**0.5), rtol=1e-2, atol=1e-2)


def test_tokens_of_one_item_depend_on_no_other(model: RecommenderModel) -> None:
    features = _features(model)
    tokens, _ = model.tokens(features)
    one = ItemFeatures(
        {name: ModalityFeatures(w[2:3], p[2:3]) for name, (w, p) in features.modalities.items()},
        *(tensor[2:3] for tensor in features[1:5]),
    )
    torch.testing.assert_close(model.tokens(one)[0][0], tokens[2])


def test_absent_windows_may_hold_nan_and_get_no_gradient(model: RecommenderModel) -> None:
    features = _features(model)
    expected, present = model.tokens(features)
    # One window of two is absent: what it holds does not matter.
    features.modalities["image"].windows[0, 1] = float("nan")
    tokens, _ = model.tokens(features)
    torch.testing.assert_close(tokens[present], expected[present])
    model.fuse(tokens, present).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is None or torch.isfinite(weight.grad).all(), name


def test_ranking_is_the_sum_of_contributions_and_both_scores_agree_with_their_parts(model: RecommenderModel) -> None:
    with torch.no_grad():
        tokens, present = model.tokens(_features(model))
        queries = torch.randn(3, *tokens.shape[1:], generator=torch.Generator().manual_seed(2))
        scores = model.scores(queries, tokens, present)
        contributions = model.ranking.contributions(queries, tokens, present)
        temperature = model.log_temperature.exp()
    torch.testing.assert_close(scores.ranking, contributions.sum(dim=-1) / temperature[1])
    torch.testing.assert_close(scores.ranking, model.rank(queries, tokens, present))
    torch.testing.assert_close(scores.retrieval, queries.flatten(1) @ model.fuse(tokens, present).T / temperature[0])


def test_item_fingerprint_follows_what_makes_items_and_nothing_else(model: RecommenderModel) -> None:
    before = model.item_fingerprint()
    assert len(before) == 16
    with torch.no_grad():
        model.query.gate.weight.add_(1)
        model.ranking.key.add_(1)
    assert model.item_fingerprint() == before
    seen = {before}
    for module in (model.attributes, model.behaviour, model.fusion, model.tower("image").projection):
        with torch.no_grad():
            next(module.parameters()).add_(0.5)
        seen.add(model.item_fingerprint())
    assert len(seen) == 5


def test_the_seed_decides_the_weights_and_the_global_state_stays(bert: Path, catalogue: Catalogue) -> None:
    config = tiny_config(bert)
    vocabulary = Vocabulary.fit(catalogue, config)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (build_model(config, vocabulary, seed=seed).item_fingerprint() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert one == same != other


def test_frames_share_the_image_backbone_and_its_weights_are_kept_once(catalogue: Catalogue) -> None:
    net = TowerConfig("timm:test_efficientnet_gn", tuning="full", pretrained=False, image_size_px=32)
    config = RecommenderConfig({"video": TowerConfig("frames:image"), "image": net}, embedding_dim=8)
    model = build_model(config, Vocabulary.fit(catalogue, config))
    assert model.parts[:2] == ("image", "video")
    assert model.tower("video").backbone is model.tower("image").backbone
    assert not any(name.startswith("towers.video.backbone") for name in model.state_dict())


def test_like_logits_keep_the_order(model: RecommenderModel) -> None:
    scores = torch.linspace(-3, 3, 7)
    with torch.no_grad():
        logits = model.like_logits(scores)
    assert logits.shape == (7,)
    assert np.all(np.diff(logits.numpy()) > 0)


def test_a_model_without_towers_is_attributes_and_behaviour(catalogue: Catalogue) -> None:
    config = RecommenderConfig({}, embedding_dim=8, behaviour_rank=4)
    model = build_model(config, Vocabulary.fit(catalogue, config))
    assert model.parts == ("attributes", "behaviour")
    tokens, _ = model.tokens(_features(model))
    assert tokens.shape == (5, 2, 8)
    assert [tuple(each.shape) for each in model.aligned(tokens)] == [(5, 8)]
