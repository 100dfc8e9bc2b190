"""Fine-tune a pruned model with Lightning: a callback of a few lines keeps zeros zero, then the layers are packed."""

import logging
import warnings

import pytorch_lightning as lightning
import torch
from torch import nn

import sparsecore as sc
from sparsecore import sparsify


class KeepZeros(lightning.Callback):
    """Pruned weights stay zero: no gradient reaches them, so neither momentum nor weight decay moves them."""

    def __init__(self, masks: dict[str, torch.Tensor]) -> None:
        self.masks = masks  # by layer name within the LightningModule, True where kept

    def on_train_start(self, trainer, pl_module):
        self.handles = sparsify.mask_parameters_(pl_module, self.masks)

    def on_train_end(self, trainer, pl_module):
        for handle in self.handles:
            handle.remove()


class Classifier(lightning.LightningModule):
    """Tells two interleaved spirals apart."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(2, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)
        )

    def training_step(self, batch, _):
        points, label = batch
        return nn.functional.cross_entropy(self.body(points), label)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3, weight_decay=0.01)


def spirals(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of two spirals, ``(count, 2)``, and their class, ``(count,)``."""
    label = torch.arange(count) % 2
    radius = torch.rand(count) * 3 + 0.3
    angle = radius * 2 + label * torch.pi
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return points + 0.05 * torch.randn(points.shape), label


def fit(model: Classifier, epochs: int, callbacks=()) -> float:
    """Returns the accuracy on fresh points."""
    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*spirals(4096)), batch_size=256, shuffle=True
    )
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    points, label = spirals(2048)
    with torch.no_grad():
        return (model.body(points).argmax(1) == label).float().mean().item()


def main() -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    torch.set_num_threads(1)  # a model this small gains nothing from more
    lightning.seed_everything(0, verbose=False)
    model = Classifier()
    print(f"dense accuracy             {fit(model, 25):.3f}")
    pattern = sc.Unstructured()
    masks = sparsify.magnitude(model, pattern, sparsity=0.95, targets=["body.2"], progress=False)
    print(f"95 % zeros, before tuning  {fit(model, 0):.3f}")
    print(f"95 % zeros, after tuning   {fit(model, 15, [KeepZeros(masks)]):.3f}")
    assert (model.body[2].weight != 0).sum() <= masks["body.2"].sum()

    sc.sparsify_(model, pattern, lambda _, name: name in masks, masks=masks)
    print(sc.report(model))


if __name__ == "__main__":
    main()
