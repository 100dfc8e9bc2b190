"""Prune a classifier to 80 % zeros, then fine-tune the kept weights: both passes run the sparse kernels."""

import torch

import sparsecore as sc


def spirals(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of two interleaved spirals, ``(count, 2)``, and their class, ``(count,)``."""
    label = torch.arange(count) % 2
    radius = torch.rand(count, generator=generator) * 3 + 0.3
    angle = radius * 2 + label * torch.pi
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return points + 0.05 * torch.randn(points.shape, generator=generator), label


def train(model: torch.nn.Module, generator: torch.Generator, steps: int) -> float:
    """Returns the accuracy on fresh points after ``steps`` updates."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        points, label = spirals(256, generator)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(points), label).backward()
        optimizer.step()
    points, label = spirals(2048, generator)
    with torch.no_grad():
        return (model(points).argmax(1) == label).float().mean().item()


def main() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(2, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 2),
    )
    print(f"dense accuracy             {train(model, generator, 400):.3f}")

    sc.sparsify_(model, sc.Unstructured(), lambda module, name: name == "2", sparsity=0.8)
    print(f"pruned, before fine-tuning {train(model, generator, 0):.3f}")
    print(f"pruned, after fine-tuning  {train(model, generator, 200):.3f}")
    print(sc.report(model))


if __name__ == "__main__":
    main()
