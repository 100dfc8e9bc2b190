"""The demo, part by part: prune, judge, time, weigh; every finished part is kept on disk."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import sparsecore as sc
from sparsecore.demo import memory, peers, timing
from sparsecore.demo.environment import describe
from sparsecore.demo.models import MODELS
from sparsecore.demo.source import Source
from sparsecore.demo.store import Store, write_atomically
from sparsecore.demo.variants import VARIANTS, Variant, advise, load, prune, recover
from sparsecore.sparsify._progress import bar

Say = Callable[[str], object]
STAGES = ("advice", "models", "times")
SAME = 0.02  # measures of one pruned model on two machines: sums in another order move a share of 512 texts by some


@dataclass(frozen=True)
class Settings:
    """What is measured. Results of other settings are kept apart.

    Attributes:
        method: ``alps`` or ``sparsegpt``.
        held_out: Inputs to judge by.
        calibration: Inputs to prune by.
        tokens: Longest text, and the length of every text that is timed.
        threads: Numbers of threads to time.
        batches: Batch sizes to time.
        dense_peers: Whether engines other than eager torch are timed.
        recovery: Factor on the variants' steps of recovery; 0 leaves all as they were pruned.
    """

    method: str = "alps"
    held_out: int = 512
    calibration: int = 256
    tokens: int = 128
    threads: tuple[int, ...] = (1, 2)
    batches: tuple[int, ...] = (1, 32)
    dense_peers: bool = True
    recovery: float = 1.0


def run(
    source: Source,
    settings: Settings,
    output: Path,
    *,
    variants: Sequence[Variant] = VARIANTS,
    fresh: bool = False,
    until: str = "times",
    quality: Mapping[str, Any] | None = None,
    progress: bool = True,
    say: Say = print,
) -> dict[str, Any]:
    """Runs what is not finished yet and returns all results; also in ``output/results.json``.

    Args:
        source: The model with its data.
        settings: What is measured.
        output: Folder of the results, and of finished parts.
        variants: What is made of the model.
        fresh: Forget finished parts.
        until: The last stage: ``advice`` times layers where a variant asks for it, ``models`` prunes, judges and
            recovers, ``times`` times and weighs the models and writes the results. A machine that others use can make
            the models, which only takes longer then, and be kept free for the two stages that measure.
        quality: Results of an earlier run, of another machine perhaps. Variants it recovered by the same recipe are not
            trained again: they take its quality, and what is timed is the model as it was pruned, which has the same
            zeros. Advised variants depend on the machine and are always made here.
        progress: Show progress bars.
        say: Takes a line on what happens.

    Raises:
        ValueError: An unknown stage, or earlier results of other settings, or whose pruned models were others.
    """
    if until not in STAGES:
        raise ValueError(f"run: until must be one of {', '.join(STAGES)}, got {until!r}.")
    planned = [[variant.key, variant.steps, variant.lr] for variant in variants]
    keys = {
        "model": source.name,
        "variants": planned,
        **asdict(settings),
        "measures": dict(source.task.measures),
        "shown": source.task.shown,
        "about": source.task.about,
    }
    known = {} if quality is None else _known(quality, keys)
    job = _Job(source, settings, variants, Store(output / "parts", keys, fresh), progress, known)
    results: dict[str, Any] = {"settings": keys, "environment": describe(), "variants": {}, "latency": {}}
    if any(variant.pattern is None for variant in variants):
        say("advice: time the layers")
        job.advice()
    if until == "advice":
        return results
    results["dense"] = {"disk_bytes": job.save_dense(), **job.dense_quality()}
    for position, variant in enumerate(variants, 1):
        steps = job.steps(variant)
        say(f"[{position}/{len(variants)}] {variant.title}: prune, pack, judge")
        found = job.pruned(variant) | job.judged(variant)
        say(f"      one shot: {job.shown(found)}")
        if steps:
            earlier = job.earlier(variant)
            say(f"      recovering in {steps} steps" if earlier is None else "      recovered before")
            found = {**found, "one_shot": {key: found[key] for key in source.task.measures}}
            found |= job.recovered(variant) if earlier is None else earlier
            say(f"      recovered: {job.shown(found)}")
        results["variants"][variant.key] = {"title": variant.title, **found}
    if until == "models":
        return results
    for threads in settings.threads:
        for batch in settings.batches:
            say(f"latency: batch {batch}, {source.task.shown}, {threads} thread{'s' * (threads > 1)}")
            results["latency"][f"batch {batch}, threads {threads}"] = job.timed(batch, threads)
    for key, value in job.weighed().items():
        (results["dense"] if key == "dense" else results["variants"][key])["resident_bytes"] = value
    write_atomically(output / "results.json", lambda target: target.write_text(json.dumps(results, indent=1)))
    return results


def _known(quality: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Recovered variants of earlier results, by key, each with the commit and the date of its recovery."""
    same = ("model", "method", "held_out", "calibration", "tokens", "recovery", "measures")
    try:
        settings, environment = quality["settings"], quality["environment"]
        odd = next((name for name in same if settings[name] != keys[name]), None)
        recipes = {recipe[0]: list(recipe) for recipe in settings["variants"]}
        found = quality["variants"]
        mark = {"commit": environment["commit"], "date": environment["date"]}
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"run: quality must be the results of an earlier run ({error!r}).") from error
    if odd is not None:
        raise ValueError(
            f"run: quality was measured with {odd} {settings[odd]!r}, this run has {keys[odd]!r}. Give both the same."
        )
    planned = [list(recipe) for recipe in keys["variants"]]
    return {
        key: {"recovered_by": mark, **values}
        for key, values in found.items()
        if "one_shot" in values and recipes.get(key) in planned
    }


