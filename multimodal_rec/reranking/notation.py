"""Steps and filters as a command line spells them: a word, what it is about, and a number."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from multimodal_rec.errors import ConfigError
from multimodal_rec.reranking.calibration import Calibrated
from multimodal_rec.reranking.determinantal import DPP
from multimodal_rec.reranking.duplicates import Deduplicate
from multimodal_rec.reranking.exploration import Explore
from multimodal_rec.reranking.exposure import ExposureFloor
from multimodal_rec.reranking.marginal_relevance import MMR
from multimodal_rec.reranking.rules import Cap, MustHave
from multimodal_rec.reranking.step import Group, Step

_NEW = "new"


class _Form(NamedTuple):
    make: Callable[..., Step]
    about: Literal["all", "column", "group"]
    number: type[int] | type[float]
    example: str


_FORMS = {
    "mmr": _Form(MMR, "all", float, "mmr=0.3"),
    "dpp": _Form(DPP, "all", float, "dpp=0.3"),
    "calibrated": _Form(Calibrated, "column", float, "calibrated:genre=0.5"),
    "floor": _Form(ExposureFloor, "group", float, "floor:new=0.2"),
    "cap": _Form(Cap, "column", int, "cap:creator=2"),
    "must": _Form(MustHave, "group", int, "must:genre:jazz=1"),
    "dedupe": _Form(Deduplicate, "all", float, "dedupe=0.98"),
    "explore": _Form(Explore, "all", float, "explore=0.3"),
}

EXAMPLES = tuple(form.example for form in _FORMS.values())
"""One spelling of each step that there is a word for."""


def step_of(text: str) -> Step:
    """The step that `WORD[:ABOUT][=NUMBER]` says, such as 'mmr=0.3', 'cap:creator=1' or 'floor:new=0.2'.

    What a step is about is an attribute, or a group of items: 'genre:jazz' for those with a value, 'new' for those that
    nobody took yet, 'new:5' for those that were taken five times at most. Without a number the step has its own
    default. Raises `ConfigError` for a word that is no step, and for what its step cannot be.
    """
    head, equals, number = text.rpartition("=")
    head, number = (head, number) if equals else (text, "")
    word, *about = head.split(":", 2)
    form = _FORMS.get(word)
    if form is None:
        near = difflib.get_close_matches(word, _FORMS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"there is no step '{word}'. Expected one of {', '.join(_FORMS)}.{hint}")
    subject = _subject(text, about, form)
    if not equals:
        return form.make(*subject)
    try:
        value = form.number(number)
        if not math.isfinite(value):
            raise ValueError(number)
    except ValueError:
        wanted = "a whole number" if form.number is int else "a number"
        raise ConfigError(f"'{number}' in step '{text}' is not {wanted}. Write it as in {form.example}.") from None
    return form.make(*subject, value)


def filters_of(pairs: Sequence[str]) -> dict[str, tuple[object, ...]]:
    """Attribute → the values that pairs of NAME=VALUE give it, as `Query.where` and `Query.never` read them.

    A text that is a number stands for both, as nobody who types it can tell how it is stored. Raises `ConfigError` for
    what is no pair.
    """
    found: dict[str, tuple[object, ...]] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not name or not value:
            raise ConfigError(f"'{pair}' is not NAME=VALUE, such as genre=jazz.")
        found[name] = (*found.get(name, ()), *_meanings(value))
    return found


def _subject(text: str, about: Sequence[str], form: _Form) -> list[object]:
    num_words = {"all": (0,), "column": (1,), "group": (1, 2)}[form.about]
    if len(about) not in num_words or not all(about):
        raise ConfigError(f"step '{text}' cannot be read. Write it as in {form.example}.")
    if form.about == "column":
        return [about[0]]
    return [_group(text, about, form)] if form.about == "group" else []


def _group(text: str, about: Sequence[str], form: _Form) -> Group:
    name, *rest = about
    if name == _NEW:
        if not all(each.isdecimal() for each in rest):
            raise ConfigError(f"'{rest[0]}' in step '{text}' is no number of events. Write it as in 'new:5', or 'new'.")
        return Group(max_events=int(rest[0]) if rest else 0)
    if not rest:
        raise ConfigError(
            f"step '{text}' names no items by '{name}'. Expected ATTRIBUTE:VALUE, or '{_NEW}'. Write it as in "
            f"{form.example}."
        )
    return Group({name: _meanings(rest[0])})


def _meanings(text: str) -> tuple[object, ...]:
    try:
        return (text, float(text))
    except ValueError:
        return (text,)
