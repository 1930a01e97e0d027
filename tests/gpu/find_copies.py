"""List what a step copies from the CPU to the GPU, on a machine without one.

    python -m tests.gpu.find_copies [--models phi-3-mini,mistral-7b,falcon-7b] [--untouched]

Such a copy is what a CUDA graph cannot be captured with, and what makes each step wait. The device
`meta` stands in for the GPU: tensors on it have a shape and no memory, so that the published sizes
take no more than tiny ones. The last line of stdout is JSON: by model, then by step, what copied,
once each. `--untouched` leaves the models' code as transformers has it.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.gpu.model_steps import (
    MODELS,
    build_decode_step,
    build_model,
    build_prefill_step,
    skip_masks,
    split_heads_by_slices,
)

DEVICE = "meta"
MAKERS = {torch.tensor, torch.as_tensor, torch.Tensor.new_tensor}
INDEXERS = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
BATCH, CONTEXT, TOKENS = 2, 16, 8


class OperationWatch(TorchDispatchMode):
    """Notes each operation that takes a tensor from the CPU and gives, or takes, one of the GPU."""

    def __init__(self, found: dict[str, None]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run the operation, and look at the devices on both of its sides."""
        out = function(*args, **(kwargs or {}))
        if "cpu" in list_devices((args, kwargs)) and DEVICE in list_devices((args, out)):
            self.found[str(function)] = None
        return out


class ListWatch(TorchFunctionMode):
    """Notes each tensor of the GPU made from numbers of Python, or indexed by a list of them.

    torch makes these on the CPU and copies them where no watch of operations is told.
    """

    def __init__(self, found: dict[str, None]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run the function, and look at what it was given."""
        out = function(*args, **(kwargs or {}))
        if function in MAKERS and DEVICE in list_devices(out):
            self.found[function.__name__] = None
        if function in INDEXERS and DEVICE in list_devices(args[0]):
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, list) for part in parts):
                self.found[f"{function.__name__} by a list"] = None
        return out


def list_devices(values: Any) -> set[str]:
    """Return the types of device that the tensors among the values are on."""
    return {one.device.type for one in tree_leaves(values) if isinstance(one, torch.Tensor)}


def find_copies(step: Callable[[], Any]) -> list[str]:
    """Return the operations of a step that copy, after one that may make what stays."""
    step()
    found: dict[str, None] = {}
    with ListWatch(found), OperationWatch(found):
        step()
    return list(found)


def main(argv: Sequence[str] | None = None) -> None:
    """Look at each model's steps, print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--untouched", action="store_true")
    arguments = parser.parse_args(argv)
    skip_masks()
    if not arguments.untouched:
        split_heads_by_slices()
    found = {}
    with torch.inference_mode():
        for name in arguments.models.split(","):
            model = build_model(name, DEVICE, tiny=False)
            found[name] = {
                "prefill": find_copies(build_prefill_step(model, TOKENS)),
                "decode": find_copies(build_decode_step(model, BATCH, CONTEXT)),
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