@dataclass
class _Job:
    """The parts; each is read back from the store if it was finished before."""

    source: Source
    settings: Settings
    variants: Sequence[Variant]
    store: Store
    progress: bool
    known: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        self.dense = self.source.make()
        self._reference: Any = None

    def steps(self, variant: Variant) -> int:
        """Of recovery."""
        return round(self.settings.recovery * variant.steps)

    def pruned_file(self, variant: Variant) -> Path:
        return self.store.folder / f"{variant.key}.safetensors"

    def file(self, variant: Variant) -> Path:
        """Of the model that is timed and weighed."""
        recovers = self.steps(variant) and self.earlier(variant) is None
        return self.recovered_file(variant) if recovers else self.pruned_file(variant)

    def recovered_file(self, variant: Variant) -> Path:
        return self.store.folder / f"{variant.key}-recovered.safetensors"

    def earlier(self, variant: Variant) -> dict[str, Any] | None:
        """The recovery of an earlier run, unless there is one of this run.

        Raises:
            ValueError: The pruned model was another then.
        """
        found = self.known.get(variant.key)
        if found is None or variant.pattern is None or self.recovered_file(variant).exists():
            return None
        first, now = found["one_shot"], self.judged(variant)
        apart = {key: abs(first[key] - now[key]) for key in self.source.task.measures}
        if max(apart.values()) > SAME:
            raise ValueError(
                f"run: pruned in one shot, {variant.title} has {self.shown(now)}; in the earlier results it has "
                f"{self.shown(first)}. They are of other code or data: leave quality out."
            )
        wanted = (*self.source.task.measures, "recovery_seconds", "recovery_losses", "recovered_by")
        return {key: found[key] for key in wanted}

    def model(self, variant: Variant) -> nn.Module:
        return self.source.task.fuse(load(self.source, self.file(variant)))

    def save_dense(self) -> int:
        """Writes the dense model as the variants are written, and returns the size of the file."""
        path = self.store.folder / "dense.safetensors"
        if not path.exists():
            write_atomically(path, lambda target: sc.save(self.dense, target))
        return path.stat().st_size

    def advice(self) -> sc.Advice:
        """One for all variants that ask for it: their budgets choose from the same measurements."""
        return sc.Advice.from_dict(self._part("advice", lambda: advise(self.source, self.progress).to_dict()))

    def pruned(self, variant: Variant) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            begin = time.perf_counter()
            target, method = self.pruned_file(variant), self.settings.method
            prune(self.source, variant, method, target, self.progress, self.advice)
            seconds = time.perf_counter() - begin
            model = load(self.source, self.pruned_file(variant))
            packed = [layer for layer in sc.report(model).layers if layer.pattern != "dense"]
            weights = [layer.shape[0] * layer.shape[1] for layer in packed]
            stored = [(1.0 - layer.sparsity) * count for layer, count in zip(packed, weights, strict=True)]
            return {
                "seconds": seconds,
                "kept": sum(stored) / sum(weights) if weights else 1.0,
                "packed_bytes": sum(layer.nbytes for layer in packed),
                "dense_bytes": sum(layer.dense_bytes for layer in packed),
                "disk_bytes": self.pruned_file(variant).stat().st_size,
            }

        return self._part(f"prune-{variant.key}", make)

    def judged(self, variant: Variant) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            return self._quality(self.source.task.fuse(load(self.source, self.pruned_file(variant))))

        return self._part(f"quality-{variant.key}", make)

    def recovered(self, variant: Variant) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            begin = time.perf_counter()
            losses = recover(
                self.source,
                variant,
                self.steps(variant),
                self.pruned_file(variant),
                self.file(variant),
                self.progress,
            )
            seconds = time.perf_counter() - begin
            return {
                **self._quality(self.model(variant)),
                "recovery_seconds": seconds,
                "recovery_losses": losses,
            }

        return self._part(f"recovery-{variant.key}", make)

    def timed(self, batch: int, threads: int) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            before = torch.get_num_threads()
            torch.set_num_threads(threads)
            try:
                return self._latency(batch, threads)
            finally:
                torch.set_num_threads(before)

        return self._part(f"latency-b{batch}-t{threads}", make)

    def weighed(self) -> dict[str, int]:
        """Resident bytes by variant and for ``dense``, for models of packages, where the system tells."""
        name = next((key for key, model in MODELS.items() if model.make is self.source.make), None)
        if name is None or not Path("/proc/self/status").exists():
            return {}
        files = {variant.key: str(self.file(variant)) for variant in self.variants}

        def make() -> dict[str, Any]:
            found = memory.measure(name, ["dense", *files.values()])
            return {"dense": found["dense"], **{key: found[file] for key, file in files.items()}}

        return self._part("memory", make)

    def _part(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = self.store.part(name, make)
        return found

    def dense_quality(self) -> dict[str, Any]:
        return self._part("quality-dense", lambda: self._quality(self.dense))

    def shown(self, found: dict[str, Any]) -> str:
        """The measures in words."""
        return ", ".join(f"{title} {found[key]:.3f}" for key, title in self.source.task.measures.items())

    def _quality(self, model: nn.Module) -> dict[str, float]:
        task, held_out = self.source.task, self.source.held_out
        if self._reference is None:
            self._reference = task.outputs(self.dense, held_out)
        return task.quality(task.outputs(model, held_out), self._reference)

    def _latency(self, batch: int, threads: int) -> dict[str, Any]:
        inputs = self.source.timing(batch)
        calls = {"torch eager": peers.torch_call(self.dense, inputs)}
        missing: dict[str, str] = {}
        if self.settings.dense_peers:
            onnx = self.store.folder / "dense.onnx"
            calls, missing = peers.dense_calls(self.source, self.dense, inputs, threads, onnx)
        dense_names = [name for name in calls if "bf16" not in name]
        for variant in self.variants:
            calls[variant.title] = peers.torch_call(self.model(variant), inputs)
        for call in calls.values():
            call()
        rounds, repeats = (12, 3) if batch < 8 else (4, 1)
        with bar(rounds * len(calls), f"batch {batch}, {threads} threads", self.progress, "visit") as advance:
            seconds = timing.interleave(calls, rounds, repeats, advance)
        engines = {name: timing.summary(values, seconds["torch eager"]) for name, values in seconds.items()}
        best = min(dense_names, key=lambda name: engines[name]["median_ms"])
        for name, values in engines.items():
            ratios = [b / s for b, s in zip(seconds[best], seconds[name], strict=True)]
            values["against_best"] = statistics.median(ratios)
        return {"engines": engines, "best_dense": best, "missing": missing}
