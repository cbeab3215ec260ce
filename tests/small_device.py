"""A second device for tests, ``far``: it computes on the CPU, and refuses to compute with tensors that are not there.

As a GPU does: only numbers without an axis may come from the CPU, and nothing is read there that was not brought back.
Programmed against PyTorch's interface for devices of other makers.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "far"
aten = torch.ops.aten
#: what makes tensors; all else begins with one of these.
MAKERS = ("empty.memory_format", "empty_strided", "arange", "arange.start", "arange.start_step", "linspace", "eye")
SHAPES = {
    aten.sym_size.default: torch.Tensor.size,
    aten.sym_stride.default: torch.Tensor.stride,
    aten.sym_storage_offset.default: torch.Tensor.storage_offset,
    aten.sym_numel.default: torch.Tensor.numel,
    aten.dim.default: torch.Tensor.dim,
    aten.is_contiguous.default: torch.Tensor.is_contiguous,
    aten.is_contiguous.memory_format: lambda tensor, form: tensor.is_contiguous(memory_format=form),
}
#: what has to wait for all that was asked of a device before; what was waited for is noted in ``waits``.
WAITS = {
    *("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::item"),
    *("aten::repeat_interleave", "aten::bincount", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive"),
}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
waits: list[str] = []
MOVES = {"aten::_to_copy", "aten::copy_", "aten::to"}


class Stream:
    """What the device does in turn; of two of them nothing is known but what one was told to wait for."""

    def __init__(self, device: object = None) -> None:
        self.time = 0
        self.waited: dict[Stream, int] = {}  #: of other streams, until which of their times.

    def step(self) -> tuple["Stream", int]:
        self.time += 1
        return self, self.time

    def record_event(self) -> tuple["Stream", int]:
        return self, self.time

    def wait_event(self, event: tuple["Stream", int]) -> None:
        stream, time = event
        self.waited[stream] = max(time, self.waited.get(stream, 0))

    def check(self, tensor: "Far") -> None:
        stream, time = tensor.made
        if stream is not self and time > self.waited.get(stream, 0):
            raise RuntimeError(f"a tensor on {NAME} that may not have come there yet")
        if stream is not self and self not in tensor.used:
            raise RuntimeError(f"a tensor on {NAME} whose memory may be given away while it is used")


MAIN = Stream()
here = threading.local()


def current_stream(device: object = None) -> Stream:
    """That of this thread."""
    return getattr(here, "stream", MAIN)


class Far(torch.Tensor):
    """A tensor on the device; its numbers lie in an ordinary one."""

    inner: torch.Tensor
    made: tuple["Stream", int]  #: on which stream, and at which of its times.
    used: set["Stream"]  #: other streams that were told of.

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Far":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            inner.stride(),
            inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(f"{NAME}:0"),
            dispatch_sizes_strides_policy="sizes",
        )
        made.inner = inner
        made.made, made.used = current_stream().step(), set()
        return made

    def record_stream(self, stream: "Stream") -> None:
        self.used.add(stream)

    def __repr__(self, **_: Any) -> str:
        return f"Far({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        if operation in SHAPES:  # of the inner one, as that may be changed in place
            return SHAPES[operation](args[0].inner, *args[1:])
        return compute(operation, args, kwargs or {})


def compute(operation, args: tuple, kwargs: dict) -> Any:
    """Run an operation there: its results are there too, but for what it moves away."""
    given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
    strangers = [each for each in given if not isinstance(each, Far) and each.dim() > 0]
    for each in given:
        if isinstance(each, Far):
            current_stream().check(each)
    if strangers and operation._schema.name not in MOVES:
        raise RuntimeError(f"{operation} of tensors on {NAME} and on the CPU, such as {tuple(strangers[0].shape)}")
    by_truth = operation._schema.name in INDEXING and any(each.dtype == torch.bool for each in given[1:])
    if operation._schema.name in WAITS or by_truth:
        waits.append(operation._schema.name)
    names = [argument.name for argument in operation._schema.arguments]
    wanted = (dict(zip(names, args, strict=False)) | kwargs).get("device")  # of what makes or moves tensors
    if operation is aten.copy_.default and isinstance(args[0], Far) and strangers and True not in args[2:]:
        waits.append("aten::copy_, blocking")
    plain_args, plain_kwargs = tree_map(_unwrap, (args, kwargs))
    found = operation(*plain_args, **plain_kwargs)
    if operation is aten.copy_.default and not isinstance(args[0], Far):
        waits.append("aten::copy_")
        return args[0]
    if wanted is not None and torch.device(wanted).type == "cpu":
        waits.append("aten::to")
        return found
    return _keep_identity(args, found)


def _unwrap(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.inner if isinstance(value, Far) else value


def _keep_identity(args: tuple, found: Any) -> Any:
    """What was computed, there; a tensor that was changed in place is the one that was given."""
    mine = {id(each.inner): each for each in tree_flatten(args)[0] if isinstance(each, Far)}

    def keep(each: Any) -> Any:
        if not isinstance(each, torch.Tensor):
            return each
        if id(each) not in mine:
            return Far(each)
        mine[id(each)].made = current_stream().step()
        return mine[id(each)]

    return tree_map(keep, found)


class _Module:
    """What PyTorch asks of a device."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def manual_seed(self, seed: int) -> None:
        """Its draws are those of the CPU's generator."""

    def manual_seed_all(self, seed: int) -> None:
        """Its draws are those of the CPU's generator."""

    Stream = Stream
    current_stream = staticmethod(current_stream)

    @staticmethod
    @contextmanager
    def stream(stream: Stream) -> Iterator[None]:
        before, here.stream = current_stream(), stream
        try:
            yield
        finally:
            here.stream = before

    def mem_get_info(self, device: object) -> tuple[int, int]:
        return 2**30, 2**30

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def open_far() -> torch.device:
    """The device; a process has it once."""
    if not hasattr(torch, NAME):
        _setup_privateuseone_for_python_backend(NAME, _Module())
        library = torch.library.Library("aten", "IMPL")
        for made in MAKERS:
            library.impl(made, _make(made), "PrivateUse1")
        library.impl("_copy_from", _copy_from, "PrivateUse1")
        open_far.library = library  # pyright: ignore[reportFunctionMemberAccess] - it must stay
    return torch.device(NAME)


def _copy_from(source: torch.Tensor, goal: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """How numbers of a list come there."""
    if not non_blocking:
        waits.append("aten::_copy_from, blocking")
    _unwrap(goal).copy_(_unwrap(source))
    return goal


def _make(name: str):
    base, _, overload = name.partition(".")
    operation = getattr(getattr(aten, base), overload or "default")
    return lambda *args, **kwargs: Far(operation(*args, **kwargs | {"device": "cpu", "pin_memory": False}))
