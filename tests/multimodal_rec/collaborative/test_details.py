"""Further features of attributes: where a number lies, how many tags there are, what lacks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from multimodal_rec.collaborative.details import NUM_BUMPS, AttributeDetails
from multimodal_rec.fields import FieldEncoder

SPEC = {"genre": "category", "year": "number", "cast": "tags", "hour": "cyclic:24"}


def encoded(items: pd.DataFrame, encoder: FieldEncoder | None = None) -> tuple[FieldEncoder, torch.Tensor]:
    encoder = FieldEncoder.fit(items, SPEC) if encoder is None else encoder
    return encoder, torch.from_numpy(encoder.transform(items))


def films() -> pd.DataFrame:
    years = [1930 + year for year in range(1, 71)]
    return pd.DataFrame(
        {
            "genre": ["drama", "comedy"] * 35,
            "year": years,
            "cast": ["a|b|c", "d"] * 35,
            "hour": [8.0] * 70,
        }
    )


def test_a_number_is_high_on_the_bumps_near_it_and_neighbours_overlap() -> None:
    encoder, attributes = encoded(films())
    details = AttributeDetails.of(encoder, attributes)
    found = details(attributes)
    assert found.shape == (70, details.width)
    # genre: lacking; year: lacking and bumps; cast: lacking and how many; hour: lacking.
    assert details.width == 1 + (1 + NUM_BUMPS) + 2 + 1
    bumps = found[:, 2 : 2 + NUM_BUMPS]
    assert bumps.argmax(dim=1).diff().min() >= 0
    assert bumps[0].argmax() == 0
    assert bumps[-1].argmax() == NUM_BUMPS - 1
    assert bumps.max(dim=1).values.min() > 0.8
    assert bumps.sum(dim=1)[10:60].std() < 0.1
    new = encoded(pd.DataFrame({"year": [2300]}), encoder)[1]
    assert details(new)[0, 2 : 2 + NUM_BUMPS].max() < 0.5


def test_tags_are_counted_and_what_lacks_is_told() -> None:
    encoder, attributes = encoded(films())
    details = AttributeDetails.of(encoder, attributes)
    count = 2 + NUM_BUMPS + 1
    np.testing.assert_allclose(details(attributes)[:2, count], np.log1p([3, 1]), rtol=1e-6)
    assert details(attributes)[0, [0, 1, count - 1, -1]].tolist() == [0, 0, 0, 0]
    nothing = details(torch.zeros(1, encoder.width))
    assert nothing[0, [0, 1, count - 1, -1]].tolist() == [1, 1, 1, 1]
    assert nothing.sum() == 4


def test_no_attributes_have_no_details() -> None:
    encoder = FieldEncoder()
    details = AttributeDetails.of(encoder, torch.zeros(3, 1))
    assert details(torch.zeros(3, 1)).shape == (3, 0)
    assert details.width == 0


def test_curves_are_told_by_their_column_and_nothing_where_there_is_no_number() -> None:
    frame = pd.DataFrame(
        {"genre": ["a"] * 20, "year": range(1950, 1970), "price": [None, *(step**2 for step in range(19))]}
    )
    encoder = FieldEncoder.fit(frame, {"year": "number", "genre": "category", "price": "number"})
    attributes = torch.from_numpy(encoder.transform(frame))
    details = AttributeDetails.of(encoder, attributes)
    curves = details.curves(attributes)
    assert tuple(curves) == details.numbers == ("year", "price")
    # Lacking, then the curves, of each column; the category in between has no curves.
    assert torch.equal(details(attributes)[:, 1 : 1 + NUM_BUMPS], curves["year"])
    assert torch.equal(details(attributes)[:, 3 + NUM_BUMPS :], curves["price"])
    assert curves["price"].any(dim=1).tolist() == [False, *[True] * 19]
