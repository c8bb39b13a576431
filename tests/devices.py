"""Pretend a CUDA or MPS device: it computes on the CPU and raises the errors of the real device.

Errors: tensors of both sides in one operation (0-dim CPU scalars may join), a CPU tensor indexed by one on the
device, NumPy's view of a tensor on the device, a CPU generator for its random numbers, and float64 on MPS.
The storage of a tensor on the device has a mark, so that its views share it. A real CUDA device is used where there
is one: `CUDA_VISIBLE_DEVICES=0 pytest tests/test_devices.py`.
"""

from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

TO_NUMPY = {torch.Tensor.numpy, torch.Tensor.__array__}
ACROSS = {
    torch.Tensor.copy_,
    torch.Tensor.data.__set__,
    torch.Tensor.grad.__set__,
    torch._has_compatible_shallow_copy_type,
}


def on_device(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is on the device, pretended or real."""
    return tensor.is_cuda or getattr(tensor.untyped_storage(), "pretended", False)


@contextmanager
def pretended(kind: str):
    """Make `cuda` or `mps` available, so that `pick_device` picks it."""
    if kind == "cuda" and torch.cuda.is_available():
        yield torch.device("cuda:0")
        return
    patches = [
        patch("torch.cuda.is_available", lambda: kind == "cuda"),
        patch("torch.cuda.is_bf16_supported", lambda: False),
        patch("torch.backends.mps.is_available", lambda: kind == "mps"),
        patch("torch.cuda.is_current_stream_capturing", lambda: False),  # optimisers call this on CUDA
        patch("torch.accelerator.current_accelerator", lambda *args, **kwargs: None),
    ]
    with ExitStack() as stack:
        for entry in patches:
            stack.enter_context(entry)
        stack.enter_context(_Device(kind))
        yield torch.device(kind)


class _Device(TorchFunctionMode):
    def __init__(self, kind: str):
        super().__init__()
        self.device = torch.device(kind)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        first = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if func == torch.Tensor.device.__get__:  # PyTorch returns a new object each time: `is` never holds
            return self.device if on_device(first) else func(*args)
        if func in (torch.Tensor.is_cpu.__get__, torch.Tensor.is_cuda.__get__, torch.Tensor.is_mps.__get__):
            kind = {torch.Tensor.is_cuda.__get__: "cuda", torch.Tensor.is_mps.__get__: "mps"}.get(func, "cpu")
            return kind == (self.device.type if on_device(first) else "cpu")
        if func == torch.Tensor.__deepcopy__:  # its second argument contains tensors of both sides
            return self._mark(func(*args)) if on_device(first) else func(*args)
        if func in (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda):
            return self._move(func, first, args[1:], kwargs)
        there = [on_device(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        self._refuse(func, first, args, kwargs)
        wanted = kwargs.get("device")
        if wanted is not None and torch.device(wanted).type == self.device.type:
            kwargs["device"], there = "cpu", [True]
        elif wanted is not None:
            there = []
        result = func(*args, **kwargs)
        stays = func in ACROSS or func is torch.Tensor.__setitem__
        return self._mark(result) if any(there) and not stays else result

    def _refuse(self, func, first, args, kwargs) -> None:
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        there, here = [t for t in tensors if on_device(t)], [t for t in tensors if not on_device(t)]
        kind = self.device.type
        if there and func in TO_NUMPY:
            raise TypeError(f"can't convert {kind} device type tensor to numpy")
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type == "cpu" and (there or str(kwargs.get("device")) == kind):
            raise RuntimeError(f"Expected a '{kind}' device type for generator but found 'cpu'")
        if func in ACROSS or (func is torch.Tensor.__setitem__ and not _is_tensor_index(args[1])):
            return
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and on_device(first):
            here = [t for t in here if any(t is v for v in args[2:])]  # an index may be on the CPU, a value may not
        if there and any(t.dim() for t in here):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found cpu and {kind} in {func}")

    def _move(self, func, tensor, args, kwargs):
        """Do `to`, `cpu` and `cuda`: return a copy on the other side, or the tensor itself if it is there."""
        if func is torch.Tensor.to and args and isinstance(args[0], torch.Tensor):
            args = (self.device if on_device(args[0]) else "cpu", args[0].dtype)
        if func is torch.Tensor.to:
            device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        else:
            device, dtype, memory_format = func.__name__, None, None
        there = on_device(tensor) if device is None else torch.device(device).type != "cpu"
        if there and device is not None and torch.device(device).type != self.device.type:
            raise RuntimeError(f"no {device} here, but {self.device}")
        form = {} if memory_format is None else {"memory_format": memory_format}
        result = tensor.to(dtype=dtype or tensor.dtype, **form)
        if there != on_device(tensor) and result.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
            result = result.clone()
        return self._mark(result) if there else result

    def _mark(self, result):
        """Mark all tensors in the result of an operation as on the device."""
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                if self.device.type == "mps" and tensor.dtype in (torch.float64, torch.complex128):
                    raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework has none")
                tensor.untyped_storage().pretended = True
        return result


def _is_tensor_index(index) -> bool:
    return any(isinstance(part, torch.Tensor) for part in (index if isinstance(index, tuple) else (index,)))
