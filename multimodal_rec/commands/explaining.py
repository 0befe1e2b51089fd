"""The verb explain."""

# torch and pandas take seconds to import; inside the verbs they delay neither `--help` nor a mistyped option.

from __future__ import annotations

from typing import Annotated

import typer

from multimodal_rec.commands.loading import load
from multimodal_rec.options import ContextOption, DebugFlag, JsonFlag, ModelFolder, StoreFolder, situation
from multimodal_rec.terminal import Terminal


def explain(
    model: ModelFolder,
    *,
    store: StoreFolder,
    user: Annotated[str, typer.Option("--user", metavar="ID", help="The person.")],
    item: Annotated[list[str], typer.Option("--item", metavar="ID", help="An item; may be repeated.")],
    context: ContextOption = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Say why items score as they do for a person in a context."""
    terminal = Terminal(as_json=as_json, debug=debug)
    with terminal.guard():
        told = situation(context)
        explanations = load(model, store).explain(user, item, context=told)
        if as_json:
            entries = [{**each._asdict(), "because": each.because()} for each in explanations]
            terminal.write_json({"user": user, "context": told or {}, "explanations": entries})
            return
        for each in explanations:
            distance = each.score - each.neutral
            title = f"{each.item_id} for {user}, {distance:+.3f} beside the mean item: {each.because()}"
            sources = list(each.sources)
            rows = [
                (part, each.contributions[part], *(values[source] for source in sources))
                for part, values in each.table.items()
            ]
            rows.append(("in all", distance, *(each.sources[source] for source in sources)))
            terminal.write_table(title, ("part", "in all", *sources), rows)


VERBS = (explain,)
