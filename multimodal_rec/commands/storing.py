"""Verbs on a store: embed, update, index and export."""

# torch and pandas take seconds to import; inside the verbs they delay neither `--help` nor a mistyped option.
# ruff: noqa: PLC0415

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from multimodal_rec.commands.loading import load
from multimodal_rec.options import DebugFlag, JsonFlag, ModelFolder, StoreFolder
from multimodal_rec.terminal import Terminal


class NumbersChoice(StrEnum):
    """What the numbers of an export may be; the same as `compression.Numbers`."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    BINARY = "binary"


class EngineChoice(StrEnum):
    """Where items are embedded; the names of `ray_engine.Engine`."""

    LOCAL = "local"
    RAY = "ray"


def embed(
    model: ModelFolder,
    items: Annotated[
        Path, typer.Argument(metavar="ITEMS", help="Catalogue folder, or a parquet or CSV file of items, to embed.")
    ],
    *,
    store: StoreFolder,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed before and has not changed.")
    ] = False,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Processes that decode media; 0 decodes in a thread.")
    ] = 0,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
    engine: Annotated[
        EngineChoice, typer.Option("--engine", help="This process, or Ray: a worker each CPU or GPU of its cluster.")
    ] = EngineChoice.LOCAL,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Embed what is new or changed among a catalogue's items. Status 1 where an item could not be embedded."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        # One broken row must not keep the others out of the store: it is set aside and listed.
        report = load(model, store).embed(
            items,
            on_error="quarantine",
            retry_failed=retry_failed,
            num_workers=workers,
            progress=progress and not as_json,
            engine=engine.value,
        )
        set_aside = [str(problem) for problem in report.set_aside]
        if as_json:
            terminal.write_json(
                {
                    "store": store,
                    "embedded": report.embedded,
                    "unchanged": report.unchanged,
                    "failed": report.failed,
                    "set_aside": set_aside,
                }
            )
        else:
            terminal.write_line(
                f"{report.embedded} embedded, {report.unchanged} unchanged, {len(report.failed)} failed"
            )
            for item_id, reason in report.failed.items():
                terminal.write_line(f"item '{item_id}': {reason}")
            for line in set_aside:
                terminal.write_line(f"set aside: {line}")
        if report.failed or set_aside:
            raise typer.Exit(1)


def update(
    model: ModelFolder,
    interactions: Annotated[Path, typer.Argument(metavar="FILE", help="What people did since: .parquet or .csv.")],
    *,
    store: StoreFolder,
    fine_tune: Annotated[
        int, typer.Option("--fine-tune", min=0, metavar="EPOCHS", help="Train on that and on older events besides.")
    ] = 0,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Learn from what people did since, without starting over; the model is saved again."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        from multimodal_rec.catalogue import read_table
        from multimodal_rec.fine_tuning import FineTune

        recommender = load(model, store)
        how = FineTune(epochs=fine_tune) if fine_tune else None
        report = recommender.update(read_table(interactions), fine_tune=how)
        recommender.save(model)
        if report.fine_tune is not None:
            recommender.store.retire(report.fine_tune.former)
        terminal.write_result(str(report), report.to_dict())


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

        recommender = load(model, store)
        report = recommender.build_index(exact_up_to=EXACT_UP_TO if exact_up_to is None else exact_up_to)
        terminal.write_result(str(report), report.to_dict())


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
        recommender = load(model, store)
        report = recommender.export(out, part=part, numbers=numbers.value, dims=dims)
        terminal.write_result(str(report), report.to_dict())


def onnx(
    model: ModelFolder,
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write the graphs to.")],
    *,
    store: StoreFolder,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Write each tower and the scoring path as ONNX graphs, checked against the model."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        report = load(model, store).export_onnx(out)
        terminal.write_result(str(report), report.to_dict())


VERBS = (embed, update, index, export, onnx)
