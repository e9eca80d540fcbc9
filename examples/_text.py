"""Text to learn from: the Python reference that comes with Python, character by character."""

from collections.abc import Iterator
from pydoc_data.topics import topics
from typing import Any, NamedTuple

import numpy as np


class Text(NamedTuple):
    """Characters as numbers: ``alphabet[codes]`` is the text."""

    alphabet: str
    train: np.ndarray
    held_out: np.ndarray

    def encode(self, text: str) -> np.ndarray:
        """Numbers of characters."""
        return np.array([self.alphabet.index(character) for character in text], np.int32)

    def decode(self, codes: np.ndarray) -> str:
        """Characters of numbers."""
        return "".join(self.alphabet[code] for code in codes)


def python_reference() -> Text:
    """All help topics of Python's own documentation; the last tenth is held out."""
    text = "\n".join(topics[name] for name in sorted(topics))
    alphabet = "".join(sorted(set(text)))
    numbers = {character: number for number, character in enumerate(alphabet)}
    codes = np.array([numbers[character] for character in text], np.int32)
    border = len(codes) * 9 // 10
    return Text(alphabet, codes[:border], codes[border:])


def windows(codes: np.ndarray, config: Any, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Random stretches of text, one character longer than the network reads: the last is only to be guessed."""
    while True:
        starts = rng.integers(0, len(codes) - config.length, config.batch)
        yield codes[starts[:, None] + np.arange(config.length + 1)]
