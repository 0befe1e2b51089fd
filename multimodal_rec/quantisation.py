"""A trained model whose towers hold int8 weights."""

from __future__ import annotations

import copy
from dataclasses import replace

from multimodal_rec.errors import ConfigError
from multimodal_rec.trained import Trained


def quantised(trained: Trained) -> Trained:
    """The same model, but that the linear layers of its towers' backbones have int8 weights; `trained` stays as it is.

    Projections, fusion, scores and the profile tower keep their precision. Fingerprints of what has changed differ, so
    that its items are rows of their own. Raises `ConfigError` where no backbone has a linear layer that is not int8.
    """
    for name in trained.model.towers:
        trained.model.tower(name).wake_backbone()
    model = copy.deepcopy(trained.model)
    if model.use_int8() == 0:
        nets = ", ".join(f"{name}: {type(model.tower(name).backbone.net).__name__}" for name in model.towers)
        raise ConfigError(
            f"no tower has a linear layer that could take int8 weights ({nets}). Expected a transformer, such as "
            "BERT, ViT or wav2vec 2.0, that is not quantised yet. Keep this recommender as it is."
        )
    return replace(trained, model=model.eval(), int8=True)
