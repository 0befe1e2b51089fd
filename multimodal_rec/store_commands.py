"""The command line's verbs on a filled store: index and export."""

# torch and pandas take seconds to import; inside the verbs they delay neither `--help` nor a mistyped option.
# ruff: noqa: PLC0415

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from multimodal_rec.options import DebugFlag, JsonFlag, ModelFolder, StoreFolder
from multimodal_rec.terminal import Terminal


class NumbersChoice(StrEnum):
    """What the numbers of an export may be; the same as `compression.Numbers`."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    BINARY = "binary"


def index(
    model: ModelFolder,
    *,
    store: StoreFolder,
    exact_up_to: Annotated[
        int | None, typer.Option("--exact-up-to", min=0, help="Look at every item of a store no larger than this.")
    ] = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Build the index that finds candidates among many items, and measure what it misses."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        from multimodal_rec.index import EXACT_UP_TO
        from multimodal_rec.recommender import Recommender

        recommender = Recommender.load(model, store=store)
        report = recommender.build_index(exact_up_to=EXACT_UP_TO if exact_up_to is None else exact_up_to)
        if as_json:
            terminal.write_json(report.to_dict())
        else:
            terminal.write_line(str(report))


def export(
    model: ModelFolder,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="NAME.parquet or NAME.npy to write.")],
    *,
    store: StoreFolder,
    part: Annotated[str, typer.Option("--part", help="item, or a part of it: text, image, attributes ...")] = "item",
    numbers: Annotated[NumbersChoice, typer.Option("--numbers", help="How each number is kept.")] = (
        NumbersChoice.FLOAT32
    ),
    dims: Annotated[
        int | None, typer.Option("--dims", min=1, help="Rotate, and keep this many numbers of each embedding.")
    ] = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Write a store's embeddings for other software, and say what is lost."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        from multimodal_rec.recommender import Recommender

        recommender = Recommender.load(model, store=store)
        report = recommender.export(out, part=part, numbers=numbers.value, dims=dims)
        if as_json:
            terminal.write_json(report.to_dict())
        else:
            terminal.write_line(str(report))
