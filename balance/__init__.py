"""What is done about the long tail: class counts and groups, and the balance methods."""

from .adjustments import ADJUSTMENTS, Adjustment
from .counts import Groups, count_training_clips, make_groups
from .curricula import CURRICULA
from .losses import LOSSES, Loss
from .methods import METHODS, MIXERS, SKELETON_MIXERS, Method, Parts, Stage, build_stage, choose_method
from .mixing import Batch, Known, Mixer
from .samplers import SAMPLERS, Sampler
from .trust import TRUSTS, Trust, Trusted

__all__ = [
    "ADJUSTMENTS",
    "CURRICULA",
    "LOSSES",
    "METHODS",
    "MIXERS",
    "SAMPLERS",
    "SKELETON_MIXERS",
    "TRUSTS",
    "Adjustment",
    "Batch",
    "Groups",
    "Known",
    "Loss",
    "Method",
    "Mixer",
    "Parts",
    "Sampler",
    "Stage",
    "Trust",
    "Trusted",
    "build_stage",
    "choose_method",
    "count_training_clips",
    "make_groups",
]
