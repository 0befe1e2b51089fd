"""The command line: the verbs of `Recommender`, for people and for machines.

Exit status: 0 where everything worked, 1 where something failed, 2 for wrong usage.
"""

# torch and pandas take seconds to import; inside the verbs they delay neither `--help` nor a mistyped option.
# ruff: noqa: PLC0415

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from multimodal_rec.commands import measuring, releasing, scoring, storing
from multimodal_rec.options import CatalogueFolder, ConfigOption, DebugFlag, JsonFlag, SplitOption
from multimodal_rec.run_file import RunFile
from multimodal_rec.terminal import Terminal

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


for verb in (*storing.VERBS, *releasing.VERBS, *scoring.VERBS, *measuring.VERBS):
    app.command()(verb)


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
