"""A linear map that is there is found, and one that is not is not made up."""

from __future__ import annotations

import torch

from multimodal_rec.ridge import ridge_map


def test_a_map_that_is_there() -> None:
    random = torch.Generator().manual_seed(0)
    x, w = torch.randn(200, 6, generator=random), torch.randn(6, 3, generator=random)
    found = ridge_map(x, x @ w)
    torch.testing.assert_close(found, w, atol=1e-3, rtol=1e-3)


def test_noise_is_hardly_believed() -> None:
    random = torch.Generator().manual_seed(0)
    x, noise = torch.randn(60, 40, generator=random), torch.randn(60, 5, generator=random)
    plain = torch.linalg.lstsq(x, noise).solution
    assert ridge_map(x, noise).norm() < 0.1 * plain.norm()


def test_the_penalty_is_that_of_the_least_error_left_out() -> None:
    random = torch.Generator().manual_seed(1)
    x, w = torch.randn(30, 10, generator=random).double(), torch.randn(10, 2, generator=random).double()
    y = x @ w + 2 * torch.randn(30, 2, generator=random).double()
    errors, solutions = [], []
    for penalty in torch.logspace(-2, 4, 13).double():

        def solve(rows: torch.Tensor, penalty: torch.Tensor = penalty) -> torch.Tensor:
            return torch.linalg.solve(x[rows].T @ x[rows] + penalty * torch.eye(10).double(), x[rows].T @ y[rows])

        everyone = torch.arange(30)
        left_out = [y[i] - x[i] @ solve(everyone[everyone != i]) for i in range(30)]
        errors.append(float(torch.stack(left_out).square().mean()))
        solutions.append(solve(everyone))
    torch.testing.assert_close(ridge_map(x, y), solutions[errors.index(min(errors))], atol=1e-6, rtol=1e-5)


def test_too_few_to_learn_from() -> None:
    assert not ridge_map(torch.randn(1, 4), torch.randn(1, 2)).any()
