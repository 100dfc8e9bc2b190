"""``SparseLinear``: a linear layer whose weight is packed, trained and saved packed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import Self

from sparsecore.formats.base import PackedWeight
from sparsecore.formats.layouts import LAYOUTS
from sparsecore.formats.pack import pack, placed
from sparsecore.nn._packed import COMPUTE_NAMES, PackedLayer, bias_parameter
from sparsecore.patterns import Pattern
from sparsecore.reference import activate


class SparseLinear(PackedLayer):
    """``activation(input @ weight.T + bias)`` with a packed sparse weight.

    The kept weights are the parameter ``weight_values``; where they stand is in plain integer buffers
    (``weight_<index>``), so ``state_dict``, safetensors, deepcopy, pickle and DDP need no special case. Gradients reach
    the kept weights only. float64 layers run, slowly, on the reference.

    ``.to(device)`` packs anew where the layout has no kernels on the device: ``NM(2, 4)`` and ``NM(6, 8)`` are row
    lists on the CPU and go to sparse tensor cores on CUDA. Move a model before its optimizer is made: what an
    optimizer remembers of the kept weights stays in the order it had.

    Args:
        in_features: Inputs.
        out_features: Outputs.
        bias: Whether there is one.
        pattern: ``NM(2, 4)``, ``Unstructured()``, ``Group(16, 1)``, or a short name.
        sparsity: Fraction of zeros, for patterns that leave it open.
        activation: ``"none"``, ``"relu"``, ``"gelu"``, ``"gelu_tanh"``, ``"silu"``, ``"relu6"``, ``"hard_swish"``,
            ``"hard_sigmoid"`` or ``"sigmoid"``, fused into the kernel.
        compute_dtype: None; ``torch.float16`` for products at the float16 rate of CPUs that have one (relative error
            at most 1.5e-3); ``torch.int8`` for int8 shared or group lists with inputs quantised per token. Inference
            only.
        device: Where the parameters live.
        dtype: Of the parameters.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        pattern: Pattern | str,
        sparsity: float | None = None,
        activation: str = "none",
        compute_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dense = nn.Linear(in_features, out_features, bias, device=device, dtype=dtype)
        packed = pack(dense.weight, pattern, sparsity=sparsity)
        self._set_up(packed, dense.bias, activation, compute_dtype)

    @classmethod
    def from_packed(
        cls,
        weight: PackedWeight,
        bias: Tensor | None = None,
        *,
        activation: str = "none",
        compute_dtype: torch.dtype | None = None,
        trainable: bool = True,
    ) -> Self:
        """A layer around a packed weight (validated here) and a bias ``(out_features,)``."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        weight.validate()
        bias = bias_parameter("SparseLinear.from_packed", bias, weight, trainable)
        layer._set_up(weight, bias, activation, compute_dtype, trainable)
        return layer

    @classmethod
    def from_dense(
        cls,
        linear: nn.Linear,
        pattern: Pattern | str,
        mask: Tensor | None = None,
        *,
        sparsity: float | None = None,
        activation: str = "none",
        compute_dtype: torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        layout: str = "auto",
    ) -> Self:
        """Packs an ``nn.Linear``; the dense weight is not kept.

        Args:
            linear: The layer to take over.
            pattern: What is kept together.
            mask: ``(out_features, in_features)`` bool, True where kept. None: the largest magnitudes.
            sparsity: Fraction of zeros, for patterns that leave it open; None keeps exactly the non-zero weights.
            activation: Fused after the bias.
            compute_dtype: See the class.
            dtype: Of the stored values, ``torch.int8`` included. None: as the weight.
            layout: See :func:`sparsecore.pack`.

        Raises:
            ValueError: A mask or option that does not fit.
        """
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"SparseLinear.from_dense: needs an nn.Linear, got {type(linear).__name__}.")
        packed = pack(linear.weight, pattern, mask, sparsity=sparsity, dtype=dtype, layout=layout)
        layer = cls.from_packed(
            packed,
            linear.bias,
            activation=activation,
            compute_dtype=compute_dtype,
            trainable=linear.weight.requires_grad,
        )
        return layer.train(linear.training)

    def _set_up(
        self,
        weight: PackedWeight,
        bias: Tensor | None,
        activation: str,
        compute_dtype: torch.dtype | None,
        trainable: bool = True,
    ) -> None:
        fits = LAYOUTS[weight.layout].int8_products and weight.dtype == torch.int8
        if compute_dtype == torch.int8 and not fits:
            raise ValueError(
                "SparseLinear: compute_dtype=torch.int8 needs int8 values in shared or group lists. "
                "Use dtype=torch.int8 with NM(n, m, vector=16), Group(16, 1) or Group(4, 4); on CUDA with NM(2, 4) or "
                "NM(6, 8)."
            )
        self.out_features, self.in_features = weight.shape
        super()._set_up(weight, bias, activation, compute_dtype, trainable)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """``(out_features, in_features)``."""
        return self.out_features, self.in_features

    def _placed(self, weight: PackedWeight, device: torch.device) -> PackedWeight:
        return placed(weight, device)

    def to_dense(self) -> nn.Linear:
        """An ``nn.Linear`` with exact zeros; a fused activation is not part of it."""
        with torch.no_grad():
            weight = self.weight.to_dense()
        dense = nn.Linear(
            self.in_features, self.out_features, self.bias is not None, device="meta", dtype=weight.dtype
        )
        self._copy_to_dense(dense, weight)
        return dense

    def forward(self, input: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``, in the dtype of ``input``."""
        self._require_floats(input)
        if input.dim() == 0 or input.shape[-1] != self.in_features:
            raise ValueError(
                f"SparseLinear: input must be (..., {self.in_features}), got shape {tuple(input.shape)}."
            )
        if self._needs_grad(input):
            return activate(self._differentiable(input), self.activation)
        return self._run(self._route(input), input)

    def _size(self, input: Tensor) -> int:
        return input.numel() // max(self.in_features, 1)

    def _run(self, weight: PackedWeight | Tensor, input: Tensor) -> Tensor:
        if isinstance(weight, Tensor):
            return activate(nn.functional.linear(input, weight, self.bias), self.activation)
        compute = COMPUTE_NAMES[self.compute_dtype]
        if compute == "int8" and not weight.int8_products:  # of a layer that came from another kind of device
            compute = "float32"
        return weight.linear(input, self.bias, activation=self.activation, compute=compute)

    def _differentiable(self, input: Tensor) -> Tensor:
        weight = self.weight
        if weight.trainable and weight.dtype != torch.int8:
            return weight.trained_linear(input, self.bias, self._transposition(weight))
        # inference layouts have no backward of their own: gradients of input and bias go through the dense matrix
        dense = weight.to_dense().to(input.dtype)
        return nn.functional.linear(input, dense, None if self.bias is None else self.bias.to(input.dtype))

    def extra_repr(self) -> str:
        """Shape, pattern and storage in words."""
        return f"{self.in_features}, {self.out_features}{self._storage_repr()}"
