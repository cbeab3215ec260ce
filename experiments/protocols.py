"""Benchmarks as their authors fixed them: lists, groups, training, choice of the epoch, and the counts to be met."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..errors import LongreelError, unknown
from .optimisation import FitSettings


@dataclass(frozen=True)
class Published:
    """What a manifest of the protocol must count."""

    clips: Mapping[str, int]  #: split -> clips.
    groups: Mapping[str, int]  #: group -> classes, the richest first.
    labels: Mapping[str, int] = field(default_factory=dict)  #: split -> labels of all its clips, where they are stated.

    @property
    def classes(self) -> int:
        return sum(self.groups.values())


@dataclass(frozen=True)
class Protocol:
    """A benchmark's fixed rules."""

    source: str
    #: split -> file in the lists folder, with ``{ratio}`` and the like for the option's value.
    lists: Mapping[str, str]
    names: str | None  #: file with the names of the classes; ``None`` where the lists are all there is.
    published: Mapping[float | None, Published]  #: value of the option -> counts; ``None`` where there is no option.
    groups: str  #: a rule or bounds of ``make_groups``, or a JSON file in the lists folder.
    metrics: tuple[str, ...]
    selection: str
    backbones: tuple[str, ...]
    extraction: str
    option: str | None = None  #: what has to be chosen: one of the keys of ``published``.
    multi_label: bool = False
    path: str = "{id}"  #: where a clip's video lies, unless the user says otherwise.
    counts: str | None = None  #: file with each class's training clips, which the lists are checked by.
    recording: str = "(.+)"  #: the group of this pattern in a clip's id names its recording; none is in two splits.
    shape: str | None = None  #: how the training list is thinned, a name of ``SHAPES`` with options.
    keep: str = "drawn"  #: which clips the thinning leaves: ``drawn`` or ``first``.
    balance: str = "ce"  #: the published baseline's balance method.
    #: ``None`` where the papers train end to end: nothing of it fits a head on features.
    fit: FitSettings | None = None
    standardise: bool = True  #: longreel's way; false where the paper's heads see the features as they are.
    watermark: str | None = None  #: stands on every table of this protocol.
    notes: tuple[str, ...] = ()  #: where a manifest or a run departs from what was published.


FRAMESTACK = "Zhang et al., VideoLT, ICCV 2021; lists: github 17Skye17/VideoLT, labels"
MOVE = "Moon et al., MOVE, AAAI 2023; lists: github wjun0830/MOVE, Imbalanced-MiniKinetics200/data"
GEN2BALANCE = "Gatti et al., Gen2Balance, ECCV 2026; lists: github prajwalgatti/Gen2Balance, data/annotations"
TC_CLIP = "the CLIP papers' few shots and base classes; lists: github naver-ai/tc-clip"
LMR = "Perrett et al., Use Your Head, CVPR 2023, for the shape alone; lists: Something-Something V2, its labels"

BEST, LAST = "best val map", "last epoch"
RESNETS = ("microsoft/resnet-50", "microsoft/resnet-101")
VIDEO_LEVEL = FitSettings(
    epochs=100,
    batch_size=128,
    optimiser="adam",
    learning_rate=1e-4,
    weight_decay=0.0,
    schedule="steps:30,60",
    clip_norm=20.0,
    frames=60,
    test_frames=150,
)
LAST_BLOCK = FitSettings(epochs=100, batch_size=84, learning_rate=5e-3 * 84 / 256, weight_decay=0.05)  # AdamW, cosine
ONE_A_SECOND = (
    "1 frame a second, resized to 256, the centre cropped, at most 150 frames spread evenly; not stated: whether 256 "
    "is the short side, and the size of the crop"
)
SIXTEEN = "16 frames with a stride of 4, 224 x 224; the test averages 5 segments x 3 crops"
ON_TEST = "the published tables choose the epoch on the test list"
WEIGHTS = "the published features are of torchvision's first ResNet weights, not of the hub's"
FULL_TUNING = "the papers train the backbone too; their figures are not those of a head on fixed features"
WARM_UP = "the paper trains VideoMAE's last block, with warm-up and layer decay; a head on fixed features has neither"
OTHER_TESTS = "val2.txt and val3.txt hold training clips of these lists, so val1.txt is the only test"
NOVEL = "novel classes have no training clip and need a head that reads names: novel_val.txt is left out"


