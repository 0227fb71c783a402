"""An explanation to read: as text, as JSON, and as a picture."""

import io
import pathlib
import sys
import textwrap
import wave
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import ConfigError, RunError
from mmrec_tf.recommender.contributions import Contributions, Explainer
from mmrec_tf.recommender.occlusion import Evidence
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.reporting import figures
from mmrec_tf.reporting.sentences import Writer, sentence
from mmrec_tf.reporting.showcase import Showcase
from mmrec_tf.runs.explanation import Explanation, explain

# Pieces of content that are named, and items of a history that are drawn.
NUM_PIECES, _MOST_DRAWN = 3, 8
SUFFIXES = (".svg", ".png")
_SMALL = 5e-5
# Of the panel that shows what weighed most, in inches.
_HEIGHTS = {"text": 1.2, "image": 2.6, "audio": 1.9}


class Teller:
    """Says explanations in words and pictures.

    Args:
      dataset: Dataset, whose titles, pictures and sounds are shown.
      writer: Writer that phrases sentences; None for templates alone.
      showcase: of the dataset, where there is one already.

    Attributes:
      refused: why sentences of the writer were not taken, one each.
    """

    def __init__(
        self, dataset: Dataset, *, writer: Writer | None = None, showcase: Showcase | None = None
    ):
        self.dataset, self.writer = dataset, writer
        self.showcase = showcase or Showcase(dataset)
        self._number = {name: row for row, name in enumerate(dataset.catalog.item_id.tolist())}
        self.kinds = {name: spec.kind for name, spec in dataset.schema.modalities.items()}
        self.refused: list[str] = []
        self._names: list[str] = []

    def title(self, item_id: str) -> str:
        """What people call an item."""
        number = self._number[item_id]
        self.showcase.read(np.array([number]))
        return self.showcase.title(number)

    def sentence(self, found: Contributions) -> str:
        """Why, in one sentence."""
        said = sentence(found, kinds=self.kinds, title=self.title)
        if self.writer is None:
            return said
        because = found.because
        named = [self.title(because)] if because and self.title(because) in said else []
        if not self._names:
            self.showcase.read(np.arange(len(self._number)))
            self._names = [*self._number, *map(self.showcase.title, self._number.values())]
        phrased, why = self.writer.phrase(said, named=named, others=self._names)
        if why:
            self.refused.append(why)
        return phrased

    def text(self, found: Explanation) -> str:
        """Lines to read on a terminal."""
        one = found.contributions
        lines = [
            f"{one.item_id} for {one.user_id}: {self.title(one.item_id)}",
            self.sentence(one),
            "",
            f"retrieval score {one.score:.4f}, of which",
            *_rows(one.of_item),
            "of the user's side",
            *_rows(one.of_user),
        ]
        if history := one.of_history:
            lines.append("of the history")
            order = sorted(history, key=lambda name: -history[name])
            lines += _rows({f"{name} {self.title(name)}": history[name] for name in order})
        ranking = found.ranking
        if ranking is not None:
            lines.append(
                f"ranking score {ranking.score:.4f}, from {ranking.baseline:.4f} for a pair of "
                "which nothing is known, by integrated gradients"
            )
            lines += _rows(ranking.values)
        if found.dampening:
            lines.append(f"popularity dampening {-found.dampening:+.4f}")
        for name, weights in found.values.items():
            said = ", ".join(f"{weight:.2f}" for weight in weights)
            best = int(np.argmax(weights))
            lines.append(
                f"{name}, {len(weights)} values: number {best + 1} counts most (each counts {said})"
            )
        lines += [self._heaviest(seen) for seen in found.evidence]
        return "\n".join(lines)

    def _heaviest(self, seen: Evidence) -> str:
        named = [p for p in seen.pieces if p.weight > _SMALL][:NUM_PIECES]
        said = "; ".join(f"{piece.name} ({piece.weight:+.4f})" for piece in named)
        said = said or "no piece of it adds anything on its own"
        more = f"; number {seen.looked_at + 1} of {seen.values}" if seen.values > 1 else ""
        if seen.left_out:
            more += f"; {seen.left_out} further words were not looked at"
        return f"{seen.modality}, what weighed most: {said}{more}"

    def to_json(self, found: Explanation) -> dict[str, Any]:
        """What `Explanation.to_json` says, with titles and the sentence."""
        one = found.contributions
        titles = {name: self.title(name) for name in [one.item_id, *one.of_history]}
        return {**found.to_json(), "titles": titles, "sentence": self.sentence(one)}

    def picture(self, found: Explanation) -> Figure:
        """Bars of what adds to the score, and the content with what weighed most."""
        one = found.contributions
        history = one.of_history
        most = sorted(history, key=lambda name: -abs(history[name]))[:_MOST_DRAWN]
        of_item = {n: v for n, v in one.of_item.items() if abs(v) > _SMALL}
        of_history = {self.title(name): history[name] for name in most}
        panels = 1 + bool(of_history) + len(found.evidence)
        heights = [1.2 + 0.3 * len(of_item)]
        heights += [1.2 + 0.3 * len(of_history)] if of_history else []
        heights += [_HEIGHTS[seen.kind] for seen in found.evidence]
        with figures.style():
            drawing = Figure(figsize=(6.4, 0.9 + sum(heights)), layout="constrained")
            axes = drawing.subplots(panels, squeeze=False, height_ratios=heights)[:, 0]
            said = textwrap.fill(self.sentence(one), 72).replace("$", r"\$")
            drawing.suptitle(said, fontsize=11, x=0.02, ha="left")
            heading = f"the item's side of the score {one.score:.2f}"
            figures.draw_signed(axes[0], of_item, unit="added to the score", heading=heading)
            if of_history:
                heading = f"the history's side ({len(of_history)} of {len(history)} items)"
                figures.draw_signed(axes[1], of_history, unit="added to the score", heading=heading)
            for axis, seen in zip(axes[1 + bool(of_history) :], found.evidence, strict=True):
                self._draw(axis, one.item_id, seen)
        return drawing

    def _draw(self, axis: Any, item_id: str, seen: Evidence) -> None:
        number = np.array([self._number[item_id]])
        data = bytes(self.dataset.catalog.content[seen.modality][number][0])
        axis.grid(visible=False)
        axis.set_title(f"{seen.modality}: what weighed most")
        heavy = [piece for piece in seen.pieces if piece.weight > _SMALL][:NUM_PIECES]
        if seen.kind == "text":
            axis.axis("off")
            marked = {piece.place for piece in heavy}
            shown = _marked(data.decode("utf-8", "replace"), marked)
            axis.text(0, 0.9, shown, va="top", fontsize=9.5, transform=axis.transAxes)
        elif seen.kind == "image":
            axis.axis("off")
            with PIL.Image.open(io.BytesIO(data)) as opened:
                pixels = np.asarray(opened.convert("RGB"))
            axis.imshow(pixels)
            height, width = pixels.shape[:2]
            for place, piece in enumerate(heavy):
                left, top, right, bottom = piece.place
                box = Rectangle(
                    (left * width, top * height),
                    (right - left) * width,
                    (bottom - top) * height,
                    fill=False,
                    edgecolor=figures.COLORS[1],
                    linewidth=2.4 - 0.7 * place,
                )
                axis.add_patch(box)
        else:
            with wave.open(io.BytesIO(data)) as file:
                rate, depth = file.getframerate(), file.getsampwidth()
                frames = file.readframes(file.getnframes())
                channels = file.getnchannels()
            kind = {1: np.uint8, 2: np.int16, 4: np.int32}[depth]
            signal = np.frombuffer(frames, kind)[::channels].astype(np.float64)
            step = max(len(signal) // 2000, 1)
            axis.plot(np.arange(len(signal))[::step] / rate, signal[::step], linewidth=0.5)
            axis.set(xlabel="seconds", yticks=[])
            for piece in heavy:
                axis.axvspan(*piece.place, color=figures.COLORS[1], alpha=0.3)


def _marked(text: str, marked: set[tuple[float, ...]]) -> str:
    """A text whose heavy words stand in brackets, a few lines of it."""
    for first, last in sorted(((int(a), int(b)) for a, b in marked), reverse=True):
        text = f"{text[:first]}[{text[first:last]}]{text[last:]}"
    lines = textwrap.wrap(" ".join(text.split()), 76)
    shown = lines[:5] + (["…"] if len(lines) > 5 else [])
    return "\n".join(shown).replace("$", r"\$")


def _rows(values: dict[str, float]) -> list[str]:
    """A line each, but for what adds nothing."""
    shown = {name: value for name, value in values.items() if abs(value) > _SMALL}
    return [f"  {value:+9.4f}  {name}" for name, value in shown.items()] or ["  nothing"]


def write_picture(drawing: Figure, path: str | pathlib.Path) -> pathlib.Path:
    """Writes a drawing as SVG or PNG, by its file's name.

    Raises:
      ConfigError: for another suffix.
      RunError: where the folder is not there.
    """
    path = pathlib.Path(path)
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--picture: wanted a name in {' or '.join(SUFFIXES)}; got {path.name}.")
    if not path.parent.is_dir():
        raise RunError(f"{path}: wanted a file in a folder that is there.")
    figures.write_drawing(drawing, path)
    return path


def explain_answers(
    recommender: Recommender,
    user_ids: Sequence[str],
    answer: Any,
    *,
    teller: Teller,
    **given: Any,
) -> list[list[dict[str, Any]]]:
    """Explanations of what `Recommender.recommend` answered, without evidence, a list a user.

    Args:
      recommender: Recommender.
      user_ids: who asked.
      answer: Recommendations.
      teller: Teller.
      given: "history", "profile" and "features" of the request, for all users.
    """
    explainer, found = Explainer(recommender), []
    for user, row in zip(user_ids, answer.item_id.tolist(), strict=True):
        items = [name for name in row if name]
        whys = explain(recommender, user, items, evidence=False, explainer=explainer, **given)
        found.append([teller.to_json(why) for why in whys])
    return found


def say_refused(teller: Teller) -> None:
    """Says on stderr what the writer wrote in vain."""
    for why in sorted(set(teller.refused)):
        count = teller.refused.count(why)
        print(f"--writer: {count} sentences are the template's: {why}.", file=sys.stderr)
