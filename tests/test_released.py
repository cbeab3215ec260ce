"""Checkpoints with the names and the maths of VideoLT's and MOVE's code give the same logits as heads of ours."""

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from longreel.errors import ForeignRefused, LongreelError
from longreel.heads import build_head
from longreel.heads.released import Released, load_released

pytestmark = pytest.mark.usefixtures("one_thread")


class TwoLayers(nn.Module):
    """What both call NonlinearClassifier: two layers on each frame, then the mean."""

    def __init__(self, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.project = nn.Linear(hidden, classes)

    def forward(self, frames: Tensor) -> Tensor:
        return torch.stack([self.project(self.fc1(frame).clamp(min=0)) for frame in frames.unbind(1)]).mean(dim=0)


class Sums(nn.Module):
    """What VideoLT calls NetVLAGD."""

    def __init__(self, width: int, clusters: int) -> None:
        super().__init__()
        self.activation_fc = nn.Linear(width, clusters, bias=False)
        self.gate_weight = nn.Parameter(torch.randn(clusters, width))
        self.bn1 = nn.BatchNorm1d(clusters)

    def forward(self, frames: Tensor) -> Tensor:
        pooled = []
        for clip in frames:
            shares = self.bn1(self.activation_fc(clip)).softmax(dim=1)  # (T, K)
            gated = (shares.T @ clip) * self.gate_weight.sigmoid()  # (K, D)
            by_centre = torch.stack([row / row.norm() for row in gated])
            flat = by_centre.T.flatten()  # features first, as released
            pooled.append(flat / flat.norm())
        return torch.stack(pooled)


class Vlad(nn.Module):
    """What they call NetVLADModel, and without the last layer NetVLAD_Dynamic_Aggregator."""

    def __init__(self, width: int, clusters: int, reduced: int, classes: int | None = None) -> None:
        super().__init__()
        self.vlad = Sums(width, clusters)
        self.hidden_fc = nn.Linear(clusters * width, reduced, bias=False)
        self.bn1 = nn.BatchNorm1d(width)
        self.bn2 = nn.BatchNorm1d(reduced)
        if classes is not None:
            self.pred_fc = nn.Linear(reduced, classes)

    def forward(self, frames: Tensor) -> Tensor:
        normalised = self.bn1(frames.flatten(0, 1)).view_as(frames)
        pooled = self.bn2(self.hidden_fc(self.vlad(normalised))).clamp(0, 6)
        return self.pred_fc(pooled) if hasattr(self, "pred_fc") else pooled


class Attention(nn.Module):
    """What MOVE calls MultiHeadAttention_Dynamic_Aggregator, with four heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.w_qs, self.w_ks, self.w_vs, self.fc = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.layer_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, frames: Tensor) -> Tensor:
        mean = frames.mean(dim=1)
        parts = zip(
            *(each.chunk(4, dim=-1) for each in (self.w_qs(mean), self.w_ks(frames), self.w_vs(frames))), strict=True
        )
        found = []
        for query, key, value in parts:
            weights = ((key * query[:, None]).sum(dim=2) / query.shape[1] ** 0.5).softmax(dim=1)
            found.append((weights[..., None] * value).sum(dim=1))
        return self.layer_norm(self.fc(torch.cat(found, dim=1)) + mean)


@pytest.fixture
def frames() -> Tensor:
    return torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))


def settle(*modules: nn.Module, seed: int = 0) -> None:
    """Give modules numbers that differ from those they begin with, and evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in modules:
        for tensor in module.eval().state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.3 * torch.rand(tensor.shape, generator=generator))


def save(path: Path, state: nn.Module, legacy: bool = False, **more) -> Path:
    """A checkpoint as the released scripts write it."""
    document = {"epoch": 95, "feature": "ResNet50", "state_dict": state.state_dict(), "optimizer": {"state": {}}}
    document |= {"best_mAP": torch.tensor(0.5), "Acc@1": 61.5, "Acc@5": 80.25} | more
    torch.save(document, path, _use_new_zipfile_serialization=not legacy)
    return path


