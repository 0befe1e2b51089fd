"""Profiles: read once by a backbone that stays as it is, next to attributes, neutral where there are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from multimodal_rec.builders import build_model, build_tower
from multimodal_rec.catalogue import Catalogue
from multimodal_rec.config import RecommenderConfig, TowerConfig, TrainingConfig
from multimodal_rec.errors import ConfigError, UnknownIdError
from multimodal_rec.feature_cache import FeatureCache
from multimodal_rec.people import Person
from multimodal_rec.profiles import ProfileReader, ProfileTower
from multimodal_rec.rates import parameter_groups
from multimodal_rec.recommender import Recommender
from multimodal_rec.schema import Schema
from multimodal_rec.steps import Objective
from multimodal_rec.vocabulary import Vocabulary
from tests.multimodal_rec.tiny import CPU, NUM_USERS, SCHEMA, ready_to_train
from towers import Tower

SAID = ("slow piano in the rain", "a loud drum", None, "rain .", " ", "a loud drum")
IDS = [f"i{item}" for item in range(14)]
WIDTH = 32


class CountingTower:
    """Notes the texts that a tower encodes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[str] = []
        encode = Tower.encode

        def noted(tower: Tower, inputs: Sequence[Any], **settings: Any) -> np.ndarray:
            self.texts += inputs
            return encode(tower, inputs, **settings)

        monkeypatch.setattr(Tower, "encode", noted)


def _config(bert: Path, **settings: Any) -> RecommenderConfig:
    profile = TowerConfig(f"hf:{bert}", max_tokens=16)
    return replace(RecommenderConfig({}, profile=profile, embedding_dim=8, behaviour_rank=4), **settings)


@pytest.fixture(scope="module")
def told(catalogue: Catalogue) -> Catalogue:
    """The tiny catalogue, whose people say something of themselves, and one who did nothing yet but say something."""
    users = pd.DataFrame(
        {
            "user_id": [*(f"u{user}" for user in range(NUM_USERS)), "quiet"],
            "age": [*(20.0 + user for user in range(NUM_USERS)), None],
            "bio": [*(SAID[user % len(SAID)] for user in range(NUM_USERS)), "piano . piano"],
        }
    )
    return replace(catalogue, users=users, schema=replace(SCHEMA, profile="bio"))


@pytest.fixture(scope="module")
def reading(bert: Path, told: Catalogue) -> Iterator[Recommender]:
    """Only to be read."""
    recommender = Recommender(_config(bert)).fit(told, training=CPU)
    yield recommender
    recommender.close()


@pytest.fixture
def tower(bert: Path) -> ProfileTower:
    return ProfileTower(build_tower(TowerConfig(f"hf:{bert}", max_tokens=6), embedding_dim=1))


