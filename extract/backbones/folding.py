"""Batch norms folded into the convolutions before them: a frozen one is a scale and a shift of its input's channels."""

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

#: ``model_type`` of the families where a module with both has nothing between ``convolution`` and ``normalization``.
FOLDED = {"mobilenet_v2", "resnet"}


def fold_batch_norms(model: nn.Module) -> int:
    """Fold every batch norm that stands behind its module's convolution, in place; how many there were.

    The model must be in evaluation mode. Rows change by rounding only.
    """
    count = 0
    for module in model.modules():
        convolution, norm = getattr(module, "convolution", None), getattr(module, "normalization", None)
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module.convolution = fuse_conv_bn_eval(convolution, norm)
            module.normalization = nn.Identity()
            count += 1
    return count
