"""What the operator files share: fake outputs, autocast, and the rule for gradients of fused activations."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])

registrations = torch.library.Library("sparsecore", "IMPL")

SIXTEEN_BITS = {"cuda"}
"""Kinds of devices whose sparse kernels multiply bfloat16 and float16."""


def on_one_device(name: str, function: F) -> F:
    """``function``, the fake kernel of an operator, once its tensors are known to be on one device.

    Tensors on ``meta`` go to the fake kernel whatever the others are on, and fake tensors always do.
    """
    names = [argument.name for argument in getattr(torch.ops.sparsecore, name).default._schema.arguments]

    @functools.wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        devices = {
            argument: value.device
            for argument, value in (*zip(names, arguments, strict=False), *named.items())
            if isinstance(value, Tensor)
        }
        first = next(iter(devices), "")
        for argument, device in devices.items():
            if device != devices[first]:
                raise RuntimeError(
                    f"{name}: {argument} is on {device} and {first} on {devices[first]}. Move one of them with .to()."
                )
        return function(*arguments, **named)

    return cast(F, checked)


def fake_kernel(name: str) -> Callable[[F], F]:
    """Registers the decorated function as what ``torch.ops.sparsecore.<name>`` returns for fake tensors."""

    def register_fake(function: F) -> F:
        if not hasattr(torch.ops.sparsecore, name):
            raise ImportError(
                f"sparsecore: the compiled operators are older than its Python files, which need {name!r}. Build "
                "again: pip install . or, for a checkout in use, pip install --no-build-isolation -e ."
            )
        torch.library.register_fake(f"sparsecore::{name}", on_one_device(name, function))
        return function

    return register_fake


def fake_linear(input: Tensor, out_features: int) -> Tensor:
    """The empty output of a linear operator."""
    return input.new_empty((*input.shape[:-1], out_features))


def register_autocast(name: str, activations: tuple[int, ...] = (0,)) -> None:
    """Under autocast the activations take the autocast dtype; weights, scales and bias stay as they are stored."""
    op = getattr(torch.ops.sparsecore, name).default

    def register_for(device: str, key: str) -> None:
        def narrow(argument: Any) -> Any:
            wide = (
                isinstance(argument, Tensor)
                and argument.is_floating_point()
                and argument.dtype != torch.float64
            )
            return argument.to(torch.get_autocast_dtype(device)) if wide else argument

        def cast(*arguments: Any) -> Tensor:
            keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))
            with torch._C._ExcludeDispatchKeyGuard(keys):
                narrowed = (narrow(value) if i in activations else value for i, value in enumerate(arguments))
                return op(*narrowed)  # type: ignore[no-any-return]

        registrations.impl(name, cast, key)

    register_for("cpu", "AutocastCPU")
    register_for("cuda", "AutocastCUDA")


def token_rows(tensor: Tensor) -> Tensor:
    """``(..., features)`` as ``(tokens, features)``, one token where there are no leading dimensions."""
    return tensor.flatten(0, -2) if tensor.dim() > 1 else tensor.unsqueeze(0)


def narrowed(input: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Input and values as kernels of 16 bits take them: in autocast's dtype, float32 values in that of the input.

    float32 parameters so train under autocast, as they do in torch's own layers. On other devices nothing changes.
    """
    device = input.device.type
    if device not in SIXTEEN_BITS:
        return input, values
    if torch.is_autocast_enabled(device) and input.is_floating_point():
        input = input.to(torch.get_autocast_dtype(device))
    narrow = input.dtype in (torch.bfloat16, torch.float16)
    return input, values.to(input.dtype) if narrow and values.dtype == torch.float32 else values


def require_plain(name: str, activation: int, compute: int) -> None:
    """Gradients exist for the plain product only."""
    if activation or compute:
        raise RuntimeError(
            f"{name}: a fused activation and reduced compute have no gradient. "
            "Call it with activation='none' and compute='float32' when training, and apply the activation after it."
        )


def register(
    name: str,
    fake: Callable[..., Any],
    backward: Callable[..., Any],
    setup: Callable[..., Any],
    activations: tuple[int, ...] = (0,),
) -> None:
    """Fake kernel, autograd and autocast of one operator; ``activations`` are the places of what is no weight."""
    torch.library.register_fake(f"sparsecore::{name}", on_one_device(name, fake))
    torch.library.register_autograd(f"sparsecore::{name}", backward, setup_context=setup)
    register_autocast(name, activations)
