"""The loop: it learns, the same seed gives the same run, and a run that was cut off goes on."""

from __future__ import annotations

import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState

from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig, TowerConfig, TrainingConfig
from multimodal_rec.errors import ConfigError
from multimodal_rec.rates import parameter_groups
from multimodal_rec.recommender import Recommender
from multimodal_rec.schema import Schema
from multimodal_rec.steps import Objective
from multimodal_rec.training import Epoch, make_accelerator, read_gates, train
from tests.multimodal_rec.tiny import CPU, ready_to_train, tiny_config, without_interactions, write_catalogue


def _train(
    catalogue: Catalogue,
    config: RecommenderConfig,
    training: TrainingConfig = CPU,
    validate: Callable[[], float] | None = None,
) -> tuple[list[Epoch], dict[str, torch.Tensor]]:
    model, data = ready_to_train(catalogue, config, training)
    epochs = train(model, data, config=config, training=training, validate=validate)
    return epochs, model.state_dict()


def _losses(epochs: list[Epoch]) -> list[float]:
    return [epoch.loss for epoch in epochs]


@pytest.mark.parametrize("tuning", ["frozen", "adapter", "full"])
def test_training_lowers_the_loss(tuning: str, bert: Path, catalogue: Catalogue) -> None:
    epochs, _ = _train(catalogue, tiny_config(bert, tuning=tuning), replace(CPU, epochs=6))
    losses = _losses(epochs)
    assert len(losses) == 6
    assert min(losses[2:]) < 0.8 * losses[0]


def test_the_same_seed_gives_the_same_run(bert: Path, catalogue: Catalogue) -> None:
    config = tiny_config(bert)
    training = replace(CPU, epochs=2)
    first, weights = _train(catalogue, config, training)
    torch.rand(3)  # whatever happened in the process before
    again, same = _train(catalogue, config, training)
    other, _ = _train(catalogue, config, replace(training, seed=1))
    assert first == again
    assert _losses(other) != _losses(first)
    for name, weight in weights.items():
        assert torch.equal(weight, same[name]), name


def test_items_alone_train_the_alignment(bert: Path, catalogue: Catalogue) -> None:
    epochs, _ = _train(without_interactions(catalogue), tiny_config(bert), replace(CPU, epochs=5))
    losses = _losses(epochs)
    assert 0 < losses[-1] < losses[0]


@pytest.mark.parametrize("epochs", [1, 9])
def test_any_number_of_steps_can_be_scheduled(epochs: int, catalogue: Catalogue) -> None:
    """Nine steps of one epoch each and one more are ten, of which a tenth is a warm-up of no length."""
    config = RecommenderConfig({}, embedding_dim=4, behaviour_rank=2)
    found, _ = _train(catalogue, config, replace(CPU, epochs=epochs, batch_size=1000))
    assert len(found) == epochs


class KilledError(Exception):
    pass


