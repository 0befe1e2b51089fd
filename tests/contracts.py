"""What every tower and every fusion promises, as suites that each kind passes: subclass, and give what is asked."""

from __future__ import annotations

import copy
import pickle
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from towers import Backbone, Tower, apply_tuning
from towers.int8 import Int8Linear

VARIANTS: dict[str, dict[str, Any]] = {
    "frozen": {"tuning": "frozen"},
    "lora": {"tuning": "adapter", "adapter": "lora"},
    "dora": {"tuning": "adapter", "adapter": "dora"},
    "adalora": {"tuning": "adapter", "adapter": "adalora"},
    "bottleneck": {"tuning": "adapter", "adapter": "bottleneck"},
    "side": {"tuning": "adapter", "adapter": "side"},
    "full": {"tuning": "full"},
    "top": {"tuning": "full", "top_layers": 1},
}
"""Every way of tuning, by a short name, as arguments of `apply_tuning`."""

ADAPTED = ("lora", "dora", "adalora", "bottleneck", "side")


class TowerContract:
    """Subclasses give a tiny tower and at least three different inputs, the first of more than one window if any."""

    refuses: frozenset[str] = frozenset()
    """Variants that this kind of network cannot take."""

    def backbone(self) -> Backbone:
        """An untuned backbone with random weights, drawn from torch's global generator."""
        raise NotImplementedError

    def inputs(self) -> list[Any]:
        raise NotImplementedError

    modality: str | None = None

    def build(self, variant: str, seed: int = 0) -> Tower:
        """A tower of its own for each test; the network is built once a class and seed, because that takes longest."""
        built = self.__class__.__dict__.get("_built", {})
        self.__class__._built = built
        if seed not in built:
            torch.manual_seed(seed)
            built[seed] = self.backbone()
        backbone = copy.deepcopy(built[seed])
        torch.manual_seed(seed + 1)
        apply_tuning(backbone, rank=4, **VARIANTS[variant])
        torch.manual_seed(seed + 2)
        return Tower(backbone, 12, modality=self.modality)

    _built: dict[int, Backbone]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        taken = [variant for variant in VARIANTS if variant not in self.refuses]
        if "tower" in metafunc.fixturenames:
            metafunc.parametrize("tower", taken, indirect=True)
        if "adapted" in metafunc.fixturenames:
            metafunc.parametrize("adapted", [variant for variant in taken if variant in ADAPTED])

    @pytest.fixture
    def tower(self, request: pytest.FixtureRequest) -> Tower:
        return self.build(request.param)

    def train(self, tower: Tower, num_steps: int = 2) -> dict[str, Tensor]:
        """Some optimiser steps on the inputs, without weight decay; the state before them."""
        tower.train()
        batch = tower.prepare(self.inputs())
        before = {name: value.detach().clone() for name, value in tower.state_dict().items()}
        trainable = {name: value for name, value in tower.named_parameters() if value.requires_grad}
        optimiser = torch.optim.AdamW(trainable.values(), lr=1e-3, weight_decay=0.0)
        target = torch.randn(len(batch.counts), tower.embedding_dim, generator=torch.Generator().manual_seed(1))
        for _ in range(num_steps):
            optimiser.zero_grad()
            ((tower(batch) - target).square().mean() + tower.penalty()).backward()
            for name, value in trainable.items():
                assert value.grad is not None, f"{name} has no gradient"
                assert torch.isfinite(value.grad).all(), f"{name} has a gradient that is not finite"
            optimiser.step()
            tower.after_step()
        return before

    def test_prepare_stays_on_the_cpu_and_counts_windows(self) -> None:
        tower = self.build("frozen")
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

    def test_different_inputs_give_different_rows(self) -> None:
        tower = self.build("frozen")
        encoded = tower.encode(self.inputs(), project=False)
        assert np.abs(encoded[0] - encoded[1]).max() > 1e-4

    def test_one_equals_batch_and_rows_are_independent(self, tower: Tower) -> None:
        self.train(tower)
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
        assert features.shape == (*present.shape, tower.feature_dim)
        torch.testing.assert_close(present.sum(dim=1), batch.counts)
        spoiled = features.masked_fill(~present[..., None], float("nan"))
        torch.testing.assert_close(tower.project(spoiled, present), tower(batch), atol=1e-5, rtol=1e-5)

    def test_two_steps_change_what_is_declared_trainable_and_nothing_else(self, tower: Tower) -> None:
        before = self.train(tower)
        trainable = {name for name, value in tower.named_parameters() if value.requires_grad}
        changed = {name for name, value in tower.state_dict().items() if not torch.equal(value, before[name])}
        running = {name for name, _ in tower.named_buffers()}
        assert changed - running == trainable
        # Statistics of batch norm move where the layer learns, and nowhere else.
        stray = {name for name in changed & running if f"{name.rpartition('.')[0]}.weight" not in trainable}
        assert not stray
        assert bool(changed & running) <= (tower.tuning == "full")
        tuned = {id(parameter) for parameter in tower.backbone_parameters()}
        named = {name for name in trainable if name.startswith(("backbone.", "side."))}
        assert tuned == {id(value) for name, value in tower.named_parameters() if name in named}
        assert tuned == {id(parameter) for group in tower.parameters_by_depth() for parameter in group}
        assert bool(tuned) == (tower.tuning != "frozen")

    def test_encode_after_and_before_training_leaves_the_tower_trainable(self, tower: Tower) -> None:
        tower.train()
        modes = [module.training for module in tower.modules()]
        tower.encode(self.inputs())
        assert [module.training for module in tower.modules()] == modes
        # Tensors made in inference mode and left behind would raise here.
        tower(tower.prepare(self.inputs())).sum().backward()

    def test_training_mode_leaves_kept_weights_in_evaluation_mode(self, tower: Tower) -> None:
        tower.train()
        assert tower.training
        assert tower.backbone.training == (tower.tuning == "full")
        for name, module in tower.backbone.named_modules():
            weights = list(module.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                assert not module.training, name

    def test_adapter_starts_silent(self, adapted: str) -> None:
        expected = self.build("frozen").encode(self.inputs(), project=False)
        tower = self.build(adapted)
        given = tower.encode(self.inputs(), project=False)
        assert np.abs(given - expected).max() <= 1e-6 * np.abs(expected).max()
        assert tower.backbone_parameters()

    def test_networks_without_the_layers_refuse_by_name(self) -> None:
        for variant in self.refuses:
            what = f"adapter='{variant}'" if variant in ADAPTED else f"tuning='{VARIANTS[variant]['tuning']}'"
            with pytest.raises(ValueError, match=rf"{what} needs .*{type(self.backbone().net).__name__}"):
                self.build(variant)

    def test_fingerprints_follow_weights_and_survive_rebuilding(self, tower: Tower) -> None:
        again = copy.deepcopy(tower)
        assert tower.backbone_fingerprint() == again.backbone_fingerprint()
        assert tower.fingerprint() == again.fingerprint()
        assert len(tower.fingerprint()) == 16
        tower.encode(self.inputs())
        assert tower.fingerprint() == again.fingerprint()
        with torch.no_grad():
            next(again.projection.parameters()).add_(0.5)
        assert tower.backbone_fingerprint() == again.backbone_fingerprint()
        assert tower.fingerprint() != again.fingerprint()
        with torch.no_grad():
            next(chain(tower.backbone.parameters(), tower.backbone.buffers())).add_(0.5)
        assert tower.backbone_fingerprint() != again.backbone_fingerprint()

    def test_state_survives_safetensors(self, tower: Tower, tmp_path: Path) -> None:
        self.train(tower)
        save_file({name: value.contiguous() for name, value in tower.state_dict().items()}, tmp_path / "tower")
        variant = next(name for name, way in VARIANTS.items() if _way(tower) == way)
        rebuilt = self.build(variant, seed=7)
        rebuilt.load_state_dict(load_file(tmp_path / "tower"))
        assert (rebuilt.encode(self.inputs()) == tower.encode(self.inputs())).all()
        assert rebuilt.fingerprint() == tower.fingerprint()

    def test_a_tower_travels_to_another_process(self, tower: Tower) -> None:
        self.train(tower)
        arrived = pickle.loads(pickle.dumps(tower))
        assert (arrived.encode(self.inputs()) == tower.encode(self.inputs())).all()
        arrived.train()
        arrived(arrived.prepare(self.inputs())).sum().backward()

    def test_an_adapter_is_saved_alone_and_goes_on_its_own_base_only(self, adapted: str, tmp_path: Path) -> None:
        tower = self.build(adapted)
        base = self.build("frozen").backbone.fingerprint()
        assert tower.backbone.base_fingerprint() == base
        self.train(tower)
        assert tower.backbone.base_fingerprint() == base
        tower.save_adapter(tmp_path)
        expected = tower.encode(self.inputs(), project=False)
        for other in ("frozen", adapted):
            arrived = self.build(other).load_adapter(tmp_path)
            assert (arrived.encode(self.inputs(), project=False) == expected).all()
            assert (arrived.tuning, arrived.adapter) == ("adapter", adapted)
        stranger = self.build("frozen", seed=3)
        theirs = stranger.backbone.fingerprint()
        with pytest.raises(ValueError, match=rf"trained on the backbone {base}, and this tower's is {theirs}"):
            stranger.load_adapter(tmp_path)
        assert stranger.tuning == "frozen"

    def test_merging_gives_a_plain_backbone_that_does_the_same(self, adapted: str) -> None:
        tower = self.build(adapted)
        self.train(tower)
        if adapted in ("bottleneck", "side"):
            with pytest.raises(ValueError, match=f"adapter='{adapted}' cannot be merged"):
                tower.merge_adapter()
            return
        expected = tower.encode(self.inputs(), project=False)
        merged = tower.merge_adapter()
        plain = self.build("frozen")
        assert merged.backbone.state_dict().keys() == plain.backbone.state_dict().keys()
        assert (merged.tuning, merged.adapter) == ("frozen", None)
        given = merged.encode(self.inputs(), project=False)
        assert np.abs(given - expected).max() <= 1e-5 * np.abs(expected).max()
        assert np.abs(given - plain.encode(self.inputs(), project=False)).max() > 1e-6 * np.abs(expected).max()

    def test_int8_weights_are_another_tower_that_gives_nearly_the_same(self, tower: Tower, tmp_path: Path) -> None:
        self.train(tower)
        expected, before = tower.encode(self.inputs()), tower.backbone_fingerprint()
        smaller = copy.deepcopy(tower)
        count = smaller.use_int8()
        layers = [module for module in smaller.backbone.modules() if isinstance(module, Int8Linear)]
        assert count == len(layers)
        if count == 0:
            assert (smaller.encode(self.inputs()) == expected).all()
            return
        assert smaller.backbone_fingerprint() != before
        assert smaller.fingerprint() != tower.fingerprint()
        assert not any(value.requires_grad for value in smaller.backbone.parameters())
        given = smaller.encode(self.inputs())
        assert np.abs(given - expected).max() <= 0.1 * np.abs(expected).max()
        alone = np.concatenate([smaller.encode([value]) for value in self.inputs()])
        # Eight bits make a step of what float leaves to the order of its sums.
        assert np.abs(given - alone).max() <= 1e-2 * np.abs(expected).max()
        assert tower.backbone_fingerprint() == before
        # What is made of the file and of a message to another process is the same tower.
        save_file({name: value.contiguous() for name, value in smaller.state_dict().items()}, tmp_path / "tower")
        variant = next(name for name, way in VARIANTS.items() if _way(tower) == way)
        rebuilt = self.build(variant, seed=7)
        rebuilt.use_int8()
        rebuilt.encode(self.inputs())
        rebuilt.load_state_dict(load_file(tmp_path / "tower"))
        assert (rebuilt.encode(self.inputs()) == given).all()
        assert rebuilt.fingerprint() == smaller.fingerprint()
        assert (pickle.loads(pickle.dumps(smaller)).encode(self.inputs()) == given).all()

    def test_foreign_input_is_refused(self) -> None:
        tower = self.build("frozen")
        with pytest.raises(TypeError, match=r"expected .*got int"):
            tower.prepare_one(3)


def _way(tower: Tower) -> dict[str, Any]:
    """The arguments of `apply_tuning` that a contract's tower was tuned with."""
    if tower.tuning == "adapter":
        return {"tuning": "adapter", "adapter": tower.adapter}
    top = tower.tuning == "full" and any(not value.requires_grad for value in tower.backbone.parameters())
    return {"tuning": tower.tuning} | ({"top_layers": 1} if top else {})


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
