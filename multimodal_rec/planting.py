"""The taste planted in a sample catalogue, and the log of events that it produces.

The utility of item i for person u in context c is a sum over *parts*, each told by something nothing else tells:

    utility(u, i, c) = popularity(i) + Σ_p  weight_p · s_p(c) · ⟨taste(u, p), φ_p(i)⟩

`φ_p(i)` are the item's planted traits of that part (zero where the item lacks the modality that tells them),
`taste(u, p)` is drawn from N(0, I), and `s_p(c)` is the context's say: 1 for most parts, and a factor that changes
sign with the hour, the device or the season for some. A person's next event is drawn from the softmax of the utility
over the items that exist by then and that the person has not had.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from multimodal_rec.wording import NUM_THEMES

Kind = Literal["music", "product", "video"]

NUM_CATEGORIES = 4
"""Values of the planted attribute (genre, category or format)."""
NUM_SCENES = 3
"""Hidden communities of items: no medium and no attribute tells them, only who consumed what."""

START = 1_704_067_200
"""First second of the log: 2024-01-01 UTC."""
DURATION_SECONDS = 3 * 365 * 86_400
"""Three years, so that every person meets every season before the test period."""
LATE_SHARE = 0.1
"""Share of the items that first appear when the test period begins."""
TEST_SHARE = 0.1
POPULARITY_SPREAD = 1.0
"""Standard deviation of what makes an item popular with everybody, against tastes of weights 2 and more."""
MIN_LATE_EVENTS = 5
LACKING_SHARE = 1 / 6
"""Share of the items that lack one modality."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of taste: what tells it, how much it weighs, and which context changes its sign."""

    name: str
    """The modality that tells it, or 'attributes', or 'co-consumption'."""
    traits: tuple[str, ...]
    """Columns of the planted items that hold it."""
    weight: float
    flips_with: str | None = None
    """Context column, or None where the part means the same in every context."""


PARTS: dict[str, tuple[Part, ...]] = {
    "music": (
        Part(name="text", traits=("theme",), weight=2.5),
        Part(name="image", traits=("hue",), weight=2.5, flips_with="device"),
        Part(name="audio", traits=("tempo", "brightness"), weight=2.5, flips_with="hour"),
        Part(name="attributes", traits=("category",), weight=2.5),
        Part(name="co-consumption", traits=("scene",), weight=2.5),
    ),
    "product": (
        Part(name="text", traits=("theme",), weight=2.5, flips_with="season"),
        Part(name="image", traits=("hue",), weight=2.5, flips_with="device"),
        Part(name="attributes", traits=("category",), weight=2.5),
        Part(name="co-consumption", traits=("scene",), weight=2.5),
    ),
    "video": (
        Part(name="text", traits=("theme",), weight=2.2),
        Part(name="image", traits=("hue",), weight=2.2, flips_with="device"),
        Part(name="audio", traits=("tempo", "brightness"), weight=2.2, flips_with="hour"),
        Part(name="video", traits=("scene_hue",), weight=2.2),
        Part(name="attributes", traits=("category",), weight=2.2),
        Part(name="co-consumption", traits=("scene",), weight=2.2),
    ),
}

MODALITIES: dict[str, tuple[str, ...]] = {
    kind: tuple(part.name for part in parts if part.name in ("text", "image", "audio", "video"))
    for kind, parts in PARTS.items()
}

CONTEXT_VALUES: dict[str, tuple[object, ...]] = {
    "hour": tuple(range(24)),
    "device": ("phone", "tv"),
    "season": ("winter", "spring", "summer", "autumn"),
}
_SEASON_SIGN = {"winter": 1.0, "spring": -1.0, "summer": -1.0, "autumn": 1.0}


@dataclass(frozen=True)
class Planted:
    """Everything that the generator knows and no model is told."""

    kind: str
    items: pd.DataFrame
    """One row an item: item_id, the planted traits, `has_<modality>`, popularity, late."""
    tastes: dict[str, np.ndarray]
    """Part name → (user, trait dimension), in the order of `user_ids`."""
    user_ids: tuple[str, ...]


