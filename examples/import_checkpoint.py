"""Bring in a 2:4 checkpoint that somebody else pruned: a dense file with exact zeros needs no mask and no format."""

import torch

import sparsecore as sc


def main() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(768, 768)
    with torch.no_grad():  # stands for weights loaded from a file: 2 of every 4 are exactly zero
        groups = linear.weight.view(768, 192, 4)
        groups.scatter_(2, groups.abs().topk(2, dim=2, largest=False).indices, 0.0)

    found = sc.check_pattern(linear.weight, sc.NM(2, 4))
    print(found)

    sparse = sc.nn.SparseLinear.from_dense(linear, pattern=sc.NM(2, 4), mask=linear.weight != 0)
    tokens = torch.randn(32, 768)
    with torch.no_grad():
        difference = (sparse(tokens) - linear(tokens)).abs().max()
    print(f"largest difference to the dense layer: {difference:.1e}")
    assert difference < 1e-4


if __name__ == "__main__":
    main()
