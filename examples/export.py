"""Take a sparse model out of Python's hands: torch.compile, a torch.export file, and an AOTInductor package."""

import tempfile
import warnings
from pathlib import Path

import torch

import sparsecore as sc


def main() -> None:
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # torch's own, while it writes a program
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.GELU(), torch.nn.Linear(512, 64)).eval()
    sc.sparsify_(model, "2:4").requires_grad_(False)
    batches = [torch.randn(size, 256) for size in (1, 7, 32)]

    compiled = torch.compile(model, fullgraph=True)
    difference = max((compiled(x) - model(x)).abs().max() for x in batches)
    print(f"torch.compile   largest difference {difference:.1e}")

    size = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(model, (torch.randn(2, 256),), dynamic_shapes=({0: size},))
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        torch.export.save(program, path)
        loaded = torch.export.load(path).module()
        difference = max((loaded(x) - model(x)).abs().max() for x in batches)
        print(f"torch.export    largest difference {difference:.1e}, {path.stat().st_size} bytes")

        # A shared library with the weights inside. Whoever loads it needs `import sparsecore` for the operators.
        package = torch._inductor.aoti_compile_and_package(
            program, package_path=str(Path(folder) / "aoti.pt2")
        )
        runner = torch._inductor.aoti_load_package(package)
        difference = max((runner(x) - model(x)).abs().max() for x in batches)
        print(f"AOTInductor     largest difference {difference:.1e}, {Path(package).stat().st_size} bytes")


if __name__ == "__main__":
    main()
