"""Softmax and weighted sum in one, against the two of them one after the other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fusion.pooling import attention_pool

SHAPE = (3, 4, 5)


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    """Logits and values (part, query, item) in double precision; part 1 of item 2 has no say, nor all but one of 4."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(SHAPE, dtype=torch.float64, generator=generator)
    values = torch.randn(SHAPE, dtype=torch.float64, generator=generator)
    logits[1, :, 2] = logits[:2, :, 4] = -torch.inf
    return logits.requires_grad_(), values.requires_grad_()


def test_two_parts_worked_out_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(3)]).reshape(2, 1, 1)
    values = torch.tensor([8.0, 4.0]).reshape(2, 1, 1)
    assert attention_pool(logits, values).item() == pytest.approx(1 / 4 * 8 + 3 / 4 * 4)


def test_scores_and_gradients_equal_the_plain_form(inputs: tuple[Tensor, Tensor]) -> None:
    weight = torch.randn(SHAPE[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plain = (inputs[0].softmax(dim=0) * inputs[1]).sum(dim=0)
    expected = torch.autograd.grad((plain * weight).sum(), inputs)
    pooled = attention_pool(*inputs)
    torch.testing.assert_close(pooled, plain, rtol=0, atol=1e-12)
    for got, wanted in zip(torch.autograd.grad((pooled * weight).sum(), inputs), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
        assert (got[:, :, 2][1] == 0).all()


def test_gradients_pass_the_numerical_check(inputs: tuple[Tensor, Tensor]) -> None:
    # Finite differences of -inf are no numbers.
    logits = inputs[0].detach().clamp(min=-3).requires_grad_()
    assert torch.autograd.gradcheck(attention_pool, (logits, inputs[1]))


def test_one_gradient_alone_is_right_too(inputs: tuple[Tensor, Tensor]) -> None:
    logits, values = inputs
    both = torch.autograd.grad(attention_pool(logits, values).sum(), inputs)
    (of_logits,) = torch.autograd.grad(attention_pool(logits, values.detach()).sum(), logits)
    (of_values,) = torch.autograd.grad(attention_pool(logits.detach(), values).sum(), values)
    assert torch.equal(of_logits, both[0])
    assert torch.equal(of_values, both[1])


def test_a_second_derivative_is_refused_and_not_wrong(inputs: tuple[Tensor, Tensor]) -> None:
    (gradient,) = torch.autograd.grad(attention_pool(*inputs).square().sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_the_softmax_of_half_precision_is_in_single(inputs: tuple[Tensor, Tensor]) -> None:
    logits, values = (tensor.detach().bfloat16().requires_grad_() for tensor in inputs)
    pooled = attention_pool(logits, values)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, attention_pool(logits.float(), values.float()), rtol=0, atol=1e-6)
    pooled.sum().backward()
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16
    assert torch.isfinite(logits.grad).all()