def _videolt(
    lists: dict[str, str], clips: dict[str, int], labels: dict[str, int], fit: FitSettings = VIDEO_LEVEL, **rules
) -> Protocol:
    return Protocol(
        FRAMESTACK,
        lists,
        names="count-labels-train.lst",
        published={None: Published(clips, {"head": 47, "medium": 617, "tail": 340}, labels)},
        groups="videolt",
        metrics=("map", "acc1", "acc5"),
        backbones=(*RESNETS, "TSM ResNet-50"),
        extraction=ONE_A_SECOND,
        multi_label=True,
        path="{id}.mp4",
        counts="count-labels-train.lst",
        balance="bce",
        fit=fit,
        standardise=False,
        **rules,
    )


def _minikinetics(published: dict[float | None, Published], **rules) -> Protocol:
    return Protocol(
        MOVE,
        {"train": "train.lst", "test": "val.lst"},
        names=None,
        published=published,
        groups="minikinetics",
        metrics=("map", "acc1"),
        selection=LAST,
        backbones=RESNETS,
        extraction="150 frames spread evenly over all of a clip, short side 256, the centre cropped to 224",
        path="{id}.mp4",
        recording=r"(.+)_\d+_\d+",
        balance="bce",
        fit=VIDEO_LEVEL,
        standardise=False,
        **rules,
    )


def _gen2balance(published: Published, *notes: str, **rules) -> Protocol:
    return Protocol(
        GEN2BALANCE,
        {"train": "real/train.csv", "test": "real/test.csv"},
        names="misc/label_id_to_label.json",
        published={None: published},
        metrics=("class_average",),
        selection=LAST,
        backbones=("MCG-NJU/videomae-base",),
        extraction=SIXTEEN,
        counts="real/train_freq.json",
        fit=LAST_BLOCK,
        notes=(WARM_UP, *notes),
        **rules,
    )


def _clip_task(train: str, test: str, names: str, option: str, published: dict, *notes: str) -> Protocol:
    return Protocol(
        TC_CLIP,
        {"train": f"datasets_splits/{train}", "test": f"datasets_splits/{test}"},
        names=f"labels/{names}",
        published=published,
        groups="gen2balance",
        metrics=("acc1",),
        selection=LAST,
        backbones=("openai/clip-vit-base-patch16",),
        extraction="not stated in the lists",
        option=option,
        recording=r"v_(.+)_c\d+\.\w+",
        notes=(FULL_TUNING, *notes),
    )


def _few(shots: int, classes: int, tested: int) -> Published:
    return Published({"train": shots * classes, "test": tested}, {"head": 0, "tail": 0, "few": classes})


