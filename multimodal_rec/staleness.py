"""Items that another model embedded: told apart from those that nobody knows, and kept out of releases."""

from __future__ import annotations

from collections.abc import Sequence

from multimodal_rec.errors import StoreError, UnknownIdError
from multimodal_rec.store import ItemStore

_NAMED = 5


def not_embedded(missing: Sequence[str], num_asked: int, store: ItemStore, *, model: str) -> UnknownIdError:
    """The error for items that a model has no rows of; it says so where other models' rows are there."""
    first, stale = missing[0], set(store.stale(model))
    num_stale = sum(item_id in stale for item_id in missing)
    why = f"item '{first}' is not embedded"
    if first in stale:
        why = f"item '{first}' is stale: another model embedded it, and this one ('{model}') did not"
    counted = f"({len(missing)} of {num_asked} asked for are not{f', {num_stale} of them stale' if num_stale else ''})"
    return UnknownIdError(
        f"{why} {counted}. Expected ids of this model's rows in the store. Embed them first, or pass on_unknown='skip'."
    )


def check_served(store: ItemStore, *, model: str) -> None:
    """Raise `StoreError` where a release was opened that has no row of this model, and name the models it has."""
    if store.release is not None and model not in store.models:
        raise StoreError(
            f"release '{store.release}' holds no item of this model ('{model}'). It holds {_models(store)}. Load that "
            "model, open another release, or publish one with this model's items."
        )


def check_complete(store: ItemStore, *, model: str, partial: bool) -> None:
    """Raise `StoreError` where a model has no row at all, or not one of every item that other models have.

    `partial`: only the first.
    """
    if model not in store.models:
        raise StoreError(
            f"the store holds no item of this model ('{model}'). It holds {_models(store)}. Embed the items first."
        )
    stale = [] if partial else store.stale(model)
    if stale:
        named = ", ".join(map(repr, stale[:_NAMED])) + (" ..." if len(stale) > _NAMED else "")
        raise StoreError(
            f"{len(stale)} items are stale: other models embedded them, and this one ('{model}') did not: {named}. "
            "Expected every item of the store. Embed them, delete them, or publish with partial=True."
        )


def _models(store: ItemStore) -> str:
    return ", ".join(f"{count} of model '{name}'" for name, count in store.models.items()) or "nothing"
