"""Int8 weights: near the layer they stand for, of a quarter of its size, and never beyond what a CPU adds up."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.towers.tiny import film, picture
from towers import Tower
from towers.image import TimmImage
from towers.int8 import Int8Linear


def layer(num_in: int = 64, num_out: int = 48, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(num_in, num_out, bias=bias)


@pytest.mark.parametrize("bias", [True, False])
def test_near_the_layer_whatever_the_size_of_a_row(bias: bool) -> None:
    linear = layer(bias=bias)
    rows = torch.randn(5, 7, 64) * torch.logspace(-3, 3, 5)[:, None, None]
    made = Int8Linear(linear)
    expected, given = linear(rows).detach(), made(rows)
    assert given.shape == (5, 7, 48)
    # A scale a row: the small rows are as good as the large ones.
    offset = torch.zeros(48) if linear.bias is None else linear.bias.detach()
    error = (given - expected).norm(dim=-1) / (expected - offset).norm(dim=-1)
    assert 1e-4 < float(error.max()) < 0.03


def test_products_of_whole_numbers_are_exact() -> None:
    linear = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[63.0, -63.0, 63.0, 0.0], [21.0, 0.0, -10.5, 21.0]]))
    made = Int8Linear(linear)
    assert made.weight.tolist() == [[63, -63, 63, 0], [63, 0, -32, 63]]
    # 0 and 1 are steps of eight bits: what is left is the rounding of -10.5 to -32/63 · 21.
    rows = torch.tensor([[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(made(rows), torch.tensor([[126.0, 31 / 3], [0.0, 21.0], [0.0, 0.0]]))


def test_sums_are_never_cut_off() -> None:
    # All weights and activations as large as they come: pairs of products fill 16 bits, and no more.
    linear = nn.Linear(256, 8, bias=False)
    nn.init.constant_(linear.weight, 0.5)
    rows = torch.full((3, 256), 2.0)
    torch.testing.assert_close(Int8Linear(linear)(rows), linear(rows).detach(), rtol=1e-5, atol=0)


def test_other_precisions_multiply_the_weights_out() -> None:
    made, rows = Int8Linear(layer()), torch.randn(3, 64, dtype=torch.float64)
    assert made.bias is not None
    weight = made.weight.double() * made.scale.double()[:, None]
    torch.testing.assert_close(made(rows), F.linear(rows, weight, made.bias.double()))


def test_a_row_does_not_depend_on_the_others() -> None:
    made, rows = Int8Linear(layer()), torch.randn(20, 64)
    assert torch.equal(made(rows)[3:5], made(rows[3:5]))


def test_a_layer_of_zeros_gives_its_bias() -> None:
    linear = layer()
    nn.init.zeros_(linear.weight)
    made = Int8Linear(linear)
    torch.testing.assert_close(made(torch.randn(2, 64)), linear.bias.detach().expand(2, 48))


def test_made_in_inference_mode_and_used_outside() -> None:
    made = Int8Linear(layer())
    rows = torch.randn(2, 64)
    with torch.inference_mode():
        inside = made(rows)
    assert torch.equal(made(rows.requires_grad_()), inside)


def test_a_shared_backbone_is_changed_by_its_owner_alone() -> None:
    torch.manual_seed(0)
    owner = Tower(TimmImage("test_vit", pretrained=False, image_size_px=32), 12)
    video = Tower(owner, 12, modality="video")
    before = video.encode([film(0, 3)])
    assert video.use_int8() == 0
    assert (video.encode([film(0, 3)]) == before).all()
    fingerprint = video.fingerprint()
    assert owner.use_int8() > 0
    assert video.fingerprint() != fingerprint
    assert not (video.encode([film(0, 3)]) == before).all()


def test_a_quantised_backbone_is_not_read_again_from_its_files() -> None:
    torch.manual_seed(0)
    backbone = TimmImage("test_vit", pretrained=False, image_size_px=32)
    tower = Tower(backbone, 12, reload=lambda: copy.deepcopy(backbone))
    tower.use_int8()
    expected = tower.encode([picture(0)])
    assert not tower.release_backbone()
    assert (tower.encode([picture(0)]) == expected).all()
