"""What every tower and every fusion promises, as suites that each kind passes: subclass, and give what is asked."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from towers import Tower


class TowerContract:
    """Subclasses give a tiny tower and at least three different inputs, the first of more than one window if any."""

    takes_adapter = True

    def build(self, tuning: str, seed: int = 0) -> Tower:
        raise NotImplementedError

    def inputs(self) -> list[Any]:
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "tower" in metafunc.fixturenames:
            tunings = ["frozen", "adapter", "full"] if self.takes_adapter else ["frozen", "full"]
            metafunc.parametrize("tower", tunings, indirect=True)

    @pytest.fixture
    def tower(self, request: pytest.FixtureRequest) -> Tower:
        return self.build(request.param)

    def test_prepare_stays_on_the_cpu_and_counts_windows(self, tower: Tower) -> None:
        batch = tower.prepare(self.inputs())
        assert batch.counts.dtype == torch.int64
        assert int(batch.counts.min()) >= 1
        assert int(batch.counts.max()) <= tower.max_windows
        for tensor in batch.windows.values():
            assert tensor.device.type == "cpu"
            assert len(tensor) == int(batch.counts.sum())

    def test_output_is_float32_of_the_promised_shape(self, tower: Tower) -> None:
        inputs = self.inputs()
        embeddings = tower(tower.prepare(inputs))
        assert embeddings.shape == (len(inputs), tower.embedding_dim)
        assert embeddings.dtype == torch.float32
        assert torch.isfinite(embeddings).all()
        encoded = tower.encode(inputs)
        assert encoded.dtype == np.float32
        assert encoded.shape == (len(inputs), tower.embedding_dim)
        assert tower.encode(inputs, project=False).shape == (len(inputs), tower.backbone_dim)
        assert tower.encode([]).shape == (0, tower.embedding_dim)

    def test_different_inputs_give_different_rows(self, tower: Tower) -> None:
        encoded = tower.encode(self.inputs(), project=False)
        assert np.abs(encoded[0] - encoded[1]).max() > 1e-4

    def test_one_equals_batch_and_rows_are_independent(self, tower: Tower) -> None:
        inputs = self.inputs()
        together = tower.encode(inputs)
        for index, value in enumerate(inputs):
            np.testing.assert_allclose(tower.encode([value])[0], together[index], atol=1e-5, rtol=1e-5)
        swapped = tower.encode([inputs[0], *inputs[:0:-1]])
        np.testing.assert_allclose(swapped[0], together[0], atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(tower.encode(inputs, batch_size=2), together, atol=1e-5, rtol=1e-5)

    def test_features_then_project_equals_forward(self, tower: Tower) -> None:
        tower.eval()
        batch = tower.prepare(self.inputs())
        features, present = tower.features(batch)
        assert features.shape == (*present.shape, tower.backbone_dim)
        torch.testing.assert_close(present.sum(dim=1), batch.counts)
        spoiled = features.masked_fill(~present[..., None], float("nan"))
        torch.testing.assert_close(tower.project(spoiled, present), tower(batch), atol=1e-5, rtol=1e-5)

    def test_every_trainable_tensor_learns_within_two_steps(self, tower: Tower) -> None:
        tower.train()
        batch = tower.prepare(self.inputs())
        trainable = {name: value for name, value in tower.named_parameters() if value.requires_grad}
        before = {name: value.detach().clone() for name, value in trainable.items()}
        optimiser = torch.optim.AdamW(trainable.values(), lr=1e-3, weight_decay=0.0)
        target = torch.randn(len(batch.counts), tower.embedding_dim, generator=torch.Generator().manual_seed(1))
        # Two steps: at the first one LoRA's first factor has the gradient 0, because its second factor is 0.
        for _ in range(2):
            optimiser.zero_grad()
            (tower(batch) - target).square().mean().backward()
            for name, value in trainable.items():
                assert value.grad is not None, f"{name} has no gradient"
                assert torch.isfinite(value.grad).all(), f"{name} has a gradient that is not finite"
            optimiser.step()
        stuck = [name for name, value in trainable.items() if torch.equal(value, before[name])]
        assert not stuck
        learning = {id(parameter) for parameter in tower.backbone_parameters()}
        assert learning == {id(value) for name, value in trainable.items() if name.startswith("backbone.")}

    def test_encode_after_and_before_training_leaves_the_tower_trainable(self, tower: Tower) -> None:
        tower.train()
        modes = [module.training for module in tower.modules()]
        tower.encode(self.inputs())
        assert [module.training for module in tower.modules()] == modes
        # Tensors made in inference mode and left behind would raise here.
        tower(tower.prepare(self.inputs())).sum().backward()

    def test_training_mode_leaves_kept_weights_in_evaluation_mode(self) -> None:
        tower = self.build("frozen").train()
        assert tower.training
        assert not any(module.training for module in tower.backbone.modules())
        assert not any(value.requires_grad for value in tower.backbone.parameters())
        state = copy.deepcopy(tower.backbone.state_dict())
        tower(tower.prepare(self.inputs()))
        for name, value in tower.backbone.state_dict().items():
            assert torch.equal(value, state[name]), f"{name} changed"
        assert self.build("full").train().backbone.training

    def test_adapter_starts_silent_or_is_refused(self) -> None:
        if not self.takes_adapter:
            with pytest.raises(ValueError, match="needs attention layers"):
                self.build("adapter")
            return
        plain, adapted = self.build("frozen"), self.build("adapter")
        expected = plain.encode(self.inputs(), project=False)
        np.testing.assert_allclose(adapted.encode(self.inputs(), project=False), expected, atol=1e-5, rtol=1e-5)
        total = sum(value.numel() for value in adapted.backbone.parameters())
        assert 0 < sum(value.numel() for value in adapted.backbone_parameters()) < total

    def test_fingerprints_follow_weights_and_survive_rebuilding(self) -> None:
        first, again = self.build("full"), self.build("full")
        assert first.backbone_fingerprint() == again.backbone_fingerprint()
        assert first.fingerprint() == again.fingerprint()
        assert len(first.fingerprint()) == 16
        first.encode(self.inputs())
        assert first.fingerprint() == again.fingerprint()
        with torch.no_grad():
            next(again.projection.parameters()).add_(0.5)
        assert first.backbone_fingerprint() == again.backbone_fingerprint()
        assert first.fingerprint() != again.fingerprint()
        with torch.no_grad():
            next(first.backbone.parameters()).reshape(-1)[0] += 0.5
        assert first.backbone_fingerprint() != again.backbone_fingerprint()

    def test_state_survives_safetensors(self, tower: Tower, tmp_path: Path) -> None:
        with torch.no_grad():
            for value in tower.parameters():
                if value.requires_grad:
                    value.add_(0.01)
        save_file({name: value.contiguous() for name, value in tower.state_dict().items()}, tmp_path / "tower")
        rebuilt = self.build(tower.tuning, seed=7)
        rebuilt.load_state_dict(load_file(tmp_path / "tower"))
        np.testing.assert_allclose(rebuilt.encode(self.inputs()), tower.encode(self.inputs()), atol=1e-6)
        assert rebuilt.fingerprint() == tower.fingerprint()

    def test_foreign_input_is_refused(self, tower: Tower) -> None:
        with pytest.raises(TypeError, match=r"expected .*got int"):
            tower.prepare_one(3)


class FusionContract:
    """Subclasses give a fusion with random weights, what it makes of each part, and the same fusion without one."""

    num_parts = 3
    embedding_dim = 4

    def build(self) -> nn.Module:
        """A fusion of `num_parts` parts whose weights are all different."""
        raise NotImplementedError

    def without(self, fusion: nn.Module, part: int) -> nn.Module:
        """A fusion of one part fewer, with the weights of the others."""
        raise NotImplementedError

    def blocks(self, fusion: nn.Module, tokens: Tensor, present: Tensor) -> Tensor:
        """What the fusion gives, part by part: (item, part, any), over the number of parts."""
        raise NotImplementedError

    def items(self, num_items: int = 5) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(2)
        tokens = torch.randn(num_items, self.num_parts, self.embedding_dim, generator=generator)
        present = torch.ones(num_items, self.num_parts, dtype=torch.bool)
        present[1, 0] = present[2, 1] = present[3, :2] = False
        return tokens, present

    def test_shape_and_dtype(self) -> None:
        tokens, present = self.items()
        blocks = self.blocks(self.build(), tokens, present)
        assert blocks.shape[:2] == (5, self.num_parts)
        assert blocks.dtype == torch.float32
        assert torch.isfinite(blocks).all()
        assert (blocks[~present] == 0).all()
        assert (blocks[present] != 0).any(dim=-1).all()

    def test_rows_are_independent_and_one_equals_batch(self) -> None:
        fusion, (tokens, present) = self.build(), self.items()
        together = self.blocks(fusion, tokens, present)
        for item in range(len(tokens)):
            one = slice(item, item + 1)
            torch.testing.assert_close(self.blocks(fusion, tokens[one], present[one]), together[one])
        changed = tokens.clone()
        changed[0] += 1
        torch.testing.assert_close(self.blocks(fusion, changed, present)[1:], together[1:])

    def test_an_absent_part_full_of_nan_equals_the_part_removed(self) -> None:
        fusion, (tokens, present) = self.build(), self.items()
        for part in range(self.num_parts):
            kept = [index for index in range(self.num_parts) if index != part]
            rows = present[:, kept].any(dim=1)
            here, there = tokens[rows].clone(), present[rows].clone()
            here[:, part], there[:, part] = float("nan"), False
            blocks = self.blocks(fusion, here, there)
            smaller = self.blocks(self.without(fusion, part), tokens[rows][:, kept], present[rows][:, kept])
            torch.testing.assert_close(blocks[:, kept], smaller)

    def test_gradients_are_finite_and_absent_parts_get_none(self) -> None:
        fusion, (tokens, present) = self.build(), self.items()
        tokens = tokens.masked_fill(~present.unsqueeze(-1), float("nan")).requires_grad_()
        self.blocks(fusion, tokens, present).square().sum().backward()
        for name, weight in fusion.named_parameters():
            assert weight.grad is not None, name
            assert torch.isfinite(weight.grad).all(), name
            assert (weight.grad != 0).any(), name
        assert tokens.grad is not None
        assert torch.isfinite(tokens.grad).all()
        assert (tokens.grad[~present] == 0).all()
        assert (tokens.grad[present] != 0).any(dim=-1).all()

    def test_no_items_give_no_rows(self) -> None:
        tokens, present = self.items()
        assert self.blocks(self.build(), tokens[:0], present[:0]).shape[:2] == (0, self.num_parts)

    def test_an_empty_row_or_another_shape_raises(self) -> None:
        fusion, (tokens, present) = self.build(), self.items()
        present[1] = False
        with pytest.raises(ValueError, match=r"rows \[1\] have no part present. Expected at least one each"):
            self.blocks(fusion, tokens, present)
        with pytest.raises(ValueError, match=r"present \(5, 2\).*Expected \(item, part, dim\) and \(item, part\)"):
            self.blocks(fusion, tokens, present[:, :2])