def plant(kind: Kind, *, num_items: int, num_users: int, rng: np.random.Generator) -> Planted:
    """Draw items with traits and people with tastes, before any medium is made or any event happens."""
    late = np.zeros(num_items, dtype=bool)
    late[num_items - round(LATE_SHARE * num_items) :] = True
    items = pd.DataFrame(
        {
            "item_id": [f"{kind[0]}{index:04d}" for index in range(num_items)],
            "theme": rng.integers(NUM_THEMES, size=num_items),
            "hue": rng.random(num_items),
            "tempo": rng.random(num_items),
            "brightness": rng.random(num_items),
            "scene_hue": rng.random(num_items),
            "category": rng.integers(NUM_CATEGORIES, size=num_items),
            # A new item belongs to no community yet: nobody could know, so no taste rests on it.
            "scene": np.where(late, -1, rng.integers(NUM_SCENES, size=num_items)),
            "popularity": np.where(late, 0.0, rng.normal(0.0, POPULARITY_SPREAD, size=num_items)),
            "late": late,
        }
    )
    lacks = rng.random(num_items) < LACKING_SHARE
    lacked = rng.integers(len(MODALITIES[kind]), size=num_items)
    for index, modality in enumerate(MODALITIES[kind]):
        items[f"has_{modality}"] = ~(lacks & (lacked == index))
    tastes = {part.name: rng.normal(size=(num_users, traits_of(items, part).shape[1])) for part in PARTS[kind]}
    user_ids = tuple(f"u{index:03d}" for index in range(num_users))
    return Planted(kind, items, tastes, user_ids)


def traits_of(items: pd.DataFrame, part: Part) -> np.ndarray:
    """φ of one part: (item, trait dimension) of unit mean square, zero where an item has nothing to tell it."""
    if part.name in ("text", "attributes", "co-consumption"):
        values = items[part.traits[0]].to_numpy()
        width = {"theme": NUM_THEMES, "category": NUM_CATEGORIES, "scene": NUM_SCENES}[part.traits[0]]
        features = (values[:, None] == np.arange(width)).astype(float)
    elif part.name == "audio":
        # Uniform on [-1, 1] has variance 1/3; two traits share the unit.
        features = (items[list(part.traits)].to_numpy() * 2 - 1) * np.sqrt(3 / 2)
    else:
        angle = 2 * np.pi * items[part.traits[0]].to_numpy()
        features = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    has = items.get(f"has_{part.name}")
    return features if has is None else features * has.to_numpy()[:, None]


def context_sign(contexts: pd.DataFrame, part: Part) -> np.ndarray:
    """s of one part: (context,), what the context makes of the part, of unit mean square."""
    if part.flips_with is None:
        return np.ones(len(contexts))
    values = contexts[part.flips_with]
    if part.flips_with == "hour":
        return np.sqrt(2) * np.cos(2 * np.pi * (values.to_numpy(dtype=float) - 21) / 24)
    if part.flips_with == "device":
        return np.where(values == "phone", 1.0, -1.0)
    return np.array([_SEASON_SIGN[season] for season in values])


def utilities(planted: Planted, tastes: dict[str, np.ndarray], contexts: pd.DataFrame | None) -> np.ndarray:
    """Utility of every item, (query, item): row q is a person's `tastes[part][q]` in the context of row q.

    Without `contexts` every part counts as it does where the context turns nothing round.
    """
    wishes, traits = wish_matrix(planted.kind, tastes, contexts), trait_matrix(planted)
    return planted.items["popularity"].to_numpy() + wishes @ traits.T


def trait_matrix(planted: Planted) -> np.ndarray:
    """All parts' φ side by side: (item, all trait dimensions)."""
    return np.concatenate([traits_of(planted.items, part) for part in PARTS[planted.kind]], axis=1)


def wish_matrix(kind: str, tastes: dict[str, np.ndarray], contexts: pd.DataFrame | None) -> np.ndarray:
    """What row q wants in its context: weight · s(c) · taste of all parts side by side, (query, all dimensions).

    s is 1 throughout without `contexts`.
    """

    def weighted(part: Part) -> np.ndarray:
        sign = 1.0 if contexts is None else context_sign(contexts, part)[:, None]
        return part.weight * sign * tastes[part.name]

    return np.concatenate([weighted(part) for part in PARTS[kind]], axis=1)


