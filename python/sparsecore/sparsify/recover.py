"""Recovery: a pruned model learns again what its dense teacher computes, with its zeros where they are.

No labels are needed: the teacher's hidden states and outputs on plain inputs are the target. A packed model trains on
the sparse kernels, with optimizer state for kept weights only; a dense one with exact zeros keeps them.
"""

from __future__ import annotations

import copy
import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsecore.sparsify._progress import bar
from sparsecore.sparsify.calibration import Batch, find_chain, run_model
from sparsecore.sparsify.masked import MaskedOptimizer
from sparsecore.sparsify.penalties import LayerDistillation, SquareHead, hidden_states

Output = Callable[[Any, Batch], Tensor]
_VERSION = 1


@dataclass
class Recovery:
    """What happened.

    Attributes:
        losses: Mean loss of each tenth of the steps.
        steps: Taken.
        seconds: Spent.
    """

    losses: list[float] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0


def default_layers(model: nn.Module) -> list[str]:
    """Names of the members of the model's longest chain of blocks, or of its linear layers without one."""
    targets = {name: module for name, module in model.named_modules() if hasattr(module, "in_features")}
    chain = {id(block) for block in find_chain(model, targets)}
    names = [name for name, module in model.named_modules() if id(module) in chain]
    return names or list(targets)


def recover(
    model: nn.Module,
    teacher: nn.Module,
    data: Sequence[Batch],
    *,
    steps: int,
    lr: float = 3e-4,
    penalty: SquareHead | LayerDistillation | None = None,
    layers: Sequence[str] | None = None,
    output: Output | None = None,
    output_weight: float = 1.0,
    masks: Mapping[str, Tensor] | None = None,
    train: Callable[[str, nn.Parameter], bool] | None = None,
    warmup: float = 0.1,
    clip: float = 1.0,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 50,
    progress: bool = True,
    title: str = "recovering",
) -> Recovery:
    """Distils a pruned model from its dense teacher, in place.

    Adam with a linear warm-up and a cosine to zero. Weights that are zero stay zero. The same seed gives the same
    weights on the same machine; an interrupted run with a checkpoint goes on bit for bit.

    Args:
        model: Pruned: packed by ``sparsecore.sparsify_``, or dense with exact zeros.
        teacher: The dense model; its modules have the same names. It is only read.
        data: Batches as for :func:`sparsecore.sparsify.prune_once`; an ``attention_mask`` in a mapping leaves padding
            out. Drawn in random order, over and over.
        steps: Optimizer steps.
        lr: Highest learning rate.
        penalty: On the hidden states; ``SquareHead()`` by default.
        layers: Names of the modules whose outputs are compared; None: the blocks of the model's longest chain.
        output: ``output(result, batch)`` turns what the model returns into a tensor that is compared too, by mean
            squared error per row: an embedding of length one, for instance.
        output_weight: Factor on that.
        masks: By layer name, for dense models whose kept weights may be zero; None: exact zeros stay.
        train: ``(name, parameter) -> bool``, which parameters learn; None: all but embeddings.
        warmup: Share of the steps in which the learning rate rises.
        clip: Largest norm of the gradient.
        seed: Of the order of batches.
        checkpoint: File to go on from, and to write every so often; removed at the end.
        checkpoint_every: Steps between.
        progress: Show a bar with the loss.
        title: Of the bar.

    Returns:
        What happened.

    Raises:
        ValueError: Nothing to learn from, an argument outside its range, a checkpoint of another run, or a loss that
            is not finite (the model then has the weights of its last good checkpoint, or of the start).
    """
    if not data:
        raise ValueError("recover: data holds no batch. Pass a list of inputs of the model.")
    if steps < 1 or not lr > 0.0 or not 0.0 <= warmup <= 1.0 or not clip > 0.0:
        raise ValueError(
            f"recover: needs steps >= 1, lr > 0, 0 <= warmup <= 1 and clip > 0, got {steps}, {lr}, {warmup}, {clip}."
        )
    names = default_layers(model) if layers is None else list(layers)
    missing = [name for name in names if name not in dict(teacher.named_modules())]
    if missing:
        raise ValueError(
            f"recover: the teacher has no module {missing[0]!r}. Pass layers= that both models have."
        )
    run = _Run(
        model,
        teacher,
        data,
        steps=steps,
        lr=lr,
        penalty=SquareHead() if penalty is None else penalty,
        names=names,
        output=output,
        output_weight=output_weight,
        warmup=warmup,
        clip=clip,
        seed=seed,
    )
    state = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    try:
        run.prepare(masks, _all_but_embeddings(model) if train is None else train)
        model.eval()  # no dropout: the teacher has none either
        return run.go(None if checkpoint is None else Path(checkpoint), checkpoint_every, progress, title)
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(state[name])
            parameter.grad = None
        for name, module in model.named_modules():
            module.training = modes[name]


