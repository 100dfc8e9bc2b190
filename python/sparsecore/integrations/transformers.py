"""Hugging Face transformers: ``save_pretrained`` and ``from_pretrained`` for models with packed layers.

transformers has a registry for ways of storing weights; ``register()`` enters ours under the name ``sparsecore``. In a
saved folder the packed layers are plain tensors of the safetensors files (``<layer>.weight_values``, its indices and
``<layer>._extra_state``), and ``config.json`` says in ``quantization_config`` which layers they are:

```json
{"quant_method": "sparsecore", "version": 1, "pattern": "2:4", "targets": ["Linear"], "ignore": [],
 "layers": {"encoder.layer.0.attention.self.query": {"pattern": "2:4", "layout": "row_lists"}}}
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from sparsecore._memory import give_back_freed
from sparsecore.convert import _replace, densify_
from sparsecore.formats.base import VALUE_DTYPES
from sparsecore.formats.layouts import LAYOUTS
from sparsecore.formats.pack import placed
from sparsecore.nn._packed import COMPUTE_DTYPES, packed_from_state, read_extra_state
from sparsecore.nn.linear import SparseLinear
from sparsecore.patterns import Pattern, pattern_name
from sparsecore.patterns import pattern as parse_pattern
from sparsecore.sparsify.targets import matches

try:
    from transformers.quantizers import HfQuantizer
    from transformers.quantizers.auto import register_quantization_config, register_quantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin
except ImportError as error:
    raise ImportError(
        "sparsecore.integrations.transformers: needs transformers 5 or later. "
        "Install it with: pip install 'sparsecore[transformers]'"
    ) from error

METHOD = "sparsecore"
FORMAT_VERSION = 1
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in VALUE_DTYPES}
_COMPUTE_NAMES = {"float16": torch.float16, "int8": torch.int8}
_OPTIONS = ("pattern", "sparsity", "targets", "ignore", "dtype", "compute_dtype", "layers")


def _one_of(name: str, value: Any, known: Mapping[str, Any]) -> str | None:
    text = str(value).removeprefix("torch.")
    if value is not None and text not in known:
        raise ValueError(
            f"SparseCoreConfig: {name} must be one of {', '.join(known)} or None, got {value!r}."
        )
    return None if value is None else text


def _rules(name: str, value: Any) -> list[str]:
    if (
        isinstance(value, str)
        or not isinstance(value, Sequence)
        or any(not isinstance(v, str) for v in value)
    ):
        raise ValueError(
            f'SparseCoreConfig: {name} must be a list of class names, layer names or "re:..." rules, got {value!r}.'
        )
    return list(value)


def _checked_layers(layers: Any) -> dict[str, dict[str, str]]:
    """The block's ``layers``, each with a known pattern and layout."""
    if not isinstance(layers, Mapping):
        raise ValueError(f"SparseCoreConfig: layers must map layer names to descriptions, got {layers!r}.")
    for name, entry in layers.items():
        wanted = {"pattern", "layout"}
        if not isinstance(entry, Mapping) or set(entry) - {"dtype"} != wanted:
            raise ValueError(
                f"SparseCoreConfig: layer {name!r} needs pattern and layout, and may have dtype; got {entry!r}."
            )
        if entry["layout"] not in LAYOUTS or entry.get("dtype", "float32") not in _DTYPES:
            raise ValueError(
                f"SparseCoreConfig: layer {name!r} needs a layout out of {', '.join(LAYOUTS)} and a dtype out of "
                f"{', '.join(_DTYPES)}, got {dict(entry)!r}."
            )
        try:
            parse_pattern(entry["pattern"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"SparseCoreConfig: layer {name!r}: {error}") from error
    return {name: dict(entry) for name, entry in layers.items()}


class SparseCoreConfig(QuantizationConfigMixin):  # type: ignore[misc]  # transformers is not typed here
    """How a model's layers are packed, for ``from_pretrained(folder, quantization_config=SparseCoreConfig("2:4"))``.

    Args:
        pattern: What is kept together: ``"2:4"``, ``"16x1"``, ``"unstructured"``, or a pattern. N:M keeps the largest
            magnitudes, which for a model pruned before are exactly its non-zero weights.
        sparsity: Fraction of zeros, for patterns that leave it open; None keeps exactly the non-zero weights.
        targets: Class names, dotted names, or ``"re:"`` with a regular expression for the whole dotted name.
        ignore: The same, for layers that stay dense. Tied weights always do, and so does the output head
            (``model.get_output_embeddings()``), unless ``targets`` has its dotted name.
        dtype: Of the stored values, ``"int8"`` included; None: as the model's.
        compute_dtype: ``"float16"``, ``"int8"`` or None, as in :class:`~sparsecore.nn.SparseLinear`.
        layers: Of a saved model: pattern, layout and (where it is not the model's) dtype of each packed layer by name.
            Written by ``save_pretrained``.
        version: Of this description.

    Raises:
        ValueError: An option that does not exist or does not fit; for a saved layer the message names it.
    """

    def __init__(
        self,
        pattern: Pattern | str | None = None,
        sparsity: float | None = None,
        targets: Sequence[str] = ("Linear",),
        ignore: Sequence[str] = (),
        *,
        dtype: torch.dtype | str | None = None,
        compute_dtype: torch.dtype | str | None = None,
        layers: Mapping[str, Mapping[str, str]] | None = None,
        version: int = FORMAT_VERSION,
    ) -> None:
        if version != FORMAT_VERSION:
            raise ValueError(
                f"SparseCoreConfig: version {version!r} is not known here (this release writes {FORMAT_VERSION}). "
                "Upgrade sparsecore."
            )
        if pattern is None and layers is None:
            raise ValueError('SparseCoreConfig: needs a pattern, for example SparseCoreConfig("2:4").')
        try:
            self.pattern = None if pattern is None else pattern_name(parse_pattern(pattern))
        except (TypeError, ValueError) as error:
            raise ValueError(f"SparseCoreConfig: {error}") from error
        number = isinstance(sparsity, (int, float)) and not isinstance(sparsity, bool)
        if sparsity is not None and not (number and 0 <= sparsity < 1):
            raise ValueError(
                f"SparseCoreConfig: sparsity is a fraction of zeros in [0, 1), got {sparsity!r}."
            )
        self.quant_method = METHOD
        self.version = version
        self.sparsity = sparsity
        self.targets = _rules("targets", targets)
        self.ignore = _rules("ignore", ignore)
        self.dtype = _one_of("dtype", dtype, _DTYPES)
        self.compute_dtype = _one_of("compute_dtype", compute_dtype, _COMPUTE_NAMES)
        self.layers = None if layers is None else _checked_layers(layers)

    @classmethod
    def from_dict(
        cls, config_dict: Mapping[str, Any], return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """The block of a ``config.json``; keys it must not have are refused."""
        given = dict(config_dict)
        method = given.pop("quant_method", METHOD)
        unknown = sorted(set(given) - {"version", *_OPTIONS})
        if method != METHOD or unknown:
            raise ValueError(
                f"SparseCoreConfig: a {METHOD} block has the keys version, {', '.join(_OPTIONS)}; got "
                f"{f'quant_method {method!r}' if method != METHOD else ', '.join(unknown)}."
            )
        config = cls(**given)
        return (config, kwargs) if return_unused_kwargs else config

    def to_dict(self) -> dict[str, Any]:
        """The block for ``config.json``; options left at None are left out."""
        options = {name: getattr(self, name) for name in _OPTIONS}
        if self.pattern is None:  # made by attach: nobody chose by rules
            del options["targets"], options["ignore"]
        described: dict[str, Any] = {"quant_method": METHOD, "version": self.version}
        return described | {name: value for name, value in options.items() if value is not None}


class _Slot(nn.Module):
    """Stands where a packed layer will be while transformers fills in its tensors, whose sizes only the file knows."""

    bias: nn.Parameter | None

    def __init__(self, linear: nn.Linear, layout: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.sizes = (linear.out_features, linear.in_features)
        self.layout, self.described = layout, torch.empty(0, dtype=torch.uint8)
        values = torch.empty(0, dtype=dtype, device="meta")
        self.parts = {"values", *LAYOUTS[layout].index_names}
        if dtype == torch.int8:
            self.register_buffer("weight_values", values)
            self.register_buffer("weight_scale", torch.empty(0, dtype=torch.float32, device="meta"))
            self.parts.add("scale")
        else:
            self.weight_values = nn.Parameter(values)
        for name in LAYOUTS[layout].index_names:
            self.register_buffer(f"weight_{name}", torch.empty(0, dtype=torch.uint8, device="meta"))
        self.register_parameter("bias", linear.bias)

    def get_extra_state(self) -> Tensor:
        return self.described

    def set_extra_state(self, state: Tensor) -> None:
        self.described = state

    def finish(self) -> SparseLinear:
        """The checked layer.

        Raises:
            ValueError: A tensor is missing or damaged.
        """
        if not self.described.numel():
            raise ValueError("its description (_extra_state) is missing. The folder is incomplete.")
        described = read_extra_state(self.described)
        if tuple(described["shape"]) != self.sizes or described["layout"] != self.layout:
            raise ValueError(
                f"the file holds {described['shape']} {described['layout']}, the model and config.json say "
                f"{list(self.sizes)} {self.layout}."
            )
        # The file stays mapped behind the tensors it gave: a layer owns its memory. What it lacked is empty here.
        state: dict[str, Any] = {
            f"weight_{name}": getattr(self, f"weight_{name}").detach().clone() for name in self.parts
        }
        packed = placed(
            packed_from_state(state | {"_extra_state": self.described}, ""), self.weight_values.device
        )
        compute = COMPUTE_DTYPES[described["compute"] or "float32"]
        layer = SparseLinear.from_packed(
            packed, self.bias, activation=described["activation"], compute_dtype=compute
        )
        return layer.train(self.training)


def _packed_layers(model: nn.Module) -> dict[str, SparseLinear]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, SparseLinear)}


def _describe(model: Any, config: SparseCoreConfig) -> None:
    """Brings the description in ``model.config`` up to date with the layers the model has now."""
    layers: dict[str, dict[str, str]] = {}
    for name, layer in _packed_layers(model).items():
        layers[name] = {"pattern": pattern_name(layer.pattern), "layout": layer.layout}
        if layer.weight_values.dtype != model.dtype:
            layers[name]["dtype"] = str(layer.weight_values.dtype).removeprefix("torch.")
    config.layers = layers
    if layers:
        model.config.quantization_config = config
    elif hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    _untie(model, layers)


def _untie(model: Any, layers: Mapping[str, Any]) -> None:
    """A packed layer has a weight of its own, whatever it was tied to as a dense one."""
    tied: dict[str, str] = getattr(model, "all_tied_weights_keys", {})
    gone = [key for key in tied if key.removesuffix(".weight") in layers]
    for key in gone:
        tied.pop(key)
    if gone:
        model.config.tie_word_embeddings = False
        model.config.get_text_config().tie_word_embeddings = False


def _refuse_packed_files(files: Sequence[str]) -> None:
    """A folder saved without a description must not be taken for one without weights."""
    for path in files:
        if not str(path).endswith(".safetensors"):
            continue
        with safe_open(path, framework="pt") as file:
            packed = [key for key in file.keys() if key.endswith(".weight_values")]  # noqa: SIM118 (not a dict)
        if packed:
            raise ValueError(
                f"from_pretrained: layer {packed[0].removesuffix('.weight_values')!r} is packed in {path}, and "
                "config.json does not say so. Save the model again, after attach(model)."
            )


class SparseCoreQuantizer(HfQuantizer):  # type: ignore[misc]  # transformers is not typed here
    """What transformers calls while it loads and saves; reached through :func:`register`."""

    quantization_config: SparseCoreConfig

    def __init__(self, quantization_config: SparseCoreConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        # A block without layers asks for packing, be it from an argument or from config.json.
        self.pre_quantized = quantization_config.layers is not None

    def validate_environment(self, device_map: Any = None, **_: Any) -> None:
        """Refuses devices other than the CPU."""
        asked = list(device_map.values()) if isinstance(device_map, Mapping) else [device_map]
        odd = [str(place) for place in asked if str(place) not in ("None", "cpu", "auto", "balanced")]
        if odd:
            raise ValueError(
                f"from_pretrained: packed layers run on the CPU, device_map asks for {odd[0]!r}. Use device_map='cpu'."
            )

    def update_device_map(self, device_map: Any) -> Any:
        return {"": "cpu"} if isinstance(device_map, str) else device_map

    def param_needs_quantization(self, model: nn.Module, param_name: str, **_: Any) -> bool:
        """True for tensors of packed layers, whose sizes transformers cannot know."""
        name, part = param_name.rpartition(".")[::2]
        return part.startswith("weight_") and isinstance(model.get_submodule(name), _Slot)

    def _process_model_before_weight_loading(
        self, model: Any, dtype: torch.dtype | None = None, checkpoint_files: Any = None, **_: Any
    ) -> None:
        layers = self.quantization_config.layers
        if layers is None:
            _refuse_packed_files(checkpoint_files or ())
            return
        modules = dict(model.named_modules())
        prefix = f"{model.base_model_prefix}."
        for saved, entry in layers.items():
            # a head's folder loads into the bare model, and the other way round
            name = next(
                (n for n in (saved, prefix + saved, saved.removeprefix(prefix)) if n in modules), None
            )
            if name is None:
                continue
            if type(modules[name]) is not nn.Linear:
                raise ValueError(
                    f"from_pretrained: layer {saved!r} is packed in the folder; there the model has "
                    f"{type(modules[name]).__name__} and needs an nn.Linear. Is it another architecture?"
                )
            stored = _DTYPES[entry["dtype"]] if "dtype" in entry else dtype or model.dtype
            _replace(model, name, _Slot(modules[name], entry["layout"], stored))
        slots = [name for name, module in model.named_modules() if isinstance(module, _Slot)]
        if layers and not slots:
            raise ValueError(
                f"from_pretrained: {type(model).__name__} has none of the packed layers of the folder, for example "
                f"{next(iter(layers))!r}. Is it another architecture?"
            )
        _untie(model, dict.fromkeys(slots))

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        config = self.quantization_config
        if config.layers is None:
            self._pack(model)
        for name, module in list(model.named_modules()):
            if isinstance(module, _Slot):
                try:
                    _replace(model, name, module.finish())
                except ValueError as error:
                    raise ValueError(f"from_pretrained: layer {name!r}: {error}") from error
        give_back_freed()
        self.pre_quantized = True
        _describe(model, config)
        return model

    def _pack(self, model: Any) -> None:
        """Packs a dense model layer by layer, so that only one exists twice at any time."""
        config = self.quantization_config
        assert config.pattern is not None
        tied = getattr(model, "all_tied_weights_keys", {})
        shared = {key.removesuffix(".weight") for key in (*tied.keys(), *tied.values())}
        head = model.get_output_embeddings()
        chosen = [
            name
            for name, module in model.named_modules()
            if type(module) is nn.Linear
            and name not in shared
            and (module is not head or name in config.targets)
            and matches(name, module, config.targets)
            and not matches(name, module, config.ignore)
        ]
        if not chosen:
            raise ValueError(
                f"from_pretrained: no linear layer is left to pack with targets={config.targets} and "
                f"ignore={config.ignore}; tied weights and the output head stay dense."
            )
        for name in chosen:
            try:
                layer = SparseLinear.from_dense(
                    model.get_submodule(name),
                    config.pattern,
                    sparsity=config.sparsity,
                    dtype=None if config.dtype is None else _DTYPES[config.dtype],
                    compute_dtype=None
                    if config.compute_dtype is None
                    else _COMPUTE_NAMES[config.compute_dtype],
                )
            except ValueError as error:
                raise ValueError(f"from_pretrained: layer {name!r}: {error}") from error
            _replace(model, name, layer)

    def get_state_dict_and_metadata(self, model: Any) -> tuple[None, dict[str, str]]:
        """Called first by ``save_pretrained``: what is described is what the model holds at that moment."""
        _describe(model, self.quantization_config)
        return None, {}

    def _dequantize(self, model: Any, dtype: torch.dtype | None = None) -> Any:
        densify_(model)
        return model if dtype is None else model.to(dtype)

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True

    @property
    def is_qat_trainable(self) -> bool:
        """Gradients reach the kept weights, so the Trainer may have the model without adapters."""
        return True

    @property
    def is_compileable(self) -> bool:
        return True


def register() -> None:
    """Enters ``sparsecore`` in transformers' registry of stored forms. Call it once, before ``from_pretrained``.

    Calling it again changes nothing.
    """
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING

    if METHOD not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        register_quantization_config(METHOD)(SparseCoreConfig)
    if METHOD not in AUTO_QUANTIZER_MAPPING:
        register_quantizer(METHOD)(SparseCoreQuantizer)


def attach(model: Any) -> Any:
    """Tells a model that ``sc.sparsify_`` converted how it is to be saved; ``save_pretrained`` then does the rest.

    Models that ``from_pretrained`` packed or restored know already.

    Args:
        model: A transformers model, changed in place.

    Returns:
        The model.

    Raises:
        TypeError: It is no transformers model.
        ValueError: It has no packed layer, or belongs to another quantisation method.
    """
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"attach: needs a transformers model, got {type(model).__name__}. sc.save saves any module."
        )
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None and not isinstance(quantizer, SparseCoreQuantizer):
        raise ValueError(
            f"attach: the model is stored by {type(quantizer).__name__}. Call model.dequantize() before sparsify_."
        )
    if not _packed_layers(model):
        raise ValueError('attach: the model has no packed layer. Call sc.sparsify_(model, "2:4", ...) first.')
    register()
    if quantizer is None:
        model.hf_quantizer = quantizer = SparseCoreQuantizer(SparseCoreConfig(layers={}))
    _describe(model, quantizer.quantization_config)
    return model
