"""Balance methods: which clips are drawn, what is mixed and which loss counts, in one stage or several.

A method is plain text, so that a run can write it down; ``build_stage`` makes its parts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..errors import LongreelError, unknown
from ..parts import add_option, build_part, options_of
from .adjustments import ADJUSTMENTS
from .curricula import CURRICULA
from .framestack import FrameStack
from .lmr import MixedReconstruction
from .losses import LOSSES, Loss
from .mixing import Mixer, NoMixing
from .mixup import Mixup
from .move import Move
from .samplers import SAMPLERS, Sampler
from .skeletons import Exploration, partial_mixup, temporal_reverse

#: mixer -> how it is made.
MIXERS: dict[str, Callable[..., Mixer]] = {
    "none": NoMixing,
    "mixup": Mixup,
    "framestack": FrameStack,
    "move": Move,
    "lmr": MixedReconstruction,
}
#: mixer of skeletons, for their heads -> how it is made.
SKELETON_MIXERS: dict[str, Callable[..., Mixer]] = {
    "partial-mixup": partial_mixup,
    "temporal-reverse": temporal_reverse,
    "exploration": Exploration,
}


@dataclass(frozen=True)
class Stage:
    """A part of a training. Loss, sampler and mixer are a name, and options behind a colon: ``focal:gamma=2``."""

    loss: str = "ce"
    sampler: str = "instance"
    mixer: str = "none"
    until: float = 1.0  #: share of all epochs at which it ends.
    output_only: bool = False  #: the head's last layer is drawn anew and trained alone, the rest stays as chosen.
    clips: str = "all"  #: of the training clips: ``all``, ``real`` or ``generated``.
    rate: float = 1.0  #: what the learning rate is multiplied with.
    restart: bool = False  #: begins from the chosen epoch, with a new optimiser and a schedule of its own.


@dataclass(frozen=True)
class Method:
    """Stages one after another, and what is done to the last layer of the chosen head."""

    stages: tuple[Stage, ...]
    adjustment: str | None = None


@dataclass(frozen=True)
class Parts:
    """What a stage is made of."""

    loss: Loss
    sampler: Sampler
    mixer: Mixer


def _method(loss: str, sampler: str = "instance", mixer: str = "none", adjustment: str | None = None) -> Method:
    return Method((Stage(loss, sampler, mixer),), adjustment)


def _deferred(loss: str, later: str) -> Method:
    return Method((Stage(loss, until=0.5), Stage(later)))


def _retrained(loss: str, sampler: str, mixer: str = "none") -> Method:
    return Method((Stage(loss, until=0.75), Stage(loss, sampler, mixer, output_only=True)))


def _detached(sampler: str = "tail-repetition", mixer: str = "partial-mixup", later: str = "action-aware") -> Method:
    """BRL as its code trains, without a reverse: the weights of the classes count in the last 5 of 24 epochs."""
    return Method((Stage("ce", sampler, mixer, until=19 / 24), Stage(later, sampler, mixer)))


#: name -> method. Numbers are the papers'; docs/methods.md has sources and differences.
METHODS: dict[str, Method] = {
    "ce": _method("ce"),
    "bce": _method("bce"),
    "focal": _method("focal"),
    "balanced-softmax": _method("balanced-softmax"),
    "logit-adjusted": _method("logit-adjusted"),
    "post-hoc-adjusted": _method("ce", adjustment="logit-adjustment"),
    "class-balanced-loss": _method("class-balanced"),
    "ldam-drw": _deferred("ldam", "ldam:weights=class-balanced"),
    "ldam-drw-softmax": _deferred("ldam:form=ce", "ldam:form=ce,weights=class-balanced"),
    "eql": _method("eql:gamma=0.9"),  # clips have no background, so with gamma 1 nothing lowers a spared class
    "class-balanced-sampling": _method("bce", "class-balanced"),
    "square-root-sampling": _method("bce", "square-root"),
    "tail-repetition": _method("ce", "tail-repetition"),
    "mixup": _method("bce", mixer="mixup"),
    "framestack": _method("focal", mixer="framestack"),
    "move": _method("bce", mixer="move"),
    "crt": _retrained("ce", "class-balanced"),
    "tau-norm": _method("ce", adjustment="tau-norm"),
    "lmr": _retrained("ce", "class-balanced", "lmr"),
    "partial-mixup": _method("ce", mixer="partial-mixup"),
    "temporal-reverse": _method("ce", mixer="temporal-reverse"),
    "action-aware-deferred": _detached("instance", "none"),
    "brl": _detached(),
    "brl-reverse": _detached(mixer="exploration"),
    "brl-tail-reverse": _detached(mixer="exploration:tail_weighted=true"),
    "brl-no-mixup": _detached(mixer="none"),
    "brl-no-resampling": _detached("instance"),
    "brl-no-action-aware": _method("ce", "tail-repetition", "partial-mixup"),
}


def choose_method(
    name: str,
    counts: Sequence[int],
    *,
    loss: str | None = None,
    sampler: str | None = None,
    mixer: str | None = None,
    adjustment: str | None = None,
    released: bool = False,
    curriculum: str = "joint",
) -> Method:
    """The method of that name, for classes with so many real training clips.

    Args:
        name: A key of ``METHODS``.
        counts: Real training clips of each class.
        loss, sampler, mixer: Used in every stage in place of the method's own.
        adjustment: Of the last layer, in place of the method's own.
        released: Follow the authors' code, not the paper, in every part that knows the difference.
        curriculum: Which of the real and generated clips it learns from, and when: a name of ``CURRICULA``.

    Raises:
        LongreelError: When a name or option is not known, a loss needs a prior and a class has no real clip, or a
            method of several stages is given a curriculum of several.
    """
    if name not in METHODS:
        raise unknown("balance method", name, METHODS)
    given = {key: text for key, text in {"loss": loss, "sampler": sampler, "mixer": mixer}.items() if text is not None}
    method = METHODS[name]
    stages = [replace(stage, **given) for stage in method.stages]
    stages = list(map(_as_released, stages)) if released else stages
    method = replace(method, stages=_follow(name, stages, curriculum))
    if adjustment is not None:
        method = replace(method, adjustment=adjustment)
    need_prior = [build_stage(stage).loss.needs_prior for stage in method.stages]
    if method.adjustment is not None:
        need_prior.append(build_part("adjustment", ADJUSTMENTS, method.adjustment).needs_prior)
    if any(need_prior) and min(counts) == 0:
        raise LongreelError(
            f"{name} needs real training clips of every class: its prior counts nothing else, generated ones have no "
            f"part in it. For classes without any take a loss that has no prior, such as --balance ce."
        )
    return method


def _follow(name: str, stages: Sequence[Stage], curriculum: str) -> tuple[Stage, ...]:
    """The stages of a method with those of a curriculum: one of the two has a single one."""
    lessons = build_part("curriculum", CURRICULA, curriculum)
    if len(lessons) == 1:
        return tuple(replace(stage, clips=lessons[0].clips) for stage in stages)
    if len(stages) > 1:
        raise LongreelError(
            f"{name} has {len(stages)} stages of its own, so it cannot follow the {len(lessons)} of {curriculum}. "
            f"Take joint, real or generated, or a method of one stage."
        )
    return tuple(
        replace(stages[0], clips=lesson.clips, until=lesson.until, rate=lesson.rate, restart=number > 0)
        for number, lesson in enumerate(lessons)
    )


def _as_released(stage: Stage) -> Stage:
    """The stage with ``released=true`` in each part that has the option."""
    kinds = {"loss": LOSSES, "sampler": SAMPLERS, "mixer": MIXERS | SKELETON_MIXERS}
    texts = {key: getattr(stage, key) for key in kinds}
    for key, text in texts.items():
        kind = kinds[key].get(text.partition(":")[0])
        if kind is not None and "released" in options_of(kind):
            texts[key] = add_option(text, "released=true")
    return replace(stage, **texts)


def build_stage(stage: Stage) -> Parts:
    """Make a stage's loss, sampler and mixer.

    Raises:
        LongreelError: When a name or option is not known.
    """
    return Parts(
        build_part("loss", LOSSES, stage.loss),
        build_part("sampler", SAMPLERS, stage.sampler),
        build_part("mixer", MIXERS | SKELETON_MIXERS, stage.mixer),
    )
