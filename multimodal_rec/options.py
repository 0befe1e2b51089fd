"""Arguments and options that several commands take, checked before a command starts."""

# torch and pandas take seconds to import; inside the checks they delay neither `--help` nor a mistyped option.
# ruff: noqa: PLC0415

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer

_Text = TypeVar("_Text", str, list[str])

CatalogueFolder = Annotated[Path, typer.Argument(metavar="CATALOGUE", help="Folder with a catalogue.toml.")]
ModelFolder = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder that `train --out` wrote.")]
StoreFolder = Annotated[str, typer.Option("--store", help="Folder or URI of the item store.")]
ReleaseOption = Annotated[
    str | None, typer.Option("--release", metavar="NAME", help="Read the store as it was published under this name.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Write one JSON object, for machines.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]


def _check_split(option: str | None) -> str | None:
    if option is None:
        return None
    from multimodal_rec.splits import SPLITS

    choices = ("none", *SPLITS)
    how, colon, column = option.partition(":")
    if how not in choices:
        near = difflib.get_close_matches(how, choices, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise typer.BadParameter(f"there is no split '{how}'. Expected one of {', '.join(choices)}.{hint}")
    if colon and (how != "label" or not column):
        raise typer.BadParameter(f"'{option}' is not a split. Only label takes a column, as in label:part.")
    return option


def _check_context(pairs: list[str] | None) -> list[str]:
    columns = set()
    for pair in pairs or []:
        column, _, value = pair.partition("=")
        if not column or not value:
            raise typer.BadParameter(f"'{pair}' is not NAME=VALUE, such as hour=22.")
        if column in columns:
            raise typer.BadParameter(f"'{column}' is given twice. Give each context column once.")
        columns.add(column)
    return pairs or []


def _check_steps(steps: list[str] | None) -> list[str]:
    if steps:
        from multimodal_rec.reranking.notation import step_of

        for step in steps:
            _check_read(step_of, step)
    return steps or []


def _check_filters(pairs: list[str] | None) -> list[str]:
    if pairs:
        from multimodal_rec.reranking.notation import filters_of

        _check_read(filters_of, pairs)
    return pairs or []


def _check_read(reader: Callable[[_Text], object], text: _Text) -> None:
    from multimodal_rec.errors import ConfigError

    try:
        reader(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


def situation(pairs: list[str] | None) -> dict[str, object] | None:
    """The context that pairs of NAME=VALUE tell, None without any.

    Values stay text, as in a CSV cell: the model's own declarations say which of them are numbers.
    """
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs or [])} or None


ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML with [model], [training] and [split].")
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        callback=_check_split,
        metavar="HOW",
        help="none, time, last, share, cold_items, cold_users, random or label:COLUMN.",
    ),
]
ContextOption = Annotated[
    list[str] | None,
    typer.Option(
        "--context", callback=_check_context, metavar="NAME=VALUE", help="One context column; may be repeated."
    ),
]
StepOption = Annotated[
    list[str] | None,
    typer.Option(
        "--step",
        callback=_check_steps,
        metavar="STEP",
        help="What is done after the ranking; may be repeated, and is done in this order: mmr=0.3, dpp=0.3, "
        "calibrated:genre=0.5, floor:new=0.2 or floor:creator:Ann=0.2, cap:creator=2, must:genre:jazz=1, dedupe=0.98, "
        "explore=0.3.",
    ),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where", callback=_check_filters, metavar="NAME=VALUE", help="Only items with this value; may be repeated."
    ),
]
NeverOption = Annotated[
    list[str] | None,
    typer.Option(
        "--never", callback=_check_filters, metavar="NAME=VALUE", help="No item with this value; may be repeated."
    ),
]
PoolOption = Annotated[int, typer.Option("--pool", min=1, help="How many of the best items the first step reads.")]
UnknownOption = Annotated[
    Literal["raise", "skip", "cold"],
    typer.Option(
        "--unknown", help="Of somebody of whom nothing is known: fail, leave the list empty, or rank as for anybody."
    ),
]
