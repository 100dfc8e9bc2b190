"""Converted models leave Python: torch.compile without graph breaks, torch.export files with a free batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.export import Dim

import sparsecore as sc


class Encoder(nn.Module):
    """A BERT block with tensors in and out, as exported programs like them."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 1}
        config = transformers.BertConfig(vocab_size=100, attn_implementation="sdpa", **sizes)
        self.bert = transformers.BertModel(config, add_pooling_layer=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.bert(ids, attention_mask=mask)[0]
        return (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)


def _batch(size: int) -> tuple[Tensor, Tensor]:
    mask = torch.ones(size, 12, dtype=torch.int64)
    mask[0, 7:] = 0
    return torch.randint(0, 100, (size, 12)), mask


def _encoder(pattern: str, **options: Any) -> nn.Module:
    sparsity = None if ":" in pattern else 0.5
    return sc.sparsify_(Encoder().eval(), pattern, sparsity=sparsity, **options).requires_grad_(False)


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("2:4", {}),
    ("2:4/16", {"dtype": torch.bfloat16}),
    ("16x1", {"dtype": torch.int8, "compute_dtype": torch.int8}),
    ("unstructured", {}),
]


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # torch's own, while it writes a program
@pytest.mark.parametrize(("pattern", "options"), OPTIONS)
def test_export_with_any_batch(tmp_path: Path, pattern: str, options: dict[str, Any]) -> None:
    model = _encoder(pattern, **options)
    batch = Dim("batch", min=1, max=64)
    program = torch.export.export(model, _batch(3), dynamic_shapes=({0: batch}, {0: batch}))
    torch.export.save(program, tmp_path / "encoder.pt2")
    loaded = torch.export.load(tmp_path / "encoder.pt2").module()
    assert any("sparsecore" in str(node.target) for node in program.graph.nodes)
    for size in (1, 3, 17):
        inputs = _batch(size)
        assert torch.equal(loaded(*inputs), model(*inputs))


def test_compile_without_graph_breaks() -> None:  # tests/nn compiles a layer of every pattern
    model = _encoder("2:4")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for size in (1, 3, 17):
        inputs = _batch(size)
        assert torch.allclose(compiled(*inputs), model(*inputs), atol=1e-6)
