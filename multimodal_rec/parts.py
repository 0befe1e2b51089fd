"""Parts of a split put together and taken apart."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pandas as pd

from multimodal_rec.catalogue import Catalogue


def together(first: Catalogue, second: Catalogue) -> Catalogue:
    """The second part with the interactions of both, the first part's before."""
    log = pd.concat([first.interactions, with_given(second)], ignore_index=True)
    return replace(second, interactions=log)


def less(part: Catalogue, items: Collection[str]) -> Catalogue:
    """The catalogue without these items and what was done with them."""
    return replace(
        part,
        items=part.items.loc[~part.items["item_id"].isin(list(items))].reset_index(drop=True),
        interactions=part.interactions.loc[~part.interactions["item_id"].isin(list(items))].reset_index(drop=True),
    )


def with_given(part: Catalogue) -> pd.DataFrame:
    """A part's interactions after the histories of its people."""
    given = None if part.part is None else part.part.given
    return part.interactions if given is None else pd.concat([given, part.interactions], ignore_index=True)
