"""Fine-tune a pruned transformers model with the Trainer: a callback keeps zeros zero, then the model is packed."""

import tempfile

import torch
import transformers

import sparsecore as sc
from sparsecore import sparsify
from sparsecore.integrations import transformers as packed


class KeepZeros(transformers.TrainerCallback):
    """Pruned weights stay zero: no gradient reaches them, so neither momentum nor weight decay moves them."""

    def __init__(self, masks: dict[str, torch.Tensor]) -> None:
        self.masks = masks  # by layer name, True where kept

    def on_train_begin(self, args, state, control, model, **_):
        self.handles = sparsify.mask_parameters_(model, self.masks)

    def on_train_end(self, args, state, control, **_):
        for handle in self.handles:
            handle.remove()


def sentences(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """Sequences of 16 tokens; the class is whether 1 appears before 2."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 50, (count, 16), generator=generator)
    places = torch.rand(count, 16, generator=generator).argsort(1)[:, :2]
    ids[torch.arange(count), places[:, 0]] = 1
    ids[torch.arange(count), places[:, 1]] = 2
    labels = (places[:, 0] < places[:, 1]).long()
    return [{"input_ids": row, "labels": label} for row, label in zip(ids, labels, strict=True)]


def train(model, data, steps: int, folder: str, callbacks=()) -> None:
    args = transformers.TrainingArguments(
        folder,
        max_steps=steps,
        per_device_train_batch_size=64,
        learning_rate=1e-3,
        weight_decay=0.01,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        dataloader_pin_memory=False,
    )
    trainer = transformers.Trainer(model, args, train_dataset=data, callbacks=list(callbacks))
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    model.eval()


@torch.no_grad()
def accuracy(model, data) -> float:
    ids, labels = (torch.stack([row[key] for row in data]) for key in ("input_ids", "labels"))
    return (model(input_ids=ids).logits.argmax(1) == labels).float().mean().item()


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    transformers.set_seed(0)
    torch.set_num_threads(1)  # a model this small gains nothing from more
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    config = transformers.BertConfig(vocab_size=50, num_labels=2, **sizes)
    model = transformers.BertForSequenceClassification(config)
    data, held_out = sentences(4096, seed=1), sentences(1024, seed=2)

    with tempfile.TemporaryDirectory() as folder:
        train(model, data, 200, folder)
        print(f"dense accuracy              {accuracy(model, held_out):.3f}")
        masks = sparsify.magnitude(model, sc.NM(1, 8), targets=[r"re:bert\.encoder\..*"], progress=False)
        print(f"1:8, before fine-tuning     {accuracy(model, held_out):.3f}")
        train(model, data, 100, folder, [KeepZeros(masks)])
        print(f"1:8, after fine-tuning      {accuracy(model, held_out):.3f}")
        for name in masks:
            assert sc.check_pattern(model.get_submodule(name).weight, sc.NM(1, 8)).ok, name

        sc.sparsify_(model, sc.NM(1, 8), lambda _, name: name in masks, masks=masks)
        packed.attach(model).save_pretrained(folder)
        again = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
        print(f"packed, saved and restored  {accuracy(again, held_out):.3f}")


if __name__ == "__main__":
    main()
