"""Titles and descriptions that each carry one planted theme, for the sample catalogues.

The theme is the only trait in a text. Words for colour, tempo, loudness, timbre, genre, price and brand are left out,
because pictures, sound and attributes tell those; so are the words in `ATTRIBUTE_WORDS`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Kind = Literal["music", "product", "video"]

ATTRIBUTE_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "music": {
        "genre": ("ambient", "folk", "jazz", "rock"),
        "creator": (
            "Ada Merrin",
            "Bruno Tal",
            "Cleo Varga",
            "Dunstan Pike",
            "Esra Lindqvist",
            "Fen Okafor",
            "Greta Solano",
            "Hideo Brandt",
            "Ines Carrow",
            "Jonas Mbeki",
            "Kaya Winslow",
            "Lior Petrenko",
        ),
    },
    "product": {
        "category": ("bag", "chair", "lamp", "scarf"),
        "brand": (
            "Alderby",
            "Brisco",
            "Corvane",
            "Dellmar",
            "Evershaw",
            "Fennick",
            "Gantry & Lowe",
            "Hollin",
            "Ivarsen",
            "Jessop",
            "Kestane",
            "Lorimer",
        ),
    },
    "video": {
        "format": ("animation", "documentary", "interview", "lecture"),
        "creator": (
            "Anders Films",
            "Basalt Pictures",
            "Cobbler Studio",
            "Dovetail",
            "Easel House",
            "Fathom Works",
            "Gable Lane",
            "Hatchway",
            "Inkwell Nine",
            "Juniper Box",
            "Knotted Oak",
            "Lattice Room",
        ),
    },
}
"""Kind → attribute → its values: four planted categories, and twelve creators or brands that mean nothing."""


class _Theme(NamedTuple):
    name: str
    places: tuple[str, ...]
    things: tuple[str, ...]
    doings: tuple[str, ...]
    people: tuple[str, ...]
    titles: tuple[str, ...]


_THEMES = (
    _Theme(
        "the sea",
        ("the open sea", "a windy beach", "the old harbour", "a rocky coast", "an island bay", "the lighthouse pier"),
        ("waves and salt spray", "fishing boats", "gulls over the surf", "seashells in the sand", "the rising tide",
         "sails and anchors", "whales far from shore", "driftwood and foam"),
        ("sailing past the reef", "diving among corals", "rowing across the bay", "walking the shore at low tide",
         "waiting for the ferry", "swimming out to the buoy"),
        ("sailors", "fishermen", "divers", "lighthouse keepers", "swimmers"),
        ("Tidewater", "Salt and Sail", "Harbour Morning", "The Ninth Wave", "Driftwood", "Beyond the Reef",
         "Lighthouse Letters", "Seaglass", "Low Tide", "Across the Bay"),
    ),
    _Theme(
        "the city at night",
        ("the downtown streets", "a crowded subway station", "a rooftop above the avenue", "the late bus stop",
         "a corner by the skyscrapers", "the night market district"),
        ("taxis and traffic lights", "neon signs", "apartment windows", "wet pavement under street lamps",
         "the last metro train", "billboards and bridges", "crosswalks after midnight", "strangers in doorways"),
        ("walking home through the city", "riding the subway after midnight", "queueing outside a club",
         "watching traffic from the fire escape", "hailing a cab downtown", "getting lost between tower blocks"),
        ("commuters", "taxi drivers", "night-shift workers", "city dwellers", "doormen"),
        ("Downtown After Dark", "Last Metro", "Street Lamps", "Avenue Nine", "Neon Corner", "Midnight Crosswalk",
         "Rooftop District", "Taxi Window", "City That Waits", "Subway Hours"),
    ),
    _Theme(
        "mountains and snow",
        ("the high mountains", "a snowy ridge", "the glacier valley", "an alpine hut", "a frozen pass",
         "the pine forest below the summit"),
        ("peaks and cliffs", "fresh snow on the firs", "ropes and ice axes", "avalanche tracks", "icicles on the cabin",
         "goats on the scree", "frost and thin air", "ski trails"),
        ("climbing to the summit", "skiing down the slope", "hiking above the tree line", "crossing the glacier",
         "sheltering from a blizzard", "pitching a tent in the snow"),
        ("climbers", "skiers", "mountain guides", "shepherds of the high pastures", "hikers"),
        ("Summit Day", "First Snow", "The North Face", "Glacier Road", "Above the Tree Line", "Alpine Hut",
         "Frost on the Ridge", "Avalanche Season", "Pine and Ice", "The Long Ascent"),
    ),
    _Theme(
        "love and family",
        ("a family wedding", "the childhood home", "grandmother's porch", "a nursery", "the reunion",
         "a honeymoon cottage"),
        ("love letters", "wedding rings", "baby photographs", "a mother's advice", "a father's embrace",
         "the first kiss", "promises between sisters", "tears at the anniversary"),
        ("falling in love again", "holding a newborn child", "growing old together", "forgiving a brother",
         "coming home to one's parents", "saying I do"),
        ("newlyweds", "grandparents", "parents and children", "lovers", "siblings"),
        ("Dear Mother", "Forever Yours", "The Wedding Album", "Two Sisters", "Cradle", "Heart to Heart",
         "Letters to My Daughter", "Anniversary", "Home to You", "First Kiss"),
    ),
)  # fmt: skip

NUM_THEMES = len(_THEMES)
"""Themes are numbered from 0 to `NUM_THEMES` - 1."""

THEMES: tuple[str, ...] = tuple(theme.name for theme in _THEMES)
"""What each theme is about, for reports."""

_TITLES: dict[str, tuple[str, ...]] = {
    "music": ("{title}", "{title}", "{title} (Part Two)", "{title}, Again", "Return to {title}"),
    "product": ("{title}", "The {title} Edition", "{title} Collection", "{title} Original", "Our {title} Piece"),
    "video": ("{title}", "{title}: Episode {number}", "{title}, Part {number}", "Inside {title}", "{title} Revisited"),
}

_OPENINGS: dict[str, tuple[str, ...]] = {
    "music": (
        "Written at {place}, with {thing} always in view.",
        "A piece about {doing} and {thing}.",
        "It tells of {people} and of {thing}.",
        "This one began with {doing}.",
        "Verses for {people}, set at {place}.",
        "Think of {place}, then of {thing}.",
    ),
    "product": (
        "Made for anyone who dreams of {doing}.",
        "Its print shows {thing} at {place}.",
        "A present for {people}, decorated with {thing}.",
        "Designed after a week at {place}.",
        "The pattern recalls {thing}.",
        "Take it along when {doing}.",
    ),
    "video": (
        "We follow {people} at {place}.",
        "A day of {doing}.",
        "The camera stays with {thing} at {place}.",
        "Ever wondered what {doing} is like?",
        "In this one, {people} talk about {thing}.",
        "Our host tries {doing} for the first time.",
    ),
}

_MIDDLES = (
    "Here you meet {people}, {thing}, and a little of {place}.",
    "It keeps the memory of {doing}.",
    "Somewhere between {place} and {thing}.",
    "{people} will know the feeling.",
    "You can almost touch {thing}.",
    "Nothing else comes as close to {doing}.",
    "Come for {thing}, stay for {place}.",
    "It has everything that {people} love: {thing}.",
)

_CLOSINGS = (
    "People keep coming back to it.",
    "Nobody who has tried it forgets it.",
    "It rewards a second visit.",
    "Not for everyone, and better for it.",
    "Finished last year after many drafts.",
    "One of our most personal works so far.",
    "Best shared with a friend.",
    "Made with patience and care.",
)


def write_words(kind: Kind, theme: int, *, rng: np.random.Generator) -> tuple[str, str]:
    """A title and a description of two or three sentences about a theme.

    `theme`: from 0 to `NUM_THEMES` - 1. Sentence patterns and word choices are drawn from `rng`. Raises `ValueError`
    for another kind or theme.
    """
    if kind not in _OPENINGS or not 0 <= theme < NUM_THEMES:
        raise ValueError(
            f"no words for kind '{kind}' and theme {theme}. "
            f"Expected one of {', '.join(map(repr, _OPENINGS))} and a theme from 0 to {NUM_THEMES - 1}."
        )
    words = _THEMES[theme]
    title = _fill(_pick(_TITLES[kind], rng), words, rng)
    sentences = [_pick(_OPENINGS[kind], rng), _pick(_MIDDLES, rng)]
    if rng.random() < 0.6:
        sentences.append(_pick(_CLOSINGS, rng))
    return title, " ".join(_fill(sentence, words, rng) for sentence in sentences)


def _fill(pattern: str, words: _Theme, rng: np.random.Generator) -> str:
    text = pattern.format(
        title=_pick(words.titles, rng),
        place=_pick(words.places, rng),
        thing=_pick(words.things, rng),
        doing=_pick(words.doings, rng),
        people=_pick(words.people, rng),
        number=int(rng.integers(2, 9)),
    )
    return text[0].upper() + text[1:]


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