def score(released: Released, frames: Tensor) -> Tensor:
    dim, classes = (int(released.facts[key]) for key in ("dim", "classes"))
    head = build_head(released.head, dim, classes, torch.zeros(dim), torch.ones(dim))
    head.load_state_dict(
        {f"head.{name}": tensor for name, tensor in released.tensors.items()}
        | {"mean": head.mean, "deviation": head.deviation}
    )
    return head.eval()(frames)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "as PyTorch 1.2 wrote"])
def test_videolts_nonlinear_classifier_gives_its_logits(legacy, tmp_path, frames):
    model = TwoLayers(8, 9, 4)
    settle(model)
    found = load_released(save(tmp_path / "ckpt.best.pth.tar", model, legacy))
    assert found.head == "nonlinear:hidden=9"
    expected = {"model": "NonlinearClassifier", "dim": 8, "classes": 4, "epoch": 95, "feature": "ResNet50"}
    assert found.facts == expected | {"best_mAP": 0.5, "Acc@1": 61.5, "Acc@5": 80.25}
    torch.testing.assert_close(score(found, frames), model(frames), rtol=1e-5, atol=1e-5)


def test_videolts_netvlad_gives_its_logits(tmp_path, frames):
    model = Vlad(8, 3, 6, classes=4)
    settle(model)
    found = load_released(save(tmp_path / "ckpt.pth.tar", model))
    assert found.head == "netvlad-gated:clusters=3,hidden=6"
    torch.testing.assert_close(score(found, frames), model(frames), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trained", [False, True], ids=["MOVE", "baseline"])
@pytest.mark.parametrize("several", [False, True], ids=["one GPU", "several"])
def test_moves_aggregated_head_gives_its_logits(trained, several, tmp_path, frames):
    vlad, attention, classifier = Vlad(8, 3, 6), Attention(8), TwoLayers(14, 2048, 4)
    settle(vlad, attention, classifier)
    if not trained:  # MOVE's code cuts the gradient off, so these stay as they were drawn
        vlad.bn1.reset_parameters()
    parts = [vlad(frames), attention(frames)]
    joined = torch.cat(parts if trained else parts[::-1], dim=1)
    if several:
        vlad, attention, classifier = map(nn.DataParallel, (vlad, attention, classifier))
    path = save(tmp_path / "ckpt.best.pth.tar", classifier, vlad=vlad.state_dict(), MHA=attention.state_dict())
    found = load_released(path)
    order = "vlad-psa" if trained else "psa-vlad"
    assert found.head == f"aggregated:vlad=gated,order={order},clusters=3,reduced=6"
    plain = classifier.module if isinstance(classifier, nn.DataParallel) else classifier
    torch.testing.assert_close(score(found, frames), plain(joined[:, None]), rtol=1e-5, atol=1e-5)
    other = load_released(path, order="psa-vlad" if trained else "vlad-psa")
    assert not torch.allclose(score(other, frames), score(found, frames))


def test_the_released_sizes_need_no_options(tmp_path):
    with torch.device("meta"):
        large = Vlad(2048, 64, 1024, 1004)
    path = tmp_path / "ckpt.pth.tar"
    torch.save({"state_dict": {name: torch.zeros(()).expand(t.shape) for name, t in large.state_dict().items()}}, path)
    with pytest.raises(ForeignRefused, match="claims more numbers than the file holds"):
        load_released(path)
    assert load_released(save(path, TwoLayers(8, 2048, 4))).head == "nonlinear"


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64])
def test_figures_that_are_numpy_scalars_are_read_as_numbers(kind, tmp_path):
    found = load_released(save(tmp_path / "c.tar", TwoLayers(8, 9, 4), best_mAP=kind(7)))
    assert found.facts["best_mAP"] == 7
    assert type(found.facts["best_mAP"]) in (int, float)


class Attack:
    """Its pickle makes a file when it is read by plain pickle."""

    def __init__(self, call, *arguments: object) -> None:
        self.call = call, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["epoch", "optimizer", "state_dict"])
def test_a_file_that_asks_for_code_is_refused_and_the_code_is_not_run(place, legacy, tmp_path):
    mark = tmp_path / "was-run"
    path = save(tmp_path / "c.tar", TwoLayers(8, 9, 4), legacy, **{place: Attack(os.mkdir, str(mark))})
    with pytest.raises(ForeignRefused, match=r"c\.tar: asks for \S*mkdir, .* none was run") as caught:
        load_released(path)
    assert "weights_only" not in str(caught.value)  # no advice to switch the check off
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the file would have done it
    assert mark.exists()


