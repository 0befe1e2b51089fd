"""Verbs that measure: towers, evaluate and audit."""

# torch and pandas take seconds to import; inside the verbs they delay neither `--help` nor a mistyped option.
# ruff: noqa: PLC0415

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from multimodal_rec.commands.loading import load
from multimodal_rec.options import CatalogueFolder, ConfigOption, DebugFlag, JsonFlag, ModelFolder, SplitOption
from multimodal_rec.run_file import RunFile, SplitChoice
from multimodal_rec.terminal import Terminal


def towers(
    catalogue: Annotated[
        Path | None, typer.Argument(metavar="[CATALOGUE]", help="Try them on this catalogue's items.")
    ] = None,
    *,
    config: ConfigOption = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Items in the batch that is tried.")] = 8,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Measure what a configuration's towers cost, in memory and time, before they are trained."""
    if catalogue is None and config is None:
        raise typer.BadParameter("give a catalogue, a configuration with --config, or both.", param_hint="'CATALOGUE'")
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        run = RunFile() if config is None else RunFile.read(config)
        from multimodal_rec.cost_report import cost_report

        report = cost_report(catalogue, run, batch_size=batch_size, progress=not as_json)
        if as_json:
            terminal.write_json(report.to_dict())
        else:
            terminal.write_table(report.title, report.columns, report.rows)
            for line in report.lines:
                terminal.write_line(line)


def evaluate(
    model: ModelFolder,
    catalogue: CatalogueFolder,
    *,
    split: SplitOption = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Judge a model on the test part of a catalogue, split as in training; `none` takes all its interactions."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        choice = _test_split(model, split)
        from multimodal_rec.catalogue import Catalogue

        found = Catalogue.read(catalogue)
        parts = choice.apply(found)
        evaluation = load(model, None).evaluate(found if parts is None else parts.test)
        intervals = [(str(name), *map(float, row)) for name, row in evaluation.intervals().iterrows()]
        if as_json:
            terminal.write_json(
                {
                    "split": choice.how,
                    "people": len(evaluation.per_user),
                    "queries": evaluation.num_queries,
                    "left_out": evaluation.left_out,
                    "metrics": {name: {"mean": mean, "low": low, "high": high} for name, mean, low, high in intervals},
                }
            )
            return
        title = f"{len(evaluation.per_user)} people, {evaluation.num_queries} queries (split: {choice.how})"
        terminal.write_table(title, ("metric", "mean", "95% from", "to"), intervals)
        for reason, count in evaluation.left_out.items():
            terminal.write_line(f"{count} test interactions left out: {reason}")


def audit(
    catalogue: CatalogueFolder,
    *,
    config: ConfigOption = None,
    split: SplitOption = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Training runs a variant.")] = 1,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where runs are kept.")] = Path("runs/audit"),
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="VARIANT", help="Train only these; may be repeated.")
    ] = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Train a model without each part of a catalogue, and with it made meaningless, and say what each part is worth."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        run = RunFile() if config is None else RunFile.read(config)
        choice = run.split.with_option(split)
        from multimodal_rec.catalogue import Catalogue
        from multimodal_rec.defaults import default_config
        from multimodal_rec.evaluation.audit import audit_parts

        found = Catalogue.read(catalogue)
        parts = choice.apply(found)
        training = replace(run.training, progress=False, cache_dir=run.training.cache_dir or str(out / "cache"))
        result = audit_parts(
            found.split("time") if parts is None else parts,
            run.config(default_config(found.schema)),
            training=training,
            seeds=range(seeds),
            out=out,
            only=only,
            report=None if as_json else terminal.write_line,
        )
        if as_json:
            terminal.write_json(result.to_dict())
            return
        rows = [tuple(row.values()) for row in result.rows()]
        names = ("among", "variant", "NDCG@10", "spread", "difference", "95% from", "to", "p, Holm")
        terminal.write_table("What each part is worth", names, rows)
        for line in result.sentences:
            terminal.write_line(line)


def _test_split(model: Path, option: str | None) -> SplitChoice:
    trained = SplitChoice.read(model)
    choice = (trained or SplitChoice()).with_option(option)
    if trained is not None and choice.how not in ("none", trained.how):
        raise typer.BadParameter(
            f"this model was trained with --split {trained.how}, so it has learned from what --split {choice.how} "
            f"would judge it on. Train it with --split {choice.how}.",
            param_hint="'--split'",
        )
    return choice


VERBS = (towers, evaluate, audit)
