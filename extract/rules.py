"""Which frames a benchmark's published features were made of, and how large those were."""

from dataclasses import dataclass, replace

from ..errors import LongreelError, unknown
from .sampling import Sampling


@dataclass(frozen=True)
class Rule:
    """What fixes features besides the backbone; ``None`` leaves the backbone's own."""

    sampling: Sampling | None = None
    short_side: int | None = None  #: of the resized frame, in pixels.
    crop: int | None = None  #: side of the square that is cut out of its centre, in pixels.

    def __str__(self) -> str:
        cut = "the model's own size" if self.crop is None else f"{self.crop}x{self.crop}"
        side = "the model's own short side" if self.short_side is None else f"short side {self.short_side}"
        return f"{self.sampling}, {side}, centre crop of {cut}"


#: Rules as their authors state them; docs/backbones.md says where they leave something open or we differ.
RULES: dict[str, Rule] = {
    # Zhang et al., "VideoLT", ICCV 2021, section 5.1, which leaves open how large the crop is.
    "videolt": Rule(Sampling(fps=1.0, at_most=150), short_side=256),
    # Moon et al., "MOVE", AAAI 2023: the released extraction for Imbalanced-MiniKinetics200.
    "minikinetics200": Rule(Sampling(frames=150), short_side=256, crop=224),
    # Gatti et al., "Gen2Balance", ECCV 2026: every fourth frame of the file, which is 7.5 a second at 30.
    "gen2balance": Rule(Sampling(fps=7.5), short_side=224, crop=224),
    # Perrett et al., "Use Your Head", CVPR 2023: a frame of each of 16 segments; the short side is not stated.
    "ssv2-lt": Rule(Sampling(frames=16), crop=224),
    # The few-shot and base-to-novel lists of TC-CLIP and ViFi-CLIP: 16 frames of the whole clip.
    "few-shot": Rule(Sampling(frames=16), short_side=224, crop=224),
}


def with_rule(name: str | None, given: Rule) -> Rule:
    """What a rule fixes, filled up with what was given; without a rule, what was given.

    Raises:
        LongreelError: When there is no such rule, or something is given that it fixes.
    """
    if name is None:
        return given
    if name not in RULES:
        raise unknown("rule", name, RULES)
    rule = RULES[name]
    options = {"sampling": "--fps, --frames and --max-frames", "short_side": "--short-side", "crop": "--crop"}
    left = {field: getattr(given, field) for field in options if getattr(rule, field) is None}
    if twice := [options[field] for field in options if field not in left and getattr(given, field) is not None]:
        raise LongreelError(f"--rule {name} means {rule}. Leave out {' and '.join(twice)}, or the rule.")
    return replace(rule, **left)
