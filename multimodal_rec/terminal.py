"""Results and errors of one command: tables and one line for people, JSON for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from multimodal_rec.errors import MultimodalRecError


class Terminal:
    """Where a command writes: results to standard output, errors and remarks to standard error."""

    def __init__(self, *, as_json: bool, debug: bool) -> None:
        """`as_json`: one JSON object instead of text; `debug`: let errors through with their traceback."""
        self.as_json = as_json
        self.debug = debug
        self.out = Console(soft_wrap=True, highlight=False)
        self.err = Console(stderr=True, soft_wrap=True, highlight=False)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """A block whose errors become one line on standard error and exit status 1.

        With JSON, the same goes to standard output as `{"error": ..., "type": ...}`. Wrong usage passes through: typer
        answers it with status 2.
        """
        try:
            yield
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            if self.debug:
                raise
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Say what went wrong in one line and end with status 1. Raises `typer.Exit`."""
        lines = str(error).strip().splitlines() or [""]
        if not isinstance(error, (MultimodalRecError, OSError)):
            lines[0] = f"unexpected {type(error).__name__}: {lines[0]} (--debug shows where)"
        elif len(lines) > 1:
            lines[0] += f" First of {len(lines) - 1}: {lines[1]}"
        self.err.print(f"[bold red]error:[/] {escape(lines[0])}")
        if self.as_json:
            self.write_json({"error": str(error), "type": type(error).__name__})
        raise typer.Exit(1) from error

    def write_json(self, content: Mapping[str, Any]) -> None:
        """Write `content` as one JSON object; numbers that JSON has no word for (NaN, infinities) become null."""
        typer.echo(json.dumps(_plain(content), ensure_ascii=False, allow_nan=False))

    def write_line(self, text: str) -> None:
        """Write one line for people; with JSON it goes to standard error."""
        (self.err if self.as_json else self.out).print(escape(text))

    def write_result(self, text: str, facts: Mapping[str, Any]) -> None:
        """Write what came of a command: `text` for people, `facts` as JSON."""
        if self.as_json:
            self.write_json(facts)
        else:
            self.write_line(text)

    def write_table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Write a table for people, floats with four decimals."""
        table = Table(title=escape(title), title_justify="left", title_style="bold")
        for position, column in enumerate(columns):
            numeric = bool(rows) and isinstance(rows[0][position], (int, float))
            table.add_column(escape(column), justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else escape(str(cell)) for cell in row))
        self.out.print(table, soft_wrap=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
