"""Every kind of fusion and every score passes one contract; those that weigh part by part pass a second one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from fusion import FUSIONS, AttentionFusion, ContextScore, FusionKind, GatedFusion, MeanFusion, build_fusion
from tests.contracts import FusionContract

QUERIES, ITEMS, PARTS, DIM = 4, 6, 3, 5
KINDS: tuple[FusionKind, ...] = get_args(FusionKind)


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _shaken(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for index, weight in enumerate(module.parameters()):
            weight.copy_(_random(*weight.shape, seed=index) / 2)
    return module


@dataclass(frozen=True)
class Case:
    """A fusion, or a score with its queries, seen as a function of items: one row an item."""

    kind: FusionKind
    is_score: bool

    def build(self) -> nn.Module:
        return build_fusion(self.kind, DIM, PARTS)[int(self.is_score)]

    def __str__(self) -> str:
        return f"{self.kind}-{'score' if self.is_score else 'fusion'}"

    @property
    def width(self) -> int:
        return QUERIES if self.is_score else PARTS * DIM

    def rows(self, module: Callable[..., Tensor], tokens: Tensor, present: Tensor) -> Tensor:
        """What the module gives, (item, query or part · dim)."""
        if not self.is_score:
            return module(tokens, present)
        return module(_random(QUERIES, PARTS, DIM, seed=7).to(tokens.dtype), tokens, present).T


@pytest.fixture(params=[Case(kind, score) for kind in KINDS for score in (False, True)], ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def items() -> tuple[Tensor, Tensor]:
    """Tokens and what is present; item 1 lacks the first part, item 2 the second, item 3 all but the last."""
    present = torch.ones(ITEMS, PARTS, dtype=torch.bool)
    present[1, 0] = present[2, 1] = present[3, :2] = False
    return _random(ITEMS, PARTS, DIM, seed=8), present


Items = tuple[Tensor, Tensor]


def test_one_finite_row_an_item(case: Case, items: Items) -> None:
    rows = case.rows(_shaken(case.build()), *items)
    assert rows.shape == (ITEMS, case.width)
    assert rows.dtype == torch.float32
    assert torch.isfinite(rows).all()
    assert (rows != rows[0]).any(dim=1).tolist() == [False, True, True, True, True, True]


def test_no_items_give_no_rows(case: Case, items: Items) -> None:
    tokens, present = items
    assert case.rows(case.build(), tokens[:0], present[:0]).shape == (0, case.width)


def test_a_fresh_one_is_the_mean_of_the_present_parts(case: Case, items: Items) -> None:
    tokens, present = items
    expected = MeanFusion(DIM, PARTS)(tokens, present)
    if case.is_score:
        expected = expected @ _random(QUERIES, PARTS, DIM, seed=7).flatten(1).T
    torch.testing.assert_close(case.rows(case.build(), *items), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("filler", [float("nan"), float("inf"), -1e30])
def test_absent_parts_have_no_say(case: Case, items: Items, filler: float) -> None:
    module, (tokens, present) = _shaken(case.build()), items
    filled = tokens.masked_fill(~present.unsqueeze(-1), filler).requires_grad_()
    rows = case.rows(module, filled, present)
    assert torch.equal(rows, case.rows(module, tokens, present))
    rows.square().sum().backward()
    assert filled.grad is not None
    assert torch.isfinite(filled.grad).all()
    assert (filled.grad[~present] == 0).all()
    assert (filled.grad[present] != 0).any(dim=-1).all()
    assert all(torch.isfinite(weight.grad).all() for weight in module.parameters() if weight.grad is not None)


@pytest.mark.parametrize("prepare", [lambda module: module, _shaken], ids=["fresh", "trained"])
def test_every_weight_gets_a_gradient(case: Case, items: Items, prepare: Callable[[nn.Module], nn.Module]) -> None:
    module, (tokens, present) = prepare(case.build()), items
    (case.rows(module, tokens.requires_grad_(), present) * _random(ITEMS, case.width, seed=9)).sum().backward()
    assert bool(list(module.parameters())) == (case.kind != "mean")
    for name, weight in module.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name
        # Each slice of it, which is a part or one of the numbers that come out.
        assert (weight.grad.reshape(len(weight), -1) != 0).any(dim=1).all(), name


def test_rows_are_independent_and_one_equals_the_batch(case: Case, items: Items) -> None:
    module, (tokens, present) = _shaken(case.build()), items
    together = case.rows(module, tokens, present)
    for item in range(ITEMS):
        one = slice(item, item + 1)
        torch.testing.assert_close(case.rows(module, tokens[one], present[one]), together[one])
    tokens = tokens.clone()
    tokens[0] += 1
    changed = case.rows(module, tokens, present)
    torch.testing.assert_close(changed[1:], together[1:])
    assert not torch.allclose(changed[0], together[0])


def test_weights_survive_a_round_trip(case: Case, items: Items, tmp_path: Path) -> None:
    module, fresh = _shaken(case.build()), case.build()
    save_model(module, str(tmp_path / "weights.safetensors"))
    load_model(fresh, tmp_path / "weights.safetensors")
    assert torch.equal(case.rows(fresh, *items), case.rows(module, *items))


def test_without_gradients_and_in_training_the_rows_are_the_same(case: Case, items: Items) -> None:
    module = _shaken(case.build())
    with torch.no_grad():
        still = case.rows(module.eval(), *items)
    assert not still.requires_grad
    assert torch.equal(still, case.rows(module.train(), *items))


def test_half_precision_is_near_and_trains(case: Case, items: Items) -> None:
    module, (tokens, present) = _shaken(case.build()), items
    expected = case.rows(module, tokens, present).detach()
    tokens = tokens.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = case.rows(module, tokens, present)
    torch.testing.assert_close(rows.float(), expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))
    rows.float().square().sum().backward()
    assert tokens.grad is not None
    assert torch.isfinite(tokens.grad).all()
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in module.parameters())


def test_double_precision_stays_double_and_gradients_are_exact(case: Case, items: Items) -> None:
    module, (tokens, present) = _shaken(case.build()).double(), items
    tokens = tokens.double().requires_grad_()
    names = [name for name, _ in module.named_parameters()]

    def rows(tokens: Tensor, *weights: Tensor) -> Tensor:
        def call(*inputs: Tensor) -> Tensor:
            return torch.func.functional_call(module, dict(zip(names, weights, strict=True)), inputs)

        return case.rows(call, tokens, present)

    assert rows(tokens, *module.parameters()).dtype == torch.float64
    assert torch.autograd.gradcheck(rows, (tokens, *module.parameters()), fast_mode=True)


def test_an_item_of_nothing_raises(case: Case, items: Items) -> None:
    tokens, present = items
    present[[1, 4]] = False
    with pytest.raises(ValueError, match=r"rows \[1, 4\] have no part present. Expected at least one each; leave such"):
        case.rows(case.build(), tokens, present)


def test_shapes_that_disagree_raise(case: Case, items: Items) -> None:
    module, (tokens, present) = case.build(), items
    with pytest.raises(ValueError, match=r"present \(6, 2\).*Expected \(item, part, dim\) and \(item, part\)"):
        case.rows(module, tokens, present[:, :2])
    with pytest.raises(ValueError, match=r"tokens have shape \(6, 15\).*Expected \(item, part, dim\)"):
        case.rows(module, tokens.flatten(1), present)
    with pytest.raises(
        ValueError, match=r"tokens have shape \(6, 2, 5\). Expected \(item, 3, 5\), the number of parts"
    ):
        case.rows(module, tokens[:, :2], present[:, :2])
    with pytest.raises(ValueError, match=r"tokens have shape \(6, 3, 4\). Expected \(item, 3, 5\)"):
        case.rows(module, tokens[..., :4], present)


def test_numbers_in_place_of_a_mask_raise(case: Case, items: Items) -> None:
    tokens, present = items
    with pytest.raises(TypeError, match=r"present is torch.int64. Expected torch.bool, True where a part is there"):
        case.rows(case.build(), tokens, present.long())


@pytest.mark.parametrize("kind", KINDS)
def test_queries_of_another_shape_raise(kind: FusionKind, items: Items) -> None:
    _, score = build_fusion(kind, DIM, PARTS)
    queries = _random(QUERIES, PARTS, DIM, seed=7)
    with pytest.raises(ValueError, match=r"queries have shape \(4, 2, 5\). Expected \(query, 3, 5\): a block a part"):
        score(queries[:, :2], *items)
    with pytest.raises(ValueError, match=r"queries have shape \(4, 15\). Expected \(query, 3, 5\)"):
        score(queries.flatten(1), *items)


@pytest.mark.parametrize("kind", KINDS)
def test_queries_are_independent(kind: FusionKind, items: Items) -> None:
    score = _shaken(build_fusion(kind, DIM, PARTS)[1])
    queries = _random(QUERIES, PARTS, DIM, seed=7)
    together = score(queries, *items)
    for query in range(QUERIES):
        one = slice(query, query + 1)
        torch.testing.assert_close(score(queries[one], *items), together[one])
    assert score(queries[:0], *items).shape == (0, ITEMS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_inner_product_with_the_item_embedding_is_as_wide_as_a_query(kind: FusionKind, items: Items) -> None:
    fusion, _ = build_fusion(kind, DIM, PARTS)
    assert fusion.output_dim == PARTS * DIM == fusion(*items).shape[1]


def test_names_are_in_order_and_each_builds_a_fusion_and_a_score_that_share_no_weight() -> None:
    assert FUSIONS == ("attention", "concatenation", "gating", "mean")
    for kind in KINDS:
        fusion, score = build_fusion(kind, DIM, PARTS)
        own = {weight.data_ptr() for weight in fusion.parameters()}
        assert own.isdisjoint(weight.data_ptr() for weight in score.parameters())
    assert isinstance(build_fusion("attention", DIM, PARTS)[1], ContextScore)


def test_an_unknown_kind_raises() -> None:
    with pytest.raises(ValueError, match=r"fusion 'sum' is unknown. Expected one of 'attention', 'concatenation', "):
        build_fusion("sum", DIM, PARTS)  # pyright: ignore[reportArgumentType]


def _without(smaller: nn.Module, module: nn.Module, part: int) -> nn.Module:
    """`smaller` with the weights of `module`, whose first dimension is the part, for all parts but one."""
    state = {name: torch.cat([w[:part], w[part + 1 :]]) for name, w in module.state_dict().items()}
    smaller.load_state_dict(state)
    return smaller


class TestAttentionFusion(FusionContract):
    def build(self) -> nn.Module:
        return _shaken(AttentionFusion(self.embedding_dim, self.num_parts))

    def without(self, fusion: nn.Module, part: int) -> nn.Module:
        return _without(AttentionFusion(self.embedding_dim, self.num_parts - 1), fusion, part)

    def blocks(self, fusion: nn.Module, tokens: Tensor, present: Tensor) -> Tensor:
        fused = fusion(tokens, present)
        assert fused.shape == (len(tokens), tokens.shape[1] * self.embedding_dim)
        return fused.unflatten(1, tokens.shape[1:]) / tokens.shape[1]


class TestMeanFusion(TestAttentionFusion):
    def build(self) -> nn.Module:
        return MeanFusion(self.embedding_dim, self.num_parts)

    def without(self, fusion: nn.Module, part: int) -> nn.Module:
        return MeanFusion(self.embedding_dim, self.num_parts - 1)


class TestGatedFusion(TestAttentionFusion):
    def build(self) -> nn.Module:
        return _shaken(GatedFusion(self.embedding_dim, self.num_parts))

    def without(self, fusion: nn.Module, part: int) -> nn.Module:
        assert isinstance(fusion, GatedFusion)
        smaller = GatedFusion(self.embedding_dim, self.num_parts - 1)
        kept = torch.arange(self.num_parts) != part
        # A gate reads every number of every part, then one a part for what is present.
        read = torch.cat([kept.repeat_interleave(self.embedding_dim), kept])
        smaller.gate.load_state_dict({"weight": fusion.gate.weight[kept][:, read], "bias": fusion.gate.bias[kept]})
        return smaller


class TestContextScore(FusionContract):
    def build(self) -> nn.Module:
        return _shaken(ContextScore(self.embedding_dim, self.num_parts))

    def without(self, fusion: nn.Module, part: int) -> nn.Module:
        self._left = [index for index in range(self.num_parts) if index != part]
        return _without(ContextScore(self.embedding_dim, self.num_parts - 1), fusion, part)

    def blocks(self, fusion: nn.Module, tokens: Tensor, present: Tensor) -> Tensor:
        queries = _random(2, self.num_parts, self.embedding_dim, seed=3)
        if tokens.shape[1] < self.num_parts:
            queries = queries[:, self._left]
        assert isinstance(fusion, ContextScore)
        return fusion.contributions(queries, tokens, present).permute(1, 2, 0) / tokens.shape[1]
