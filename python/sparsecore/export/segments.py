"""A model that a network file holds in part: networks and torch in turns.

Every node gets a level: the largest level of what it reads, and one more where the kind (network or torch) changes.
Even levels are networks, odd ones torch, and running the levels in order respects every dependency with as few
changes as the model allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

Runner = Callable[..., Any]


def levels_of(nodes: Sequence[fx.Node], left_to_torch: set[fx.Node]) -> dict[fx.Node, int]:
    """The level of every node."""
    levels: dict[fx.Node, int] = {}
    for node in nodes:
        level = max((levels[each] for each in node.all_input_nodes if each in levels), default=0)
        levels[node] = level + (level % 2 != (node in left_to_torch))
    return levels


@dataclass(frozen=True)
class Segment:
    """Some neighbouring operators: what they read and write, by node name, and what runs them.

    Attributes:
        kind: ``"network"`` or ``"torch"``.
        reads: Names of what comes from outside, in the order of the arguments.
        writes: Names of what others read, in the order of the results.
        shapes: Of the results without the batch, as torch has them; None for torch's own.
        run: The network or the torch function.
        operators: How many operators of torch it stands for.
    """

    kind: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...] | None
    run: Runner
    operators: int


class SplitNetwork:
    """What :func:`sparsecore.compile` returns where some operators stay with torch.

    It is called like the model. Torch's part was traced with one size of batch, so that is the only one it takes.

    Attributes:
        segments: In the order of execution.
        batch: Images per call.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        inputs: Sequence[str],
        outputs: Sequence[str],
        constants: dict[str, Tensor],
        batch: int,
    ) -> None:
        self.segments = tuple(segments)
        self._constants = constants  # outputs that do not depend on the input
        self.batch = batch
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The model's outputs: one, or a tuple."""
        if len(inputs) != len(self._inputs):
            raise ValueError(f"SplitNetwork: needs {len(self._inputs)} inputs, got {len(inputs)}.")
        sizes = {each.shape[0] if each.dim() else 0 for each in inputs}
        if sizes != {self.batch}:
            raise ValueError(
                f"SplitNetwork: was compiled for batches of {self.batch}, as a part of it stays with torch, and got "
                f"{sorted(sizes)}. Compile it with an example of that batch."
            )
        known: dict[str, Any] = self._constants | dict(zip(self._inputs, inputs, strict=True))
        for segment in self.segments:
            results = segment.run(*(known[name] for name in segment.reads))
            results = results if isinstance(results, tuple) and len(segment.writes) > 1 else (results,)
            if segment.shapes is not None:
                results = tuple(
                    each.reshape(-1, *shape) for each, shape in zip(results, segment.shapes, strict=True)
                )
            known.update(zip(segment.writes, results, strict=True))
        found = tuple(known[name] for name in self._outputs)
        return found if len(found) > 1 else found[0]

    run = __call__

    def explain(self) -> str:
        """A line per segment: who runs it, and how many operators of torch it stands for."""
        return "\n".join(
            f"{number}: {segment.kind}, {segment.operators} operators, {', '.join(segment.reads)} -> "
            f"{', '.join(segment.writes)}"
            for number, segment in enumerate(self.segments)
        )


def torch_segment(
    nodes: Sequence[fx.Node],
    constants: dict[fx.Node, Tensor],
    reads: Sequence[fx.Node],
    writes: Sequence[fx.Node],
) -> Runner:
    """Some nodes of a program as a function of ``reads``."""
    graph, copies = fx.Graph(), {}
    root = torch.nn.Module()
    for node in reads:
        copies[node] = graph.placeholder(node.name)
    for node in nodes:
        for each in node.all_input_nodes:
            if each not in copies:
                name = f"constant_{each.name}"
                root.register_buffer(name, constants[each])
                copies[each] = graph.get_attr(name)
        copies[node] = graph.node_copy(node, lambda each: copies[each])
    results = tuple(copies[node] for node in writes)
    graph.output(results if len(results) > 1 else results[0])
    return fx.GraphModule(root, graph)
