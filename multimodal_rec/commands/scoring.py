"""Verbs that answer for people: score, recommend and search."""

# torch and pandas take seconds to import; inside the verbs they delay neither `--help` nor a mistyped option.
# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from multimodal_rec.commands.loading import load
from multimodal_rec.options import (
    ContextOption,
    DebugFlag,
    JsonFlag,
    ModelFolder,
    NeverOption,
    PoolOption,
    ReleaseOption,
    StepOption,
    StoreFolder,
    UnknownOption,
    WhereOption,
    situation,
)
from multimodal_rec.terminal import Terminal

if TYPE_CHECKING:
    from multimodal_rec.recommendations import Recommendations
    from multimodal_rec.retrieval import Query


def score(
    model: ModelFolder,
    *,
    store: StoreFolder,
    user: Annotated[str, typer.Option("--user", metavar="ID", help="The person.")],
    item: Annotated[list[str], typer.Option("--item", metavar="ID", help="An item; may be repeated.")],
    context: ContextOption = None,
    release: ReleaseOption = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Score items for a person in a context."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        told = situation(context)
        scores = load(model, store, release=release).score([user], item, context=told)
        rows = [(item_id, float(value)) for item_id, value in zip(item, scores[0], strict=True)]
        if as_json:
            entries = [{"item": item_id, "score": value} for item_id, value in rows]
            terminal.write_json({"user": user, "context": told or {}, "scores": entries})
        else:
            terminal.write_table(f"Scores for {user}{_said(told)}", ("item", "score"), rows)


def recommend(
    model: ModelFolder,
    *,
    store: StoreFolder,
    user: Annotated[list[str], typer.Option("--user", metavar="ID", help="A person; may be repeated.")],
    k: Annotated[int, typer.Option("--k", min=1, help="How many items a person.")] = 10,
    context: ContextOption = None,
    release: ReleaseOption = None,
    shortlist: Annotated[
        int | None, typer.Option("--shortlist", min=1, help="Rank only this many, found through the index.")
    ] = None,
    step: StepOption = None,
    pool: PoolOption = 100,
    where: WhereOption = None,
    never: NeverOption = None,
    unknown: UnknownOption = "raise",
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Rank the store's items for people in a context."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        told = situation(context)
        query = replace(_query(step, pool, where=where, never=never), shortlist=shortlist)
        recommender = load(model, store, release=release)
        found = recommender.recommend(user, k=k, context=told, query=query, on_unknown=unknown)
        if as_json:
            entries = [{"user": user_id, **row} for user_id, row in zip(user, _listed(found), strict=True)]
            terminal.write_json({"k": k, "context": told or {}, "recommendations": entries})
            return
        _write_lists(terminal, [f"For {user_id}{_said(told)}" for user_id in user], found)


def search(
    model: ModelFolder,
    wish: Annotated[list[str], typer.Argument(metavar="WISH", help="What is looked for, in words; several in turn.")],
    *,
    store: StoreFolder,
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="Blend with this person's taste.")] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="How many items a wish.")] = 10,
    context: ContextOption = None,
    taste: Annotated[
        float | None, typer.Option("--taste", min=0, max=1, help="Share of the person and the context in the score.")
    ] = None,
    release: ReleaseOption = None,
    step: StepOption = None,
    pool: PoolOption = 100,
    where: WhereOption = None,
    never: NeverOption = None,
    unknown: UnknownOption = "raise",
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Find the store's items that match a wish in words, in every modality."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        told = situation(context)
        from multimodal_rec.search import TASTE

        found = load(model, store, release=release).search(
            wish,
            k=k,
            user=user,
            context=told,
            query=_query(step, pool, where=where, never=never),
            taste=TASTE if taste is None else taste,
            on_unknown=unknown,
        )
        if as_json:
            entries = [{"wish": text, **row} for text, row in zip(wish, _listed(found), strict=True)]
            terminal.write_json({"k": k, "user": user, "context": told or {}, "results": entries})
            return
        _write_lists(terminal, [f"“{text}”{_said(told)}" for text in wish], found)


def _query(
    steps: Sequence[str] | None, pool: int, *, where: Sequence[str] | None, never: Sequence[str] | None
) -> Query:
    from multimodal_rec.reranking.notation import filters_of, step_of
    from multimodal_rec.retrieval import Query

    made = tuple(step_of(step) for step in steps or ())
    return Query(steps=made, pool=pool, where=filters_of(where or ()), never=filters_of(never or ()))


def _listed(found: Recommendations) -> list[dict[str, object]]:
    """The items of each row, and why the row is short where it is."""
    return [
        {"items": [{"item": item_id, "score": value} for item_id, value in items], "reason": reason}
        for items, reason in zip(_items(found), found.reasons, strict=True)
    ]


def _items(found: Recommendations) -> list[list[tuple[str, float]]]:
    """The items of each row with their scores, without the empty places behind them."""
    return [
        [(item_id, float(value)) for item_id, value in zip(*row, strict=True) if item_id is not None]
        for row in zip(found.ids, found.scores, strict=True)
    ]


def _write_lists(terminal: Terminal, titles: Sequence[str], found: Recommendations) -> None:
    for title, items, reason in zip(titles, _items(found), found.reasons, strict=True):
        numbered = [(place, *item) for place, item in enumerate(items, start=1)]
        terminal.write_table(title, ("rank", "item", "score"), numbered)
        if reason is not None:
            terminal.write_line(reason)


def _said(context: dict[str, object] | None) -> str:
    return "".join(f", {name} {value}" for name, value in (context or {}).items())


VERBS = (score, recommend, search)