def context_columns(kind: str) -> tuple[str, ...]:
    """The context columns of a kind of catalogue."""
    return ("season", "device") if kind == "product" else ("hour", "device")


def draw_events(planted: Planted, *, events_per_user: int, rng: np.random.Generator) -> pd.DataFrame:
    """The log, in time order: user_id, item_id, timestamp, event, and the context columns.

    The last tenth of the events is the test period. It begins when the late items arrive; of its slots, as many as
    `MIN_LATE_EVENTS` an item requires are given to late items first, and the person is drawn for the item. Raises
    `ValueError` where it has too few slots for that.
    """
    kind, num_users = planted.kind, len(planted.user_ids)
    num_events = events_per_user * num_users
    first_test = num_events - round(TEST_SHARE * num_events)
    late = planted.items["late"].to_numpy()
    quota = rng.permutation(np.repeat(np.flatnonzero(late), MIN_LATE_EVENTS))
    if len(quota) > num_events - first_test:
        raise ValueError(
            f"{int(late.sum())} late items need {len(quota)} events in the test period, which has "
            f"{num_events - first_test} of {num_users} people's {num_events} events. "
            "Expected more people, more events a person, or fewer items."
        )
    slots = first_test + rng.permutation(num_events - first_test)[: len(quota)]
    reserved = dict(zip(slots.tolist(), quota.tolist(), strict=True))

    seconds = START + np.sort(rng.choice(DURATION_SECONDS, size=num_events, replace=False))
    devices = rng.choice(np.asarray(CONTEXT_VALUES["device"], dtype=object), size=num_events)
    # Everybody is about equally busy: a shuffled deck of people, not independent draws.
    users = np.concatenate([rng.permutation(num_users) for _ in range(events_per_user)])
    open_to = np.tile(~late, (num_users, 1))
    chosen = np.empty(num_events, dtype=np.int64)
    traits, popularity = trait_matrix(planted), planted.items["popularity"].to_numpy()
    wishes = wish_matrix(
        kind, {name: taste[users] for name, taste in planted.tastes.items()}, _contexts(kind, seconds, users, devices)
    )
    for index in range(num_events):
        if index == first_test:
            open_to[:, late] = True
        if index in reserved:
            item = reserved[index]
            moment = np.full(num_users, seconds[index])
            contexts = _contexts(kind, moment, np.arange(num_users), np.full(num_users, devices[index]))
            everyone = np.where(open_to, utilities(planted, planted.tastes, contexts), -np.inf)
            share = _softmax(everyone)[:, item]
            users[index] = rng.choice(num_users, p=share / share.sum())
        else:
            utility = np.where(open_to[users[index]], popularity + traits @ wishes[index], -np.inf)
            item = rng.choice(len(utility), p=_softmax(utility[None])[0])
        open_to[users[index], item] = False
        chosen[index] = item
    event = {"music": "play", "product": "purchase", "video": "view"}[kind]
    log = pd.DataFrame(
        {
            "user_id": np.asarray(planted.user_ids, dtype=object)[users],
            "item_id": planted.items["item_id"].to_numpy(dtype=object)[chosen],
            "timestamp": seconds,
            "event": event,
        }
    )
    return pd.concat([log, _contexts(kind, seconds, users, devices)], axis=1)


def southern(user_index: np.ndarray) -> np.ndarray:
    """Whether a person lives where January is summer: every second one does."""
    return user_index % 2 == 1


def _contexts(kind: str, seconds: np.ndarray, users: np.ndarray, devices: np.ndarray) -> pd.DataFrame:
    if kind == "product":
        quarter = (seconds - START) // 86_400 % 365 * 4 // 365
        seasons = np.asarray(CONTEXT_VALUES["season"], dtype=object)
        return pd.DataFrame({"season": seasons[(quarter + 2 * southern(users)) % 4], "device": devices})
    return pd.DataFrame({"hour": seconds // 3_600 % 24, "device": devices})


def _softmax(values: np.ndarray) -> np.ndarray:
    shares = np.exp(values - values.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)
