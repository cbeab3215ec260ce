"""The graph of a layout and the blocks of the graph head, against loops."""

import pytest
import torch
from small_skeletons import KINECT
from torch import Tensor, nn
from torch.nn import functional as F

from longreel.heads.graph import GraphBlock, graph_of


def test_the_graph_is_each_joint_its_parent_and_its_children():
    graph = graph_of(KINECT).tolist()
    for joint, parent in enumerate(KINECT.parents):
        children = [other for other in range(20) if KINECT.parents[other] == joint != other]
        for other in range(20):
            assert graph[0][joint][other] == float(joint == other)
            assert graph[1][joint][other] == float(parent == other != joint)
            assert graph[2][joint][other] == pytest.approx((other in children) / max(len(children), 1))


def naive_block(block: GraphBlock, values: Tensor) -> Tensor:
    """A block in evaluation mode, sum by sum."""
    clips, inside, frames, joints = values.shape
    out = block.normalise.num_features
    weight = block.spread.weight.view(3, out, inside)
    mixed = torch.zeros(clips, out, frames, joints, dtype=values.dtype)
    for part in range(3):
        for joint in range(joints):
            for other in range(joints):
                taken = values[:, :, :, other] * block.graph[part, joint, other]  # (N, C_in, T)
                mixed[:, :, :, joint] = mixed[:, :, :, joint] + torch.einsum("oi,nit->not", weight[part], taken)
    around = values
    if isinstance(block.around, nn.Conv2d):
        around = torch.einsum("oi,nitv->notv", block.around.weight[:, :, 0, 0], values)

    def normalise(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.weight / (norm.running_var + norm.eps).sqrt())[:, None, None]
        return (x - norm.running_mean[:, None, None]) * scale + norm.bias[:, None, None]

    middle = F.relu(normalise(block.normalise, mixed) + around)
    rows = []
    for place in range(0, frames, block.stride):
        total = torch.zeros(clips, out, joints, dtype=values.dtype)
        for tap in range(5):
            frame = place + tap - 2
            if 0 <= frame < frames:
                total = total + torch.einsum("oi,niv->nov", block.time.weight[:, :, tap, 0], middle[:, :, frame])
        rows.append(total)
    return F.relu(normalise(block.normalise_time, torch.stack(rows, dim=2)) + middle[:, :, :: block.stride])


@pytest.mark.parametrize(("inside", "out", "stride"), [(3, 4, 1), (4, 4, 2), (4, 6, 2)])
@pytest.mark.parametrize("frames", [5, 8])
def test_a_graph_block_and_its_gradients_are_those_of_loops(inside, out, stride, frames):
    torch.manual_seed(0)
    block = GraphBlock(graph_of(KINECT), inside, out, stride).double().eval()
    for norm in (block.normalise, block.normalise_time):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.bias, -1, 1)
    values = torch.randn(2, inside, frames, 20, dtype=torch.float64, requires_grad=True)
    found = []
    for function in (block, lambda x: naive_block(block, x)):
        made = function(values)
        weights = torch.linspace(-1, 1, made.numel(), dtype=torch.float64).view_as(made)
        found.append([made, *torch.autograd.grad((made * weights).sum(), [values, *block.parameters()])])
    for mine, naive in zip(*found, strict=True):
        torch.testing.assert_close(mine, naive)
