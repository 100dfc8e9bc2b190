"""Pictures of single lines of text with their truth, drawn from docstrings: labelled data without a download."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

HEIGHT, WIDTH = 48, 320


def phrases(texts: Sequence[str], longest: int = 26) -> list[str]:
    """Runs of whole words of at most so many characters, from each text in order, printable ASCII only."""
    found = []
    for text in texts:
        line = ""
        for word in text.split():
            if len(word) > longest or not all(" " < letter <= "~" for letter in word):
                continue
            if len(line) + 1 + len(word) > longest:
                found.append(line)
                line = ""
            line = f"{line} {word}" if line else word
    return found


def fonts() -> list[Path]:
    """The DejaVu families that come with matplotlib: sans, serif and mono, upright, oblique and bold."""
    import matplotlib

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return sorted(path for path in folder.glob("DejaVu*.ttf") if "Display" not in path.name)


def draw(text: str, seed: int) -> Tensor:
    """One line as ``(3, 48, 320)`` in [-1, 1]: any of the fonts, sizes and colours, tilted, blurred, noisy.

    The picture depends on the text, the seed and the version of Pillow only.
    """
    from PIL import Image, ImageDraw, ImageFilter, ImageFont

    dice = random.Random(f"{seed} {text}")
    font = ImageFont.truetype(str(dice.choice(fonts())), dice.randint(22, 34))
    left, top, right, bottom = font.getbbox(text)
    paper = tuple(dice.randint(150, 255) for _ in range(3))
    ink = tuple(dice.randint(0, 100) for _ in range(3))
    if dice.random() < 0.2:
        paper, ink = ink, paper
    margin = 8
    picture = Image.new("RGB", (round(right - left) + 2 * margin, round(bottom - top) + 2 * margin), paper)
    ImageDraw.Draw(picture).text((margin - left, margin - top), text, ink, font)
    picture = picture.rotate(dice.uniform(-1.5, 1.5), Image.Resampling.BICUBIC, fillcolor=paper)
    picture = picture.filter(ImageFilter.GaussianBlur(dice.uniform(0.0, 1.2)))
    width = min(WIDTH, max(1, round(picture.width * HEIGHT / picture.height)))
    pixels = _pixels(picture.resize((width, HEIGHT), Image.Resampling.BILINEAR))
    noise = np.random.default_rng(dice.getrandbits(32)).normal(0.0, dice.uniform(0.0, 12.0), pixels.shape)
    line = np.zeros(
        (HEIGHT, WIDTH, 3), np.float32
    )  # what is right of the text is neutral, as the model learned it
    line[:, :width] = np.clip((pixels + noise) / 127.5 - 1.0, -1.0, 1.0)
    return torch.from_numpy(line).permute(2, 0, 1).contiguous()


def _pixels(picture: Any) -> Any:
    return np.asarray(picture, np.float32)


def edit_distance(a: str, b: str) -> int:
    """Fewest insertions, deletions and replacements that turn one text into the other."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
    return row[-1]
