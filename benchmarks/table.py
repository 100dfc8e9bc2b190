"""Writes docs/performance.md and the tables of other pages from benchmarks/results.

    python benchmarks/table.py [--check]

``--check`` writes nothing and fails where a page is not what the results give. A page says where its table belongs by
``<!-- bench-table:start -->`` and ``<!-- bench-table:end -->``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "python")]

from tables import ROOT, Result, by_machine, gpu, groups, layers, models, networks, origin, results  # noqa: E402

START, END = "<!-- bench-table:start -->", "<!-- bench-table:end -->"

SECTIONS: dict[str, tuple[str, Callable[[list[Result]], str]]] = {
    "networks": ("Whole image networks", networks.networks_section),
    "apart": ("The same where a second thread is far", networks.apart_section),
    "conv": ("1x1 convolutions", networks.conv_section),
    "wasm_networks": ("Whole networks in WebAssembly", networks.wasm_networks_section),
    "accuracy": ("Accuracy beside speed", networks.accuracy_section),
    "linear": ("Linear layers, 32 to 512 tokens", layers.linear_section),
    "groups": ("Linear layers in groups, by layout", groups.groups_section),
    "crossover": ("From how many zeros on", groups.crossover_section),
    "decode": ("Few tokens, weights from memory", layers.decode_section),
    "sparse": ("Beside other sparse products", layers.sparse_section),
    "wasm": ("WebAssembly", layers.wasm_section),
    "training": ("A training step: forward, input gradient, weight gradient, Adam", layers.training_section),
    "memory": ("Memory of training", layers.memory_section),
}

MARKED: dict[str, Callable[[], str]] = {
    "README.md": layers.readme_table,
    "docs/which_pattern.md": models.demo_tables,
    "docs/recovery.md": models.make_demo_tables,
    "docs/advise.md": models.advise_tables,
    "docs/training.md": models.training_presets,
    "docs/image_networks.md": models.image_networks,
    "docs/sparsify.md": models.oneshot_methods,
    "docs/allocations.md": models.oneshot_allocations,
    "docs/kernels/variable_nm.md": layers.variable_nm_table,
}


def performance_page() -> str:
    """docs/performance.md."""
    parts = [
        "# Measured performance\n",
        "Written by `python benchmarks/table.py` from `benchmarks/results`; `make bench` measures. A ratio is the time "
        "of the peer over ours in the same run, interleaved, medians; below 1 we lose. Activations are packed, outputs "
        "written and bias added inside every timing. Nothing here was measured on ARM hardware.\n",
    ]
    for name, (title, section) in SECTIONS.items():
        # Curves of several instruction sets belong side by side.
        groups_of = {"": results(name)} if name == "crossover" else by_machine(results(name))
        for machine, found in groups_of.items():
            if found:
                parts += [f"## {title}{machine and f': {machine}'}\n", origin(found), section(found)]
    parts += ["## CUDA kernels on GPUs\n", gpu.gpu_section(results("gpu"))]
    return "\n".join(parts)


def marked(page: Path, text: str) -> str:
    """A page with another table between its marks."""
    before, rest = page.read_text(encoding="utf-8").split(START)
    return f"{before}{START}\n{text}{END}{rest.split(END)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page would change")
    arguments = parser.parse_args()
    wanted = {ROOT / page: marked(ROOT / page, table()) for page, table in MARKED.items()}
    wanted[ROOT / "docs" / "performance.md"] = performance_page()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    if arguments.check and stale:
        sys.exit(
            f"{', '.join(path.name for path in stale)}: not what the results give. Run benchmarks/table.py."
        )
    for path in [] if arguments.check else stale:
        path.write_text(wanted[path], encoding="utf-8")
        print(f"written: {path.relative_to(ROOT)}")
    if not arguments.check:
        groups.draw_crossover(ROOT / "docs" / "figures" / "crossover.png")
        models.draw_presets(ROOT / "docs" / "figures" / "presets.png")


if __name__ == "__main__":
    main()
