"""Verbs that answer for people: score and recommend."""

# torch and pandas take seconds to import; inside the verbs they delay neither `--help` nor a mistyped option.
# ruff: noqa: PLC0415

from __future__ import annotations

from typing import Annotated

import typer

from multimodal_rec.commands.loading import load
from multimodal_rec.options import ContextOption, DebugFlag, JsonFlag, ModelFolder, ReleaseOption, StoreFolder
from multimodal_rec.terminal import Terminal


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
        situation = _context(context)
        scores = load(model, store, release=release).score([user], item, context=situation)
        rows = [(item_id, float(value)) for item_id, value in zip(item, scores[0], strict=True)]
        if as_json:
            entries = [{"item": item_id, "score": value} for item_id, value in rows]
            terminal.write_json({"user": user, "context": situation or {}, "scores": entries})
        else:
            terminal.write_table(f"Scores for {user}{_said(situation)}", ("item", "score"), rows)


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
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Rank the store's items for people in a context."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        situation = _context(context)
        from multimodal_rec.retrieval import Query

        query = Query(shortlist=shortlist)
        ids, scores = load(model, store, release=release).recommend(user, k=k, context=situation, query=query)
        ranked = [
            [(item_id, float(value)) for item_id, value in zip(row_ids, row_scores, strict=True) if item_id is not None]
            for row_ids, row_scores in zip(ids, scores, strict=True)
        ]
        if as_json:
            entries = [
                {"user": user_id, "items": [{"item": item_id, "score": value} for item_id, value in rows]}
                for user_id, rows in zip(user, ranked, strict=True)
            ]
            terminal.write_json({"k": k, "context": situation or {}, "recommendations": entries})
            return
        for user_id, rows in zip(user, ranked, strict=True):
            numbered = [(place, *row) for place, row in enumerate(rows, start=1)]
            terminal.write_table(f"For {user_id}{_said(situation)}", ("rank", "item", "score"), numbered)


def _context(pairs: list[str] | None) -> dict[str, object] | None:
    """Values stay text, as in a CSV cell: the model's own declarations say which of them are numbers."""
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs or [])} or None


def _said(context: dict[str, object] | None) -> str:
    return "".join(f", {name} {value}" for name, value in (context or {}).items())


VERBS = (score, recommend)
