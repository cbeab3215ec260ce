"""From clips to a store: decoding in killable workers, preprocessing, frozen backbones."""

from .backbones import BACKBONES, Backbone, load_backbone
from .forward import embed
from .pipeline import Extraction, extract_clips
from .planning import Plan, Slice, parse_slice, plan_extraction
from .sampling import Sampling

__all__ = [
    "BACKBONES",
    "Backbone",
    "Extraction",
    "Plan",
    "Sampling",
    "Slice",
    "embed",
    "extract_clips",
    "load_backbone",
    "parse_slice",
    "plan_extraction",
]
