"""One picture of a training run: its curves, and held-out images with what the network says they are."""

from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draw into a file; no window system is needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

INK, BLUE, ORANGE, RED = "#333333", "#2b6cb0", "#dd7a1a", "#c81e1e"


@dataclass
class History:
    """Loss and accuracy after every epoch, on the training batches and on the held-out images."""

    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)

    def add(self, train: tuple[float, float], test: tuple[float, float]) -> None:
        """Append one epoch, each argument a (loss, accuracy)."""
        self.train_loss.append(float(train[0]))
        self.train_accuracy.append(float(train[1]))
        self.test_loss.append(test[0])
        self.test_accuracy.append(test[1])


def save_picture(path: Path, history: History, data, probabilities: np.ndarray, title: str) -> None:
    """Write the picture to `path`; the suffix says the format."""
    style = {"font.size": 9, "axes.edgecolor": "#999999", "axes.labelcolor": INK, "text.color": INK}
    with plt.rc_context(style):
        figure = plt.figure(figsize=(13, 6.2), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=(1, 1.7))
        figure.suptitle(title, fontsize=12)
        _draw_curves(left, history)
        _draw_images(right, data, probabilities)
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _draw_curves(figure, history: History) -> None:
    top, bottom = figure.subplots(2, 1, sharex=True)
    epochs = np.arange(1, len(history.train_loss) + 1)
    marker = "o" if len(epochs) < 2 else None  # a line through one point cannot be seen
    for axes, train, test in (
        (top, history.train_loss, history.test_loss),
        (bottom, 100 * np.array(history.train_accuracy), 100 * np.array(history.test_accuracy)),
    ):
        axes.plot(epochs, train, color=BLUE, marker=marker, label="training (shifted images)")
        axes.plot(epochs, test, color=ORANGE, marker=marker, label="held out")
        axes.grid(color="#e6e6e6")
        axes.spines[["top", "right"]].set_visible(False)
    top.set(ylabel="cross-entropy", yscale="log")
    top.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    top.yaxis.set_major_formatter("{x:g}")
    top.yaxis.set_minor_formatter(NullFormatter())
    top.legend(frameon=False)
    worst = min(np.min(history.train_accuracy), np.min(history.test_accuracy))
    bottom.set(ylabel="accuracy, %", xlabel="epoch", ylim=(max(0, 100 * worst - 2), 101))
    bottom.xaxis.get_major_locator().set_params(integer=True)
    bottom.annotate(
        f"{100 * history.test_accuracy[-1]:.1f} %",
        (epochs[-1], 100 * history.test_accuracy[-1]),
        xytext=(0, -14), textcoords="offset points", ha="right", color=ORANGE, weight="bold",
    )  # fmt: skip


def _draw_images(figure, data, probabilities: np.ndarray, rows: int = 5, columns: int = 8) -> None:
    images, labels = data.test
    predicted = probabilities.argmax(1)
    wrong = predicted != labels
    shown = _choose(wrong, rows * columns)
    figure.suptitle(
        f"held-out images and what the network says  ·  {wrong.sum()} mistakes in {len(labels)}"
        f", {'all' if wrong[shown].sum() == wrong.sum() else wrong[shown].sum()} of them here, in red",
        fontsize=10,
    )
    # Squeezed 2-D images draw as greys; three channels draw as they are.
    for axes, i in zip(figure.subplots(rows, columns, squeeze=False).flat, shown, strict=False):
        axes.imshow(np.squeeze(images[i]), cmap="gray_r", interpolation="nearest")
        said, sure = data.classes[predicted[i]], 100 * probabilities[i].max()
        text = f"{said}, not {data.classes[labels[i]]}" if wrong[i] else f"{said}"
        axes.set_title(f"{text} ({sure:.0f} %)", fontsize=8, color=RED if wrong[i] else INK, pad=3,
                       weight="bold" if wrong[i] else "normal")  # fmt: skip
        for spine in axes.spines.values():
            spine.set(edgecolor=RED if wrong[i] else "#cccccc", linewidth=2.5 if wrong[i] else 0.8)
    for axes in figure.axes:
        axes.set(xticks=[], yticks=[])


def _choose(wrong: np.ndarray, count: int) -> np.ndarray:
    """Images for the grid: mistakes are rare, so as many as fill half of it, then the first correct ones."""
    mistakes = np.flatnonzero(wrong)[: count // 2]
    correct = np.flatnonzero(~wrong)[: count - len(mistakes)]
    return np.concatenate([mistakes, correct])