@pytest.mark.parametrize(
    "attack",
    [
        Attack(np.dtype("f8").__class__, "f8"),
        Attack(np.array, [1.0]),
        Attack(eval, "1"),
        Attack(getattr, "x", "upper"),
        np.array([1.0]),
        np.bool_(True),
        np.datetime64("2020-01-01"),
        Path("x"),
    ],
    ids=["dtype class", "array", "eval", "getattr", "an array", "bool", "a date", "a path"],
)
def test_anything_but_tensors_and_numbers_is_refused(attack, tmp_path):
    with pytest.raises(ForeignRefused):
        load_released(save(tmp_path / "c.tar", TwoLayers(8, 9, 4), best_mAP=attack))


def test_reading_leaves_no_stand_in_behind(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    load_released(save(tmp_path / "c.tar", TwoLayers(8, 9, 4)))
    assert set(torch.serialization.get_safe_globals()) == before


def broken(**changes) -> dict:
    """A state of the nonlinear classifier with some tensors replaced, or left out for ``None``."""
    state = dict(TwoLayers(8, 9, 4).state_dict()) | {key.replace("_", "."): value for key, value in changes.items()}
    return {"state_dict": {key: value for key, value in state.items() if value is not None}}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([1, 2], "is no checkpoint of VideoLT or MOVE"),
        ({"model": {}}, "is no checkpoint of VideoLT or MOVE"),
        (broken(fc1_weight=None), "lacks the NonlinearClassifier's hidden.weight"),
        (broken(project_bias=None), r"project.bias is missing in place of \(4,\)"),
        (broken(fc1_bias=torch.zeros(5)), r"hidden.bias is \(5,\) in place of \(9,\)"),
        (broken(fc1_weight=torch.zeros(9)), "or it is no matrix"),
        (broken(fc3_weight=torch.zeros(9)), "a tensor 'fc3.weight', which none of the models"),
        (broken(fc1_bias=torch.full((9,), torch.nan)), "hidden.bias holds numbers that are not finite"),
        (broken(fc1_bias="x"), "'fc1.bias' is no plain tensor"),
        (broken(fc1_bias=torch.zeros(9).to_sparse()), "'fc1.bias' is no plain tensor"),
        (broken(fc1_bias=torch.zeros(9, dtype=torch.complex64)), "'fc1.bias' is no plain tensor"),
        (broken(fc1_bias=torch.zeros(9, device="meta")), "'fc1.bias' is no plain tensor"),
        (broken() | {"MHA": {}}, "has no dict called 'vlad'"),
        (broken() | {"MHA": {}, "vlad": OrderedDict()}, "has no 'hidden_fc.weight' that fits"),
        ({"state_dict": {"vlad.gate_weight": torch.zeros(3, 8)}}, "has no 'hidden_fc.weight' that fits"),
    ],
)
def test_what_is_none_of_the_models_is_refused_by_name(document, message, tmp_path):
    path = tmp_path / "c.tar"
    torch.save(document, path)
    with pytest.raises(ForeignRefused, match=message) as caught:
        load_released(path)
    assert str(path) in str(caught.value)


def test_damaged_files_and_other_formats_are_refused(tmp_path):
    path = save(tmp_path / "c.tar", TwoLayers(8, 9, 4))
    whole = path.read_bytes()
    with pytest.raises(ForeignRefused, match="cannot be read"):
        load_released(tmp_path / "missing.tar")
    with zipfile.ZipFile(tmp_path / "other.tar", "w") as archive:
        archive.writestr("a", "b")
    for content in (
        b"",
        b"hello",
        whole[: len(whole) // 2],
        pickle.dumps([1, 2]),
        (tmp_path / "other.tar").read_bytes(),
    ):
        path.write_bytes(content)
        with pytest.raises(ForeignRefused):
            load_released(path)


def test_an_unknown_order_is_refused(tmp_path):
    with pytest.raises(LongreelError, match="no order of aggregated called 'both'"):
        load_released(tmp_path / "c.tar", order="both")
