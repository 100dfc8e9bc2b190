"""Prune a small network to 2:4, pack it, run it, and save it: the whole life of a sparse model in one page."""

import tempfile
from pathlib import Path

import torch

import sparsecore as sc


def main() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(256, 512),
        torch.nn.GELU(),
        torch.nn.Linear(512, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 10),
    ).eval()
    tokens = torch.randn(64, 256)
    dense = model(tokens)

    # Keep the 2 largest of every 4 inputs of each output channel; the small last layer stays dense.
    sc.sparsify_(model, sc.NM(2, 4), lambda module, name: isinstance(module, torch.nn.Linear) and name != "4")
    sparse = model(tokens)
    print(sc.report(model))
    print(f"cosine to the dense outputs: {torch.cosine_similarity(dense, sparse, dim=-1).mean():.3f}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        sc.save(model, path)
        print(f"on disk: {path.stat().st_size} bytes")

        fresh = torch.nn.Sequential(
            torch.nn.Linear(256, 512),
            torch.nn.GELU(),
            torch.nn.Linear(512, 256),
            torch.nn.ReLU(),
            torch.nn.Linear(256, 10),
        ).eval()
        sc.load(fresh, path)
        assert torch.equal(fresh(tokens), sparse)


if __name__ == "__main__":
    main()
