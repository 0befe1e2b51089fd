"""Verbs on a store's releases and rows: versions, publish, switch, rollback, withdraw, delete, compact."""

# torch and pandas take seconds to import; inside the verbs they delay neither `--help` nor a mistyped option.
# ruff: noqa: PLC0415

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from multimodal_rec.commands.loading import load
from multimodal_rec.options import DebugFlag, JsonFlag, ModelFolder, StoreFolder
from multimodal_rec.terminal import Terminal

if TYPE_CHECKING:
    from multimodal_rec.store import ItemStore

AliasOption = Annotated[str, typer.Option("--alias", help="The name that stands for a release.")]


def versions(*, store: StoreFolder, as_json: JsonFlag = False, debug: DebugFlag = False) -> None:
    """List a store's releases, what stands for them, and the models whose items it holds now."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        opened = _opened(store)
        listed = opened.releases().to_dict("records")
        if as_json:
            terminal.write_json({"store": store, "models": opened.models, "releases": listed})
            return
        rows = [
            (
                row["name"],
                "" if row["release"] == row["name"] else row["release"],
                row["before"] or "",
                " ".join(row["models"]),
                row["items"],
                row["interactions"],
                f"{row['at']:%Y-%m-%d %H:%M}",
            )
            for row in listed
        ]
        names = ("name", "stands for", "before", "models", "items", "interactions", "at (UTC)")
        terminal.write_table(f"Releases of {store}", names, rows)
        terminal.write_table("Now", ("model", "items"), list(opened.models.items()))


def publish(
    model: ModelFolder,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the release; never used before.")],
    *,
    store: StoreFolder,
    alias: Annotated[str | None, typer.Option("--alias", help="A name that stands for it, such as live.")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Even where other models embedded items that this one did not.")
    ] = False,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Keep the store's present state, with this model's items, as a release."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        load(model, store).publish(name, alias=alias, partial=partial)
        said = f"release '{name}' published" + ("" if alias is None else f"; '{alias}' stands for it")
        terminal.write_result(said, {"release": name, "alias": alias})


def switch(
    to: Annotated[str, typer.Argument(metavar="RELEASE", help="A release that was published.")],
    *,
    store: StoreFolder,
    alias: AliasOption = "live",
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Let a name stand for a release from now on."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        _opened(store).switch(alias, to=to)
        terminal.write_result(f"'{alias}' stands for '{to}'", {"release": to, "alias": alias})


def rollback(
    *, store: StoreFolder, alias: AliasOption = "live", as_json: JsonFlag = False, debug: DebugFlag = False
) -> None:
    """Let a name stand again for the release before."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        release = _opened(store).rollback(alias)
        terminal.write_result(f"'{alias}' stands for '{release}' again", {"release": release, "alias": alias})


def withdraw(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A release or an alias.")],
    *,
    store: StoreFolder,
    retire: Annotated[
        bool, typer.Option("--retire", help="Remove the rows of its models too, where no other release holds them.")
    ] = False,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Give up a release or an alias; `compact` then frees what nobody holds."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        opened = _opened(store)
        models = [
            model for row in opened.releases().to_dict("records") if row["name"] == name for model in row["models"]
        ]
        opened.withdraw(name)
        retired = [model for model in models if retire and not opened.retire(model)]
        said = f"'{name}' withdrawn" + (f", rows of {', '.join(retired)} removed" if retired else "")
        terminal.write_result(said, {"release": name, "retired": retired})


def delete(
    items: Annotated[list[str], typer.Argument(metavar="ID ...", help="Items to remove.")],
    *,
    store: StoreFolder,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Remove items from a store; its releases keep them until they are withdrawn."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        opened = _opened(store)
        before = opened.num_items
        opened.delete_items(items)
        removed = before - opened.num_items
        terminal.write_result(f"{removed} of {len(items)} items removed", {"removed": removed, "asked": len(items)})


def compact(
    *,
    store: StoreFolder,
    days: Annotated[float, typer.Option("--days", min=0.01, help="Drop states older than this.")] = 7.0,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Join a store's small files, and drop old states that no release needs."""
    import datetime

    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        _opened(store).compact(older_than=datetime.timedelta(days=days))
        terminal.write_result(f"{store} is compact", {"store": store})


def _opened(uri: str) -> ItemStore:
    """The store, whatever models' items it holds: none of these verbs reads their numbers."""
    from multimodal_rec.rows import Layout
    from multimodal_rec.store import ItemStore

    return ItemStore.open(uri, Layout((), 0), create=False)


VERBS = (versions, publish, switch, rollback, withdraw, delete, compact)
