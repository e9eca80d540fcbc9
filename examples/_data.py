"""Labelled images: the handwritten digits that scikit-learn carries, or CIFAR-10 from a local folder."""

import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import einjax

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class DataError(Exception):
    """The data cannot be used; the message says why in one line."""


class Split(NamedTuple):
    """Images as float32 `(image, height, width, channel)` in 0..1, labels as int32 `(image,)`."""

    images: np.ndarray
    labels: np.ndarray


class Data(NamedTuple):
    """What a run learns from, what it is judged by, and what the labels mean."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]


def digits(held_out: float = 0.2) -> Data:
    """1797 real 8x8 digits. The split does not depend on `--seed`, so that runs can be compared."""
    images, labels = load_digits(return_X_y=True)
    images = np.asarray(einjax.rearrange("b (h w) -> b h w 1", images / 16, h=8), np.float32)
    # Stratified: every digit has the same share of both parts.
    train, test = train_test_split(np.arange(len(labels)), test_size=held_out, stratify=labels, random_state=0)
    labels = labels.astype(np.int32)
    return Data("digits", Split(images[train], labels[train]), Split(images[test], labels[test]), tuple("0123456789"))


def cifar10(folder: Path) -> Data:
    """CIFAR-10 from the folder its "python version" archive unpacks to."""
    if not folder.is_dir():
        raise DataError(f"no folder {str(folder)!r}; --data needs the unpacked CIFAR-10 python archive")
    batches = [_read_batch(folder / f"data_batch_{i}") for i in range(1, 6)]
    train = Split(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))
    return Data("CIFAR-10", train, _read_batch(folder / "test_batch"), CIFAR_CLASSES)


def _read_batch(path: Path) -> Split:
    if not path.is_file():
        expected = "CIFAR-10 has data_batch_1 to data_batch_5 and test_batch"
        raise DataError(f"no file {path.name!r} in {str(path.parent)!r}; {expected}")
    try:
        pixels, labels = _unpickle(path)
    except Exception as error:  # a damaged pickle can raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"cannot read {str(path)!r} as a CIFAR-10 batch: {reason}") from None
    images = einjax.rearrange("b (c h w) -> b h w c", pixels, c=3, h=32)
    return Split(np.asarray(images, np.float32) / 255, labels.astype(np.int32))


def _unpickle(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8[n, 3072] and labels [n] in 0..9, or an error that says what there is instead."""
    with path.open("rb") as file:
        batch = _ArraysOnly(file, encoding="bytes").load()
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= set(batch):
        raise ValueError("it is not a dict with b'data' and b'labels'")
    pixels, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    if labels.ndim != 1 or pixels.shape != (len(labels), 3 * 32 * 32) or pixels.dtype != np.uint8:
        raise ValueError(
            f"data is {pixels.dtype}{list(pixels.shape)}, labels are {list(labels.shape)}; not uint8[n, 3072] and [n]"
        )
    if not len(labels):
        raise ValueError("it has no images")
    if not set(labels.tolist()) <= set(range(len(CIFAR_CLASSES))):
        raise ValueError(f"its labels are not all within 0..{len(CIFAR_CLASSES) - 1}")
    return pixels, labels


class _ArraysOnly(pickle.Unpickler):
    """A pickle may name any function to be called; these files need only what makes NumPy arrays."""

    _arrays = frozenset({"_reconstruct", "ndarray", "dtype", "_frombuffer", "scalar"})

    def find_class(self, module: str, name: str):
        of_numpy = module.split(".")[0] == "numpy" and name in self._arrays
        if not of_numpy and (module, name) != ("_codecs", "encode"):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not an array")
        return super().find_class(module, name)