class TestReading:
    def test_features_are_the_backbones_own_output(self, tower: ProfileTower) -> None:
        texts = ["slow piano", "the loud drum in the rain . a slow piano in the rain"]
        read = ProfileReader(tower, FeatureCache()).read(texts)
        own = tower.tower.encode(texts, project=False)
        assert (read.shape, read.dtype) == ((2, WIDTH), np.float32)
        np.testing.assert_allclose(read, own, atol=2e-3)
        assert tower.tower.prepare(texts).counts.tolist() == [1, 4]  # the second is the mean of its windows

    def test_features_are_centred_and_about_one(self, tower: ProfileTower) -> None:
        reader = ProfileReader(tower, FeatureCache())
        texts = ["slow piano", "a loud drum", "rain", None]
        reader.prepare(texts, texts)
        read = reader.read(texts)
        np.testing.assert_allclose(read[:3].mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(np.mean(read[:3] ** 2), 1, atol=1e-3)

    def test_nothing_said_is_zero(self, tower: ProfileTower) -> None:
        reader = ProfileReader(tower, FeatureCache())
        reader.prepare(["slow piano", "drum"], [])
        read = reader.read([None, "drum", float("nan"), "", " \n", pd.NA])
        assert (read != 0).any(axis=1).tolist() == [False, True, False, False, False, False]

    def test_where_nobody_says_anything_numbers_stay_finite(self, tower: ProfileTower) -> None:
        tower.settle(np.zeros((0, WIDTH), dtype=np.float32))
        assert (float(tower.centre.abs().max()), float(tower.scale)) == (0, 1)
        tower.settle(np.full((3, WIDTH), 2.0, dtype=np.float32))
        assert (float(tower.centre[0]), float(tower.scale)) == (2, 1)

    def test_each_distinct_text_runs_once(
        self, tower: ProfileTower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counting = CountingTower(monkeypatch)
        texts = ["rain", "drum", "rain", None, "slow piano", "rain"]
        first = ProfileReader(tower, FeatureCache(tmp_path), batch_size=2)
        read = first.read(texts)
        assert sorted(counting.texts) == ["drum", "rain", "slow piano"]
        again = ProfileReader(tower, FeatureCache(tmp_path)).read([*texts, "a"])
        assert counting.texts[3:] == ["a"]
        np.testing.assert_array_equal(again[:-1], read)
        np.testing.assert_array_equal(read[0], read[5])

    def test_another_backbone_finds_nothing_in_the_cache(
        self, tower: ProfileTower, bert: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache, counting = FeatureCache(), CountingTower(monkeypatch)
        other = ProfileTower(build_tower(TowerConfig(f"hf:{bert}", max_tokens=6, pooling="cls"), embedding_dim=1))
        one, two = (ProfileReader(each, cache).read(["slow rain"]) for each in (tower, other))
        assert counting.texts == ["slow rain"] * 2
        assert not np.allclose(one, two, atol=1e-2)


class TestPeople:
    def test_a_persons_features_are_attributes_then_profile(self, reading: Recommender, told: Catalogue) -> None:
        people = reading._ready().people
        features = people.features(["u0", "u1", "u2", "u5", "quiet", "nobody"])
        assert features.shape == (6, 1 + WIDTH)
        assert bool((features[:4, 0] != 0).all())
        assert (features[:, 1:] != 0).any(dim=1).tolist() == [True, True, False, True, True, False]
        assert torch.equal(features[1, 1:], features[3, 1:])
        brought = people.features([Person(profile="a loud drum", attributes={"age": 21.0})])
        assert torch.equal(brought[0], features[1])
        assert float(features[4, 0]) == 0

    def test_training_reads_what_scoring_reads(self, bert: Path, told: Catalogue, reading: Recommender) -> None:
        _, data = ready_to_train(told, _config(bert))
        users = list(dict.fromkeys(told.interactions["user_id"]))
        torch.testing.assert_close(data.people, reading._ready().people.features(users))

    def test_who_only_says_something_is_answered(self, reading: Recommender) -> None:
        scores = reading.score(["quiet", Person(profile="loud drum"), Person(profile="slow rain")], IDS)
        assert np.isfinite(scores).all()
        assert not np.allclose(scores[1], scores[2], atol=1e-3)
        for nothing in (Person(), Person(profile=""), Person(profile=" \n")):
            with pytest.raises(UnknownIdError, match=r"person 0 has no history, no attributes and no profile.*'cold'"):
                reading.score([nothing], IDS)

    def test_a_profile_that_nobody_reads_is_refused(self, fitted: Recommender, reading: Recommender) -> None:
        with pytest.raises(ConfigError, match=r"people\[1\] has a profile, and this model reads none.*\[profile\]"):
            fitted.recommend(["u1", Person(["i2"], profile="slow rain")])
        assert fitted.recommend([Person(["i2"], profile="")]).ids[0][0] is not None
        with pytest.raises(ConfigError, match=r"people\[0\] has the profile 7\. Expected text, or None"):
            reading.recommend([Person(profile=7)])  # pyright: ignore


class TestNeutrality:
    def test_without_a_profile_is_with_an_empty_one(self, reading: Recommender) -> None:
        people = [Person(["i2"]), Person(["i2"], profile=""), Person(["i2"], profile="rain")]
        scores = reading.score(people, IDS)
        np.testing.assert_array_equal(scores[0], scores[1])
        assert not np.allclose(scores[0], scores[2], atol=1e-3)

    def test_without_profiles_the_model_is_the_one_that_reads_none(
        self, reading: Recommender, bert: Path, told: Catalogue
    ) -> None:
        """The same weights but for the columns that read profiles give the same scores to whoever has none."""
        config = _config(bert, profile=None)
        trained = reading._fitted().model
        plain = build_model(config, Vocabulary.fit(told, config))
        weights = {name: value for name, value in trained.state_dict().items() if not name.startswith("profile.")}
        wide = weights["query.offset.weight"]
        before = trained.shape.context_width + plain.shape.person_width
        weights["query.offset.weight"] = torch.cat([wide[:, :before], wide[:, before + WIDTH :]], dim=1)
        plain.load_state_dict(weights)
        plain.eval()
        other = Recommender(config)
        other._trained = replace(reading._fitted(), config=config, model=plain, vocabulary=Vocabulary.fit(told, config))
        silent, talker = ["u2", "u8", Person(["i3"], attributes={"age": 30})], ["u0"]
        context = {"hour": 9, "device": "tv"}
        np.testing.assert_allclose(
            other.score(silent, IDS, context=context), reading.score(silent, IDS, context=context), rtol=1e-5, atol=1e-5
        )
        assert not np.allclose(other.score(talker, IDS), reading.score(talker, IDS), atol=1e-3)

    def test_all_other_weights_start_as_without_profiles(self, bert: Path, told: Catalogue) -> None:
        config = _config(bert)
        reads = build_model(config, Vocabulary.fit(told, config), seed=3)
        config = replace(config, profile=None)
        plain = build_model(config, Vocabulary.fit(told, config), seed=3)
        assert torch.equal(reads.behaviour.weight, plain.behaviour.weight)
        assert torch.equal(reads.query.gate.weight, plain.query.gate.weight)


class TestTraining:
    def test_nothing_of_it_is_trained(self, bert: Path, told: Catalogue, reading: Recommender) -> None:
        config = _config(bert)
        model, data = ready_to_train(told, config)
        assert model.profile is not None
        model.profile.tower.wake_backbone()
        groups = parameter_groups(Objective(model, data, config, CPU), config, CPU)
        learning = {id(parameter) for group in groups for parameter in group["params"]}
        own = list(model.profile.parameters())
        assert len(own) > 10
        assert not [parameter for parameter in own if parameter.requires_grad or id(parameter) in learning]
        profile = reading._fitted().model.profile
        assert profile is not None
        assert profile.tower.backbone_fingerprint() == model.profile.tower.backbone_fingerprint()
        offset = reading._fitted().model.query.offset.weight
        read = offset[:, reading._fitted().model.shape.context_width + 1 : -2]
        assert bool((read != 0).any(dim=0).all())

    def test_the_backbone_is_put_down_while_the_rest_trains(
        self, bert: Path, told: Catalogue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Validation asks about people whose profiles are known by then, and the best epoch can be taken up again."""
        train, valid, _ = told.split("last")
        valid = replace(valid, interactions=valid.interactions.assign(user_id="quiet", event="like"))
        counting = CountingTower(monkeypatch)
        woken: list[str] = []
        restored = Tower._restored
        monkeypatch.setattr(Tower, "_restored", lambda tower: woken.append("") or restored(tower))
        recommender = Recommender(_config(bert)).fit(train, valid=valid, training=CPU)
        assert all(epoch.valid is not None for epoch in recommender.epochs)
        assert sorted(counting.texts) == ["a loud drum", "piano . piano", "rain .", "slow piano in the rain"]
        assert woken == []
        recommender.save(tmp_path / "model")
        loaded = Recommender.load(tmp_path / "model", device="cpu")
        people = ["u1", Person(profile="the drum in the rain")]
        np.testing.assert_allclose(loaded.score(people, IDS), recommender.score(people, IDS), rtol=1e-4, atol=1e-4)

    def test_profiles_are_read_once_for_a_store_and_for_ever(
        self, bert: Path, told: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        training = replace(CPU, cache_dir=str(tmp_path / "store" / "cache"))
        recommender = Recommender(_config(bert), store=tmp_path / "store").fit(told, training=training)
        expected = recommender.score(["u0", "quiet"], IDS)
        recommender.save(tmp_path / "model")
        recommender.close()
        counting = CountingTower(monkeypatch)
        opened = Recommender.load(tmp_path / "model", store=tmp_path / "store", device="cpu")
        np.testing.assert_array_equal(opened.score(["u0", "quiet"], IDS), expected)
        assert counting.texts == []
        opened.close()

    def test_a_catalogue_without_profiles_is_refused(self, bert: Path, catalogue: Catalogue) -> None:
        with pytest.raises(ConfigError, match=r"has a profile tower.*'tiny' declares no profile\. Expected a user col"):
            Recommender(_config(bert)).fit(catalogue, training=CPU)

    def test_people_without_a_table_say_nothing(self, bert: Path, told: Catalogue) -> None:
        _, data = ready_to_train(replace(told, users=None), _config(bert))
        assert data.people.shape[1] == 1 + WIDTH
        assert not data.people.any()


LIKES = {
    "jazz": ("saxophone solos", "smoky jazz clubs", "swing and bebop", "blue notes on a trumpet"),
    "metal": ("heavy guitar riffs", "thrash metal", "screaming over distorted guitars", "headbanging in mosh pits"),
    "classical": ("symphony orchestras", "string quartets", "Mozart's sonatas", "violin concertos"),
    "techno": ("techno raves", "synthesizers and drum machines", "house music", "electronic dance beats"),
}


def test_a_real_encoder_tells_what_somebody_likes_from_what_they_say() -> None:
    """80 people who took two tracks each of the genre that they write about; then four who wrote and took nothing."""
    random = np.random.default_rng(0)
    genres = list(LIKES)
    items = pd.DataFrame({"item_id": [f"i{item}" for item in range(48)], "title": "a track"})
    items["genre"] = [genres[item % 4] for item in range(48)]
    log, users = [], []
    for user in range(80):
        form = ("I love {}.", "Give me {} any day.", "My weekends are about {}.")[user % 3]
        users.append({"user_id": f"u{user}", "bio": form.format(LIKES[genres[user % 4]][random.integers(3)])})
        for place, item in enumerate(random.choice(12, 2, replace=False)):
            log.append({"user_id": f"u{user}", "item_id": f"i{4 * item + user % 4}", "timestamp": place})
    schema = Schema("tracks", text=("title",), attributes={"genre": "category"}, profile="bio")
    catalogue = Catalogue.from_frames(items, pd.DataFrame(log), pd.DataFrame(users), schema=schema)
    config = RecommenderConfig({}, profile=TowerConfig("hf:all-MiniLM-L6-v2"))
    training = TrainingConfig(device="cpu", progress=False, batch_size=64)
    recommender = Recommender(config).fit(catalogue, training=training)

    def share_of_own(people: list[Person]) -> float:
        ids = recommender.recommend(people, k=12, on_unknown="cold").ids
        return float(np.mean([[int(str(i)[1:]) % 4 == row for i in best] for row, best in enumerate(ids)]))

    # Words that nobody used in training. Without them all four get one list, which cannot favour more than one.
    assert share_of_own([Person(profile=f"Nothing beats {LIKES[genre][3]}, really.") for genre in genres]) > 0.75
    assert share_of_own([Person() for _ in genres]) == pytest.approx(0.25)
    recommender.close()
