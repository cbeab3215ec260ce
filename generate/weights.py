"""Whether a folder's weights fill its model. diffusers draws what is missing at random, and says so only in its log."""

from collections.abc import Mapping
from typing import Any

from ..errors import EnvironmentFault
from .folders import ModelFolder


def check_weights(model: ModelFolder, components: Mapping[str, Any]) -> None:
    """Refuse a model of which tensors are missing in its files.

    A tensor that is another name of one that is there (tied embeddings) is not missing. Where the files have as many
    tensors that the model does not know, these are the missing ones under names that the loader translates.

    Raises:
        EnvironmentFault: As said; names the part and the first tensor.
    """
    import torch
    from safetensors import safe_open

    for part in model.parts:
        module = components.get(part)
        if not isinstance(module, torch.nn.Module):
            continue
        stored: set[str] = set()
        for path in sorted((model.path / part).glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                stored |= set(file.keys())
        tensors = module.state_dict(keep_vars=True)
        filled = {tensor.data_ptr() for name, tensor in tensors.items() if name in stored}
        lacking = [name for name in tensors if name not in stored]
        missing = sorted(name for name in lacking if tensors[name].data_ptr() not in filled)
        if len(missing) > len(stored - set(tensors)):
            raise EnvironmentFault(
                f"{model.path / part}: the weights lack {len(missing)} of the model's tensors, such as {missing[0]!r}."
            )
