"""All of a run that is settled before it is trained: its clips, its method, its head."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..balance import Method, count_training_clips, make_groups
from ..errors import LongreelError, ManifestError
from ..generate.plan import read_fill
from ..heads import Standardised, build_head
from ..manifest import Manifest, read_manifest
from ..store import FeatureStore
from .choices import check_choices
from .clips import CPU, ClipSet, load_clips
from .learnt import Learnt, check_generated, choose_clips
from .runs import resolve_config, store_digest, store_layout
from .settings import TrainSettings

PREPARED_ROWS = 16384  #: training rows that a head may look at before it is trained.


@dataclass(frozen=True)
class Given:
    """What is known before features are read."""

    manifest: Manifest
    store: FeatureStore
    counts: list[int]  #: real training clips of each class.
    digest: str  #: of the features that training can see.


@dataclass(frozen=True)
class Chosen:
    """What a member's settings come to."""

    config: dict
    method: Method
    fill: int | None

    @property
    def scale(self) -> str:
        """By which training clips rows are standardised: the real ones, where it learns from any."""
        return "generated" if all(stage.clips == "generated" for stage in self.method.stages) else "real"


@dataclass(frozen=True)
class Data:
    """What all members learn from."""

    given: Given
    train: ClipSet
    val: ClipSet | None

    @property
    def counts(self) -> Tensor:
        """``(C,)``: real training clips of each class."""
        return torch.tensor(self.given.counts, dtype=torch.float32)


@dataclass(frozen=True)
class Ready:
    """A member before it is trained; nothing has been written yet."""

    config: dict
    method: Method
    head: Standardised
    learnt: Learnt


def open_data(settings: TrainSettings) -> Given:
    """Read the manifest and open the store.

    Raises:
        ManifestError: When there are no training clips.
    """
    manifest = read_manifest(settings.manifest, settings.root)
    if not manifest.split("train"):
        raise ManifestError(f"{settings.manifest}: has no training clips. Give some rows the split train.")
    store = FeatureStore(settings.store)
    return Given(manifest, store, count_training_clips(manifest), store_digest(store, manifest))


def choose(settings: TrainSettings, given: Given, device: torch.device = CPU) -> Chosen:
    """Resolve a member's settings.

    Raises:
        LongreelError: When head, method, groups or clips cannot be used.
    """
    groups = make_groups(settings.groups, given.manifest.classes, given.counts)
    method = check_choices(settings, given.counts, given.store.spec)
    config = resolve_config(settings, given.manifest, given.store, given.digest)
    if device.type != "cpu":
        config |= {"device": device.type}  # whose bits the result has; none is said of the CPU, as earlier runs have it
    config |= {"groups": asdict(groups), "counts": given.counts, "method": json.loads(json.dumps(asdict(method)))}
    return Chosen(config, method, None if settings.fill is None else read_fill(settings.fill, given.counts))


def read_data(settings: TrainSettings, given: Given, place: str, device: torch.device, kinds: Collection[str]) -> Data:
    """Read the features of train and val, and the scales of those kinds of training clips.

    Raises:
        StoreMismatch: When clips of the manifest were never extracted.
        LongreelError: When failed clips leave nothing to train or to select on.
    """
    train = load_clips(given.store, given.manifest, "train", place, device, kinds)
    val = load_clips(given.store, given.manifest, "val", place, device) if given.manifest.split("val") else None
    _check_trainable(settings, given.manifest, train, val)
    return Data(given, train, val)


def _check_trainable(settings: TrainSettings, manifest: Manifest, train: ClipSet, val: ClipSet | None) -> None:
    """Refuse what failed clips have made untrainable."""
    advice = f"See `longreel store info {settings.store}`."
    found = train.targets.sum(dim=0) if len(train) else torch.zeros(len(manifest.classes))
    if missing := [name for name, clips in zip(manifest.classes, found, strict=True) if clips == 0]:
        raise LongreelError(f"class {missing[0]!r} has no training clip left, all of them failed. {advice}")
    if val is not None and len(val) == 0:
        raise LongreelError(f"all {len(val.failed)} val clips failed, so no epoch can be selected. {advice}")


def prepare(settings: TrainSettings, chosen: Chosen, data: Data) -> Ready:
    """Make a member's head, and settle which clips it learns from.

    Raises:
        LongreelError: When it would learn from no clip at all, or trusts in what the manifest does not say.
    """
    seed, (mean, deviation) = settings.fit.seed, (each.clone() for each in data.train.scales[chosen.scale])
    if not settings.standardise:
        mean, deviation = torch.zeros_like(mean), torch.ones_like(deviation)
    check_generated(data.train, settings)
    layout = store_layout(data.given.store.spec)
    learnt = choose_clips(data.train, chosen.method, settings.trust, chosen.fill, data.counts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = build_head(settings.head, len(mean), len(data.given.counts), mean, deviation, layout)
    head.prepare(lambda: data.train.draw_rows(PREPARED_ROWS, seed, learnt.clips), seed)
    return Ready(chosen.config, chosen.method, head.to(data.train.device), learnt)
