"""Pooling ignores what is absent, and attention over frames sees their order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.towers.tiny import film, picture
from towers import Tower, apply_tuning
from towers.image import TimmImage
from towers.pooling import FrameAttention, MeanPooling, masked_mean
from towers.windows import pictures_of, spread


def test_mean_of_what_is_there() -> None:
    features = torch.tensor([[[1.0], [3.0], [float("nan")]], [[5.0], [float("inf")], [7.0]]])
    present = torch.tensor([[True, True, False], [True, False, False]])
    torch.testing.assert_close(masked_mean(features, present), torch.tensor([[2.0], [5.0]]))


@pytest.mark.parametrize("pooling", [MeanPooling(), FrameAttention(8)])
def test_absent_windows_filled_with_nan_equal_absent_windows_removed(pooling: torch.nn.Module) -> None:
    features = torch.randn(3, 2, 8)
    present = torch.ones(3, 2, dtype=torch.bool)
    padded = torch.cat([features, torch.full((3, 4, 8), float("nan"))], dim=1)
    mask = torch.cat([present, torch.zeros(3, 4, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(pooling(padded, mask), pooling(features, present))


def test_frame_attention_sees_order_where_the_mean_does_not() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 4, 8)
    present = torch.ones(1, 4, dtype=torch.bool)
    backwards = features.flip(1)
    torch.testing.assert_close(masked_mean(features, present), masked_mean(backwards, present))
    attention = FrameAttention(8)
    assert (attention(features, present) - attention(backwards, present)).abs().max() > 1e-3


def test_frame_attention_learns_which_way_a_film_runs() -> None:
    torch.manual_seed(0)
    steps = torch.linspace(-1, 1, 6)[None, :, None] * torch.randn(64, 1, 8) + 0.1 * torch.randn(64, 6, 8)
    direction = torch.arange(64) % 2
    ramp = torch.linspace(-1, 1, 6)[None, :, None] * torch.ones(8)
    features = steps * 0.2 + torch.where(direction[:, None, None] == 1, ramp, -ramp)
    present = torch.ones(64, 6, dtype=torch.bool)
    net = torch.nn.ModuleList([FrameAttention(8), torch.nn.Linear(8, 2)])
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net[1](net[0](features, present)), direction).backward()
        optimiser.step()
    assert (net[1](net[0](features, present)).argmax(1) == direction).float().mean() > 0.95


@given(count=st.integers(1, 200), limit=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_spread_is_even_ordered_and_within_the_limit(count: int, limit: int) -> None:
    chosen = spread(count, limit)
    assert len(chosen) == min(count, limit)
    assert chosen == sorted(set(chosen))
    assert 0 <= chosen[0] <= chosen[-1] < count
    if 1 < limit < count:
        assert (chosen[0], chosen[-1]) == (0, count - 1)
        gaps = np.diff(chosen)
        assert gaps.max() - gaps.min() <= 1


def test_pictures_are_checked() -> None:
    with pytest.raises(ValueError, match="list of pictures is empty"):
        pictures_of([], max_windows=4)
    with pytest.raises(TypeError, match=r"expected a PIL\.Image, a list of them, or Frames; got str"):
        pictures_of(["cover.jpg"], max_windows=4)
    with pytest.raises(TypeError, match="got str"):
        pictures_of("cover.jpg", max_windows=4)
    grey = pictures_of(picture(0).convert("L"), max_windows=4)
    assert grey[0].mode == "RGB"
    assert len(pictures_of(film(0, 9), max_windows=4)) == 4


def test_shared_backbone_stays_with_the_image_tower() -> None:
    torch.manual_seed(0)
    backbone = TimmImage("test_vit", pretrained=False, image_size_px=32)
    apply_tuning(backbone, "full")
    image = Tower(backbone, 8)
    video = Tower(image, 8, modality="video", max_windows=6)
    assert video.backbone_parameters() == []
    assert not any(name.startswith("backbone") for name in video.state_dict())
    assert len(list(torch.nn.ModuleList([image, video]).parameters())) == len(list(image.parameters())) + len(
        list(video.parameters())
    )
    video(video.prepare([film(1, 6)])).sum().backward()
    assert any(value.grad is not None and value.grad.abs().sum() > 0 for value in image.backbone_parameters())
    assert int(video.prepare([film(1, 9)]).counts[0]) == 6
    video.eval()
    assert backbone.training
    video.encode([film(1, 2)])
    assert backbone.training
    before = video.fingerprint()
    with torch.no_grad():
        image.backbone_parameters()[0].add_(1.0)
    assert video.fingerprint() != before
