"""The command line: the verbs of `Recommender`, for people and for machines.

Exit status: 0 where everything worked, 1 where something failed, 2 for wrong usage.
"""

# torch and pandas take seconds to import; inside the verbs they delay neither `--help` nor a mistyped option.
# ruff: noqa: PLC0415

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from multimodal_rec import store_commands
from multimodal_rec.options import (
    CatalogueFolder,
    ConfigOption,
    ContextOption,
    DebugFlag,
    JsonFlag,
    ModelFolder,
    SplitOption,
    StoreFolder,
)
from multimodal_rec.run_file import RunFile, SplitChoice
from multimodal_rec.terminal import Terminal

if TYPE_CHECKING:
    from multimodal_rec.recommender import Recommender

app = typer.Typer(
    name="multimodal-rec",
    help="Recommendations from a catalogue's text, pictures, sound and video, and from what people did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def check(catalogue: CatalogueFolder, *, as_json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """Read a catalogue and list everything that is wrong with it."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        from multimodal_rec.catalogue import Catalogue
        from multimodal_rec.errors import CatalogueError

        try:
            found = Catalogue.read(catalogue)
        except CatalogueError as error:
            if as_json:
                problems = [problem._asdict() for problem in error.problems]
                terminal.write_json({"ok": False, "error": str(error).splitlines()[0], "problems": problems})
            else:
                for line in str(error).splitlines():
                    terminal.err.print(line, markup=False)
            raise typer.Exit(1) from error
        if as_json:
            terminal.write_json(
                {
                    "ok": True,
                    "name": found.schema.name,
                    "kind": found.schema.kind,
                    "items": found.num_items,
                    "users": found.num_users,
                    "interactions": len(found.interactions),
                    "modalities": found.schema.modalities,
                    "problems": [],
                }
            )
        else:
            terminal.write_line(f"no problems: {found!r}")


@app.command()
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


@app.command()
def train(
    catalogue: CatalogueFolder,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="MODEL", help="Folder to write the model to.")],
    config: ConfigOption = None,
    split: SplitOption = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Train a model on a catalogue: on all of it, or with --split on its training part."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        run = RunFile() if config is None else RunFile.read(config)
        choice = run.split.with_option(split)
        from multimodal_rec.catalogue import Catalogue

        found = Catalogue.read(catalogue)
        parts = choice.apply(found)
        from multimodal_rec.defaults import default_config
        from multimodal_rec.recommender import Recommender

        training = replace(run.training, progress=run.training.progress and not as_json)
        recommender = Recommender(run.config(default_config(found.schema)))
        start = time.monotonic()
        if parts is None:
            recommender.fit(found, training=training)
        else:
            recommender.fit(parts.train, valid=parts.valid, training=training)
        seconds = time.monotonic() - start
        recommender.save(out)
        choice.write(out)
        learned = found if parts is None else parts.train
        if as_json:
            terminal.write_json(
                {
                    "model": str(out),
                    "split": choice.how,
                    "items": learned.num_items,
                    "interactions": len(learned.interactions),
                    "seconds": seconds,
                }
            )
        else:
            terminal.write_line(
                f"trained on {learned.num_items} items and {len(learned.interactions)} interactions "
                f"in {seconds:.0f} s (split: {choice.how}). Written to {out}."
            )


@app.command()
def embed(
    model: ModelFolder,
    items: Annotated[Path, typer.Argument(metavar="ITEMS", help="Catalogue folder with the items to embed.")],
    *,
    store: StoreFolder,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Embed what is new or changed among a catalogue's items. Status 1 where an item could not be embedded."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        from multimodal_rec.catalogue import Catalogue

        # One broken row must not keep the others out of the store: it is set aside and listed.
        found = Catalogue.read(items, on_error="quarantine")
        report = _load(model, store).embed(found.items, on_error="quarantine")
        set_aside = [str(problem) for problem in found.quarantined]
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


@app.command()
def score(
    model: ModelFolder,
    *,
    store: StoreFolder,
    user: Annotated[str, typer.Option("--user", metavar="ID", help="The person.")],
    item: Annotated[list[str], typer.Option("--item", metavar="ID", help="An item; may be repeated.")],
    context: ContextOption = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Score items for a person in a context."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        situation = _context(context)
        scores = _load(model, store).score([user], item, context=situation)
        rows = [(item_id, float(value)) for item_id, value in zip(item, scores[0], strict=True)]
        if as_json:
            entries = [{"item": item_id, "score": value} for item_id, value in rows]
            terminal.write_json({"user": user, "context": situation or {}, "scores": entries})
        else:
            terminal.write_table(f"Scores for {user}{_said(situation)}", ("item", "score"), rows)


@app.command()
def recommend(
    model: ModelFolder,
    *,
    store: StoreFolder,
    user: Annotated[list[str], typer.Option("--user", metavar="ID", help="A person; may be repeated.")],
    k: Annotated[int, typer.Option("--k", min=1, help="How many items a person.")] = 10,
    context: ContextOption = None,
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
        ids, scores = _load(model, store).recommend(user, k=k, context=situation, query=query)
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


app.command()(store_commands.index)
app.command()(store_commands.export)


@app.command()
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
        evaluation = _load(model, None).evaluate(found if parts is None else parts.test)
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


@app.command()
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


@app.command()
def demo(
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where to write.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the sample catalogues and of training.")] = 0,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Make three sample catalogues, train on them, and write a report page with pictures and sound."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        from multimodal_rec.demo import run_demo

        status = run_demo(out, seed=seed, console=terminal.err if as_json else terminal.out)
        if as_json:
            terminal.write_json({"report": str(out / "report.html"), "ok": status == 0})
        if status:
            raise typer.Exit(1)


def main() -> None:
    """Run the command line and exit with its status; the `multimodal-rec` console entry."""
    app()


def _load(model: Path, store: str | None) -> Recommender:
    from multimodal_rec.recommender import Recommender

    return Recommender.load(model, store=store)


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


def _context(pairs: list[str] | None) -> dict[str, object] | None:
    """Values stay text, as in a CSV cell: the model's own declarations say which of them are numbers."""
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs or [])} or None


def _said(context: dict[str, object] | None) -> str:
    return "".join(f", {name} {value}" for name, value in (context or {}).items())