#: name -> rules. Every count was counted in the lists.
PROTOCOLS: dict[str, Protocol] = {
    "videolt": _videolt(
        {"train": "train.lst", "val": "validate.lst", "test": "test.lst"},
        {"train": 179334, "val": 25619, "test": 51239},
        {"train": 196798, "val": 28165, "test": 56170},
        selection=BEST,
        notes=(ON_TEST,),
    ),
    "videolt-paper": _videolt(
        {"train": "train.lst", "val": "test.lst"},
        {"train": 179334, "val": 51239},
        {"train": 196798, "val": 56170},
        replace(VIDEO_LEVEL, validate_every=5),
        selection="best map on the test list",
        watermark="the epoch was chosen on the test list, as for the published tables: no estimate of new videos",
        notes=("val holds the test list, and validate.lst is left out: evaluate --split val gives the paper's figure",),
    ),
    "minikinetics200": _minikinetics(
        {None: Published({"train": 64846, "test": 4999}, {"head": 120, "medium": 80, "tail": 0})},
        notes=("all training clips, for `longreel protocol tail`: no published setting", WEIGHTS),
    ),
    "minikinetics200-lt": _minikinetics(
        {
            0.01: Published({"train": 17170, "test": 4999}, {"head": 13, "medium": 86, "tail": 101}),
            0.02: Published({"train": 19995, "test": 4999}, {"head": 15, "medium": 101, "tail": 84}),
            0.05: Published({"train": 25287, "test": 4999}, {"head": 19, "medium": 133, "tail": 48}),
            0.1: Published({"train": 31152, "test": 4999}, {"head": 25, "medium": 172, "tail": 3}),
        },
        option="ratio",
        shape="exponential:factor={ratio},maximum=399",
        keep="first",
        notes=(
            ON_TEST,
            WEIGHTS,
            "equally large classes are ranked by their number; the released code leaves their order to chance",
        ),
    ),
    "k100-lt": _gen2balance(
        Published({"train": 14439, "test": 4952}, {"head": 11, "tail": 59, "few": 30}),
        groups="gen2balance",
        recording=r".*/(.+)\.mp4",
    ),
    "ucf-lt": _gen2balance(
        Published({"train": 3026, "test": 3783}, {"head": 18, "tail": 28, "few": 55}),
        groups="gen2balance",
        recording=r".*/v_(.+)_c\d+\.mp4",
    ),
    "rareact": _gen2balance(
        Published({"train": 14549, "test": 5605}, {"head": 11, "tail": 59, "fewshot": 30, "rareact": 22}),
        "RareAct's numbers do not tell which of its clips are of one video",
        groups="misc/lt_mapping.json",
        recording=r"(?:Kinetics-400|RareAct)/\w+/(.+)\.mp4",
    ),
    "ssv2-lt": Protocol(
        LMR,
        {"train": "something-something-v2-train.json", "test": "something-something-v2-validation.json"},
        names="something-something-v2-labels.json",
        published={None: Published({"train": 50418}, {">1205": 14, "21-1205": 103, "<=20": 57})},
        groups="20,1205",
        metrics=("class_average",),
        selection=LAST,
        backbones=("Motionformer 224_16x4",),
        extraction="16 segments of a video, one frame of each, 224 x 224; the test averages 10 x 3 views",
        path="{id}.webm",
        shape="lomax:alpha=6,minimum=5,maximum=2500,scale=118.6",
        notes=(
            FULL_TUNING,
            "of the published shape, but not of its clips, its class order or its test list, which are not public here",
        ),
    ),
    "hmdb51-few-shot": _clip_task(
        "hmdb_splits/train1_few_shot_{shots}.txt",
        "hmdb_splits/val1.txt",
        "hmdb_51_labels.csv",
        "shots",
        {shots: _few(shots, 51, 1530) for shots in (2, 4, 8, 16)},
        OTHER_TESTS,
    ),
    "ucf101-few-shot": _clip_task(
        "ucf_splits/train1_few_shot_{shots}.txt",
        "ucf_splits/val1.txt",
        "ucf_101_labels.csv",
        "shots",
        {shots: _few(shots, 101, 3783) for shots in (2, 4, 8, 16)},
        OTHER_TESTS,
    ),
    "hmdb51-base": _clip_task(
        "base2novel_splits/hmdb_splits/fs_base_s{draw}_train.txt",
        "base2novel_splits/hmdb_splits/base_val.txt",
        "hmdb_51_base_labels.csv",
        "draw",
        {draw: _few(16, 26, 780) for draw in (1, 2, 3)},
        NOVEL,
    ),
    "ucf101-base": _clip_task(
        "base2novel_splits/ucf_splits/fs_base_s{draw}_train.txt",
        "base2novel_splits/ucf_splits/base_val.txt",
        "ucf_101_base_labels.csv",
        "draw",
        {draw: _few(16, 51, 2088) for draw in (1, 2, 3)},
        NOVEL,
    ),
}


def choose_protocol(name: str, options: Mapping[str, float | None]) -> tuple[Protocol, float | None]:
    """A protocol and the value of its option, as ``published`` has it.

    Args:
        name: A key of ``PROTOCOLS``.
        options: Name -> value of every option there is; ``None`` where it was not given.

    Raises:
        LongreelError: When there is no such protocol, or its option is missing, not its own, or of another value.
    """
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    protocol = PROTOCOLS[name]
    given = {option: value for option, value in options.items() if value is not None}
    if other := sorted(given.keys() - {protocol.option}):
        has = f"its option is --{protocol.option}" if protocol.option else "it has no option of this kind"
        raise LongreelError(f"protocol {name} knows no --{other[0]}: {has}. Leave --{other[0]} out.")
    if protocol.option is None:
        return protocol, None
    values = ", ".join(f"{value:g}" for value in protocol.published if value is not None)
    if protocol.option not in given:
        raise LongreelError(f"protocol {name} comes in several forms. Give --{protocol.option}, one of: {values}.")
    for value in protocol.published:
        if value == given[protocol.option]:
            return protocol, value
    raise LongreelError(
        f"protocol {name} has no --{protocol.option} {given[protocol.option]:g}. Give one of: {values}."
    )
