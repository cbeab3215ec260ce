"""Files of the temporal shift module's authors: read as tensors, told apart, and never run."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from small_shifting import clip_of, official_weights, pixels_of, rows_of_checkpoint, save_official

from longreel.errors import LongreelError
from longreel.extract import embed, load_backbone

NAME = "TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50.pth"
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("depths", "bottleneck", "step"), [((2, 1, 1, 1), True, 1), ((1, 2), False, 1), ((2, 1, 23, 2), True, 2)]
)
def test_rows_are_those_of_a_network_written_from_the_names(tmp_path, depths, bottleneck, step, zipped):
    weights = official_weights(depths, bottleneck, step)
    backbone = load_backbone(str(save_official(tmp_path / NAME, weights, zipped)), device="cpu", short_side=64, crop=64)
    clip = clip_of(5, side=64)
    naive = rows_of_checkpoint(weights, pixels_of(clip, *IMAGENET))
    rows = embed(backbone, clip)
    assert rows.shape == (5, naive.shape[1])
    np.testing.assert_allclose(rows, naive, rtol=1e-5, atol=1e-5 * np.abs(naive).max())


def test_the_spec_names_the_file_its_digest_its_shift_and_the_authors_own_preprocessing(tmp_path):
    path = save_official(tmp_path / NAME, official_weights((1, 1)))
    backbone = load_backbone(str(path), device="cpu")
    assert (backbone.name, backbone.dim, backbone.embedding, backbone.reach) == (NAME, 48, "pooled", 2)
    assert backbone.weights == f"{hashlib.sha256(path.read_bytes()).hexdigest()}, shift 1/8"
    assert str(backbone.preprocessing) == "bilinear to short side 256, centre 224x224"
    assert "mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)" in backbone.normalisation
    assert str(backbone.sampling) == "8 frames"


def test_the_part_that_is_shifted_is_the_one_in_the_files_name(tmp_path):
    weights = official_weights((1, 1))
    path = save_official(tmp_path / NAME.replace("shift8", "shift4"), weights)
    backbone = load_backbone(str(path), device="cpu", short_side=64, crop=64)
    assert backbone.weights.endswith(", shift 1/4")
    naive = rows_of_checkpoint(weights, pixels_of(clip_of(4, 64), *IMAGENET), division=4)
    np.testing.assert_allclose(embed(backbone, clip_of(4, 64)), naive, rtol=1e-5, atol=1e-5 * np.abs(naive).max())
    renamed = load_backbone(str(path.rename(tmp_path / "mine.pth")), device="cpu")
    assert renamed.weights.endswith(", shift 1/8")


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["instead", "inside", "beside"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, place, zipped):
    canary, weights = Canary(tmp_path / "canary"), official_weights((1, 1))
    document = {
        "instead": canary,
        "inside": {"state_dict": weights | {"module.base_model.conv1.weight": canary}},
        "beside": {"state_dict": weights, "optimizer": canary},
    }[place]
    torch.save(document, tmp_path / NAME, _use_new_zipfile_serialization=zipped)
    refused = rf"{NAME}: cannot be read as a ResNet of the temporal shift module \(it asks for \S+, which was not run"
    with pytest.raises(LongreelError, match=refused) as caught:
        load_backbone(str(tmp_path / NAME))
    assert not (tmp_path / "canary").exists()
    assert "weights_only" not in str(caught.value)  # no advice to switch the check off
    torch.load(tmp_path / NAME, weights_only=False)
    assert (tmp_path / "canary").exists()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path):
    (tmp_path / NAME).write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    with pytest.raises(LongreelError, match="cannot be read"):
        load_backbone(str(tmp_path / NAME))
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_refused(tmp_path, kept, zipped):
    path = save_official(tmp_path / NAME, official_weights((1, 1)), zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(LongreelError, match="cannot be read"):
        load_backbone(str(path))


def without(name: str):
    return lambda weights: {key: value for key, value in weights.items() if not key.endswith(name)}


def renamed(old: str, new: str):
    return lambda weights: {key.replace(old, new): value for key, value in weights.items()}


def replaced(name: str, tensor: torch.Tensor):
    return lambda weights: weights | {f"module.base_model.{name}": tensor}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda weights: {}, "it lacks 'embedder.embedder.convolution.weight'"),
        (without("layer1.0.bn2.weight"), "1 tensors are missing or too many, such as encoder.stages.0.layers.0"),
        (without("layer2.0.conv1.net.weight"), "the input of layer2.0.conv1 should be shifted"),
        (renamed(".conv1.net", ".conv1"), "the input of layer1.0.conv1 should be shifted"),  # TSN
        (renamed("layer1.1.conv2.weight", "layer1.1.conv2.net.weight"), "has a tensor 'module.*conv2.net.weight'"),
        (renamed("layer2.0", "layer3.0"), "it lacks 'encoder.stages.1"),
        (renamed("layer1.1", "layer1.7"), "the input of layer1.1.conv1 should be shifted"),
        (renamed("layer2.", "layer2.net."), "has a tensor 'module.base_model.layer2.net.0"),  # temporal pooling
        (renamed("layer1.1.", "layer1.1.block."), "has a tensor 'module.base_model.layer1.1.block"),  # non-local
        (lambda weights: weights | {"module.base_model.bn1.weight": torch.ones(3)}, "size mismatch"),
        (lambda weights: weights | {"module.base_model.bn1.weight": 3}, "no state_dict of named tensors"),
        (replaced("layer1.0.conv3.weight", torch.tensor(3.0)), "no residual blocks, or their convolutions are none"),
        (lambda weights: {name: weights[name] for name in weights if ".layer" not in name}, "no residual blocks"),
        (replaced("bn1.weight", torch.full((8,), torch.nan)), "bn1.weight' holds numbers that are not finite"),
        (replaced("bn1.weight", torch.ones(8).to_sparse()), "bn1.weight' is no plain tensor"),
        (replaced("bn1.weight", torch.ones(8, device="meta")), "bn1.weight' is no plain tensor"),
        (replaced("layer2.0.conv3.weight", torch.zeros(1).expand(10**6, 10**6, 1, 1)), "claims more numbers than"),
    ],
)
def test_another_network_is_refused_and_what_is_odd_is_named(tmp_path, change, reason):
    path = save_official(tmp_path / NAME, change(official_weights((2, 1))))
    with pytest.raises(LongreelError, match=reason):
        load_backbone(str(path))


def test_sizes_that_do_not_fit_are_refused_before_memory_is_taken_for_them(tmp_path):
    large = replaced("layer2.0.conv3.weight", torch.zeros(10**6, 1, 1, 1))(official_weights((1, 1)))
    path = save_official(tmp_path / NAME, large)  # 4 MB, of a network that would need 4 TB
    with pytest.raises(LongreelError, match=r"size mismatch: encoder\.stages\.1\S+ is \("):
        load_backbone(str(path))


def test_a_shift_of_all_channels_is_refused(tmp_path):
    path = save_official(tmp_path / "TSM_shift1_blockres.pth", official_weights((1, 1)))
    with pytest.raises(LongreelError, match="its name asks for a shift of all channels"):
        load_backbone(str(path))


def test_the_every_second_block_of_a_deep_network_is_checked_too(tmp_path):
    path = save_official(tmp_path / NAME, official_weights((1, 1, 23), step=1))
    with pytest.raises(LongreelError, match=r"the input of layer3\.1\.conv1 should not be shifted"):
        load_backbone(str(path))


def test_a_network_of_optical_flow_is_refused(tmp_path):
    path = save_official(tmp_path / NAME, official_weights((1, 1), colours=10))
    with pytest.raises(LongreelError, match=r"first convolution is \(8, 10, 7, 7\), which does not take RGB frames"):
        load_backbone(str(path))


@pytest.mark.parametrize("document", [[1, 2], {"weights": {}}, {"state_dict": [1]}])
def test_a_file_without_a_state_dict_is_refused(tmp_path, document):
    torch.save(document, tmp_path / NAME)
    with pytest.raises(LongreelError, match=r"no state_dict of named tensors.*give the folder"):
        load_backbone(str(tmp_path / NAME))


def test_it_has_no_text_side(tmp_path):
    path = save_official(tmp_path / NAME, official_weights((1, 1)))
    with pytest.raises(LongreelError, match="has no text side"):
        load_backbone(str(path), embedding="projected")
