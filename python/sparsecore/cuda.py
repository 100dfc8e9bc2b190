"""Which kernel products of CUDA tensors take."""

from __future__ import annotations

from types import TracebackType

import torch


def _built() -> bool:
    key = "CompositeExplicitAutograd"
    return torch._C._dispatch_has_kernel_for_dispatch_key("sparsecore::cuda_use_kernel", key)


class use:
    """Has products take one kernel by name instead of the one that the rule chooses.

    As a call for the process, or for the length of a ``with`` block. To measure kernels beside each other, and to leave
    out one that misbehaves; the environment's ``SPARSECORE_CUDA_KERNEL`` does it from the start.

    Families of which no kernel has the name keep to their rule. Where one has, what it cannot do is refused.

    Args:
        name: As errors and ``docs/kernels`` name it, for example ``"matmul_sm80"``; "" for the rule.

    Raises:
        RuntimeError: This installation has no CUDA kernels, or torch was built without CUDA.
    """

    def __init__(self, name: str) -> None:
        if not _built():
            raise RuntimeError(
                "sparsecore.cuda.use: there are no CUDA kernels here. They need a sparsecore that was built with "
                "SPARSECORE_CUDA=ON and a torch that was built with CUDA."
            )
        self._before: str = torch.ops.sparsecore.cuda_use_kernel(name)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.ops.sparsecore.cuda_use_kernel(self._before)