def _all_but_embeddings(model: nn.Module) -> Callable[[str, nn.Parameter], bool]:
    embedded = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    return lambda _, parameter: id(parameter) not in embedded


@dataclass
class _Run:
    model: nn.Module
    teacher: nn.Module
    data: Sequence[Batch]
    steps: int
    lr: float
    penalty: SquareHead | LayerDistillation
    names: Sequence[str]
    output: Output | None
    output_weight: float
    warmup: float
    clip: float
    seed: int

    def prepare(self, masks: Mapping[str, Tensor] | None, train: Callable[[str, nn.Parameter], bool]) -> None:
        chosen = []
        for name, parameter in self.model.named_parameters():
            wanted = parameter.is_floating_point() and train(name, parameter)
            parameter.requires_grad_(wanted)
            if wanted:
                chosen.append(parameter)
        if not chosen:
            raise ValueError("recover: train leaves no parameter to learn.")
        self.parameters = chosen
        bare = torch.optim.Adam(chosen, self.lr, betas=(0.9, 0.98))
        held = {id(parameter) for parameter in chosen}
        if masks is None:
            learning = dict(self.model.named_parameters())
            masks = {
                name: learning[name].detach() != 0
                for name in learning
                if id(learning[name]) in held
                and learning[name].dim() > 1
                and bool((learning[name] == 0).any())
            }
        self.optimizer = MaskedOptimizer(bare, self.model, masks)
        self.random = torch.Generator().manual_seed(self.seed)
        self.queue: list[int] = []
        self.history: list[float] = []

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        rising = max(1, round(self.warmup * self.steps))
        if step < rising:
            return self.lr * (step + 1) / rising
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, self.steps - rising)))

    def go(self, checkpoint: Path | None, every: int, progress: bool, title: str) -> Recovery:
        begin = time.perf_counter()
        first = self.resume(checkpoint) if checkpoint is not None and checkpoint.exists() else 0
        good = copy.deepcopy(self.model.state_dict())
        with bar(self.steps, title, progress, "step") as advance:
            for _ in range(first):
                advance()
            for step in range(first, self.steps):
                loss = self.step(step)
                if not math.isfinite(loss):
                    self.model.load_state_dict(good)
                    raise ValueError(
                        f"recover: the loss is {loss} at step {step}. The model has the weights of its last good "
                        f"checkpoint; lower lr (now {self.lr:g})."
                    )
                self.history.append(loss)
                if checkpoint is not None and (step + 1) % every == 0 and step + 1 < self.steps:
                    self.save(checkpoint, step + 1)
                    good = copy.deepcopy(self.model.state_dict())
                advance()
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        tenth = max(1, len(self.history) // 10)
        means = [
            sum(self.history[i : i + tenth]) / len(self.history[i : i + tenth])
            for i in range(0, len(self.history), tenth)
        ]
        return Recovery(means, self.steps, time.perf_counter() - begin)

    def next_batch(self) -> Batch:
        if not self.queue:
            self.queue = torch.randperm(len(self.data), generator=self.random).tolist()
        return self.data[self.queue.pop()]

    def step(self, step: int) -> float:
        batch = self.next_batch()
        mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
        kept = mask.bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None
        with torch.no_grad(), hidden_states(self.teacher, self.names) as wanted:
            answer = run_model(self.teacher, batch)
            target = None if self.output is None else self.output(answer, batch)
        with hidden_states(self.model, self.names) as found:
            result = run_model(self.model, batch)
        loss = self.penalty(found, wanted, kept)
        if self.output is not None and target is not None:
            error = (self.output(result, batch) - target).square().sum(-1).mean()
            loss = loss + self.output_weight * error
        value = loss.item()
        if not math.isfinite(value):
            return value
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        self.optimizer.step()
        return value

    def described(self) -> dict[str, Any]:
        """What a checkpoint has to agree with."""
        return {
            "version": _VERSION,
            "steps": self.steps,
            "lr": self.lr,
            "seed": self.seed,
            "batches": len(self.data),
            "parameters": [list(parameter.shape) for parameter in self.parameters],
        }

    def save(self, path: Path, step: int) -> None:
        """Writes the state beside ``path`` and renames it: an interruption leaves the old one."""
        state = {
            "run": self.described(),
            "step": step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.get_state(),
            "queue": self.queue,
            "history": self.history,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        try:
            torch.save(state, temporary)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def resume(self, path: Path) -> int:
        """Takes the state over and returns the step to go on with."""
        try:
            state = torch.load(path, weights_only=True)
        except Exception as error:
            raise ValueError(f"recover: {path} is not a readable checkpoint ({error}). Delete it.") from error
        if not isinstance(state, dict) or state.get("run") != self.described():
            raise ValueError(
                f"recover: {path} is the checkpoint of another run. Delete it or name another file."
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.set_state(state["random"])
        self.queue, self.history = state["queue"], state["history"]
        return int(state["step"])