def test_a_run_that_was_cut_off_goes_on_to_the_same_end(bert: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    config, killed_in = tiny_config(bert), 2
    training = replace(CPU, epochs=4)
    values = [0.1, 0.3, 0.2, 0.25]

    def measured(until: int | None = None, start: int = 0) -> Callable[[], float]:
        calls = iter(range(start, len(values)))

        def validate() -> float:
            epoch = next(calls)
            if epoch == until:
                raise KilledError
            return values[epoch]

        return validate

    whole, weights = _train(catalogue, config, training, measured())
    resumable = replace(training, checkpoint_dir=str(tmp_path))
    with pytest.raises(KilledError):
        _train(catalogue, config, resumable, measured(until=killed_in))
    resumed, same = _train(catalogue, config, resumable, measured(start=killed_in))
    assert resumed == whole
    # The best epoch's weights are those of epoch 1, also where that was before the run was cut off.
    for name, weight in weights.items():
        assert torch.equal(weight, same[name]), name
    again, finished = _train(catalogue, config, resumable, measured(start=4))
    assert again == whole
    assert all(torch.equal(weight, finished[name]) for name, weight in weights.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last"]


def test_a_checkpoint_of_another_run_is_refused(bert: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    training = replace(CPU, epochs=1, checkpoint_dir=str(tmp_path))
    config = tiny_config(bert)
    _train(catalogue, config, training)
    with pytest.raises(ConfigError, match=r"comes from another run: its training differ.*another checkpoint_dir"):
        _train(catalogue, config, replace(training, seed=1))
    with pytest.raises(ConfigError, match="its configuration differ"):
        _train(catalogue, replace(config, dropout=0.1), training)


def test_a_checkpoint_that_was_being_written_is_passed_over(bert: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    config = tiny_config(bert)
    training = replace(CPU, epochs=1, checkpoint_dir=str(tmp_path))
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "model.safetensors").write_bytes(b"half")
    expected, _ = _train(catalogue, config, replace(CPU, epochs=1))
    assert _train(catalogue, config, training)[0] == expected
    # Killed between the removal of the last one and the draft's taking its name.
    (tmp_path / "last").rename(tmp_path / "draft")
    assert _train(catalogue, config, training)[0] == expected


def test_the_best_epoch_is_kept_and_patience_ends_the_run(bert: Path, catalogue: Catalogue) -> None:
    config = tiny_config(bert)
    states: list[dict[str, torch.Tensor]] = []
    values = iter([0.1, 0.4, 0.3, 0.4, 0.2, 0.9])
    model, data = ready_to_train(catalogue, config)

    def validate() -> float:
        assert not model.training
        states.append({name: weight.clone() for name, weight in model.state_dict().items()})
        return next(values)

    epochs = train(model, data, config=config, training=replace(CPU, epochs=6, patience=3), validate=validate)
    assert [epoch.valid for epoch in epochs] == [0.1, 0.4, 0.3, 0.4, 0.2]
    state = model.state_dict()
    moved = [name for name in state if not torch.equal(state[name], states[1][name])]
    assert moved in ([], ["query.centre"])  # set once more, after the towers' memory is brought up to date


def test_gates_are_read_from_what_people_like_alone(bert: Path, catalogue: Catalogue) -> None:
    model, data = ready_to_train(catalogue, tiny_config(bert))
    assert data.events.context.any()
    before = model.query.gate.weight.clone()
    read_gates(model, replace(data, weights=-np.abs(data.weights)))
    assert torch.equal(model.query.gate.weight, before), "nobody liked anything"
    read_gates(model, data)
    assert not torch.equal(model.query.gate.weight, before)


def test_after_training_the_memory_is_what_the_towers_give(bert: Path, catalogue: Catalogue) -> None:
    config = tiny_config(bert)
    model, data = ready_to_train(catalogue, config)
    train(model, data, config=config, training=replace(CPU, epochs=1))
    assert not model.training
    fresh = data.content.features(range(len(data.behaviour.present)), "image")
    assert torch.equal(data.items.modalities["image"].windows, fresh.windows)


def test_each_tower_learns_at_its_own_rate_and_decay(bert: Path, catalogue: Catalogue) -> None:
    config = tiny_config(bert, tuning="adapter")
    image = replace(
        config.towers["image"],
        backbone="timm:test_vit",
        tuning="full",
        learning_rate=0.5,
        weight_decay=0.3,
        layer_decay=0.5,
    )
    config = replace(config, towers=dict(config.towers) | {"image": image})
    model, data = ready_to_train(catalogue, config)
    training = replace(CPU, learning_rate=0.25)
    rest, *towers, gates = parameter_groups(Objective(model, data, config, training), config, training)
    assert rest["lr"] == 0.25
    assert ({id(weight) for weight in gates["params"]}, gates["lr"], gates["weight_decay"]) == (
        {id(weight) for weight in model.query.gate.parameters()},
        0.025,
        0.0,
    )
    of_image = {id(weight) for weight in model.tower("image").backbone_parameters()}
    images = [group for group in towers if {id(weight) for weight in group["params"]} <= of_image]
    texts = [group for group in towers if not {id(weight) for weight in group["params"]} <= of_image]
    assert {group["lr"] for group in texts} == {2e-4}
    for group in images:
        assert {weight.ndim > 1 for weight in group["params"]} == {group["weight_decay"] == 0.3}
    named = {id(weight): name for name, weight in model.tower("image").backbone.net.named_parameters()}
    rates = {named[id(weight)]: group["lr"] for group in images for weight in group["params"]}
    depth = len(model.tower("image").backbone.layer_dims())
    assert rates["norm.weight"] == 0.5
    assert rates[f"blocks.{depth - 1}.mlp.fc1.weight"] == 0.25
    assert rates["blocks.0.mlp.fc1.weight"] == 0.5 ** (depth + 1)
    assert rates["patch_embed.proj.weight"] == 0.5 ** (depth + 2)
    grouped = [id(weight) for group in (rest, *towers, gates) for weight in group["params"]]
    assert sorted(grouped) == sorted(id(weight) for weight in model.parameters() if weight.requires_grad)


def test_one_process_may_train_in_several_precisions() -> None:
    for precision, expected in (("fp32", "no"), ("bf16", "bf16"), ("auto", "no")):
        accelerator = make_accelerator(replace(CPU, precision=precision))
        assert accelerator.mixed_precision == expected
        assert accelerator.device.type == "cpu"
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"device 'cuda' is asked for.*Take device='auto' or 'cpu'"):
        make_accelerator(replace(CPU, device="cuda"))


def test_refit_trains_from_the_start_on_both_for_the_best_number_of_epochs(
    bert: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    first, valid, _ = catalogue.split("last")
    config = tiny_config(bert)
    training = replace(CPU, epochs=3, checkpoint_dir=str(tmp_path))
    plain = Recommender(config).fit(first, valid=valid, training=training)
    values = [epoch.valid for epoch in plain.epochs]
    assert None not in values
    refitted = Recommender(config).fit(first, valid=valid, training=training, refit=True)
    both = replace(valid, interactions=pd.concat([first.interactions, valid.interactions], ignore_index=True))
    direct = Recommender(config).fit(both, training=replace(CPU, epochs=int(np.argmax(values)) + 1))
    assert refitted.epochs == direct.epochs
    people = catalogue.interactions["user_id"].unique().tolist()
    np.testing.assert_array_equal(
        refitted.score(people, list(catalogue.item_ids)), direct.score(people, list(catalogue.item_ids))
    )
    for recommender in (plain, refitted, direct):
        # What was validated on is known afterwards, either way.
        assert len(recommender.store.read_interactions()) == len(both.interactions)
        recommender.close()


def test_a_validation_part_without_a_question_is_no_obstacle(bert: Path, catalogue: Catalogue) -> None:
    """Everything in it was taken before: no epoch can be chosen by it."""
    again = catalogue.interactions.assign(timestamp=catalogue.interactions["timestamp"] + 10**7)
    recommender = Recommender(tiny_config(bert)).fit(
        catalogue, valid=replace(catalogue, interactions=again), training=replace(CPU, epochs=2), refit=True
    )
    assert [epoch.valid for epoch in recommender.epochs] == [None, None]
    recommender.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine")
def test_three_towers_are_tuned_in_full_on_a_gpu(bert: Path, tmp_path: Path) -> None:
    pictures = write_catalogue(tmp_path)
    clips = []
    for row in range(pictures.num_items):
        seconds = np.arange(8000) / 16_000
        samples = (12_000 * np.sin(2 * np.pi * (200 + 40 * row) * seconds)).astype("<i2")
        with wave.open(str(tmp_path / "media" / f"{row}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, len(samples), "NONE", "NONE"))
            file.writeframes(samples.tobytes())
        clips.append([str(tmp_path / "media" / f"{row}.wav")])
    schema: Schema = replace(pictures.schema, audio=("clip",))
    items = pictures.items.assign(clip=pd.Series(clips, dtype=object))
    catalogue = Catalogue.from_frames(items, pictures.interactions, pictures.users, schema=schema)
    config = tiny_config(bert, tuning="full")
    audio = TowerConfig("spectrogram:test_efficientnet_gn", tuning="full", pretrained=False, clip_seconds=0.5)
    config = replace(config, towers={**config.towers, "audio": audio})
    training = replace(CPU, device="auto", batch_size=1000, items_per_step=1000, epochs=1)
    before = ready_to_train(catalogue, config, training)[0].state_dict()
    recommender = Recommender(config).fit(catalogue, training=training)
    assert np.isfinite(recommender.epochs[0].loss)
    for modality in ("text", "image", "audio"):
        tower = recommender.towers[modality]
        assert next(tower.parameters()).device.type == "cuda"
        for name, weight in tower.named_parameters():
            if not name.endswith("key.bias"):  # of which the gradient is 0
                assert not torch.equal(weight.cpu(), before[f"towers.{modality}.{name}"]), f"{modality} {name}"
    assert np.isfinite(recommender.score(["u0"], ["i0", "i1"], context={"hour": 9})).all()
    on_the_gpu = recommender.score(["u0"], list(catalogue.item_ids))
    loaded = Recommender.load(recommender.save(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(loaded.score(["u0"], list(catalogue.item_ids)), on_the_gpu, atol=1e-3, rtol=1e-3)
    loaded.close()
    recommender.close()
