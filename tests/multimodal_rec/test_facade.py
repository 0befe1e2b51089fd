"""The one import that a user needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import multimodal_rec
from multimodal_rec import errors


def test_every_name_is_there_under_its_own_name() -> None:
    assert len(set(multimodal_rec.__all__)) == len(multimodal_rec.__all__)
    for name in multimodal_rec.__all__:
        found = getattr(multimodal_rec, name)
        assert found.__name__ == name
        assert found.__module__.startswith("multimodal_rec.")
    assert dir(multimodal_rec) == sorted(multimodal_rec.__all__)


def test_every_error_is_exported() -> None:
    raised = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.MultimodalRecError)
    }
    assert raised <= set(multimodal_rec.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'multimodal_rec' has no attribute 'Recomender'"):
        multimodal_rec.Recomender  # noqa: B018


def test_importing_is_light() -> None:
    code = (
        "import sys, multimodal_rec\n"
        "multimodal_rec.ConfigError, multimodal_rec.RecommenderConfig\n"
        "print({'torch', 'transformers', 'timm', 'pandas', 'lancedb', 'av'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stderr


def test_a_star_brings_everything() -> None:
    names: dict[str, object] = {}
    exec("from multimodal_rec import *", names)
    assert set(multimodal_rec.__all__) <= set(names)
