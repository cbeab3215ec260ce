"""From clips to a store: decoding in killable workers, preprocessing, frozen backbones."""

from .backbones import BACKBONES, Backbone, load_backbone
from .forward import embed
from .importing import Given, import_features
from .pipeline import Extraction, extract_clips
from .planning import Plan, plan_extraction
from .rules import RULES, Rule, with_rule
from .sampling import Sampling
from .sources import Source, open_source
from .workers import started_workers

__all__ = [
    "BACKBONES",
    "RULES",
    "Backbone",
    "Extraction",
    "Given",
    "Plan",
    "Rule",
    "Sampling",
    "Source",
    "embed",
    "extract_clips",
    "import_features",
    "load_backbone",
    "open_source",
    "plan_extraction",
    "started_workers",
    "with_rule",
]
