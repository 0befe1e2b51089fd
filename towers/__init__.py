"""One modality in, one embedding out. Knows nothing of recommenders."""

from towers.backbone import Backbone
from towers.inputs import Frames, Sound
from towers.layers import recompute_blocks
from towers.names import MODALITY_OF_PREFIX, BackboneOptions, build_backbone, split_name
from towers.tower import Tower, TowerBatch
from towers.tuning import ADAPTERS, TUNINGS, apply_tuning
from towers.vectors import VectorStatistics, chosen_columns

__all__ = [
    "ADAPTERS",
    "MODALITY_OF_PREFIX",
    "TUNINGS",
    "Backbone",
    "BackboneOptions",
    "Frames",
    "Sound",
    "Tower",
    "TowerBatch",
    "VectorStatistics",
    "apply_tuning",
    "build_backbone",
    "chosen_columns",
    "recompute_blocks",
    "split_name",
]
