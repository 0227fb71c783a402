"""How an item's modalities lie to each other, before and after alignment, in NumPy alone."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

# Similarities of so many items take a moment and 32 MB, and more would change no figure's third
# digit by much.
MAX_ITEMS = 2000
SEED = 0


def diagnose(
    vectors: np.ndarray | Sequence[np.ndarray], present: np.ndarray, names: Sequence[str]
) -> dict[str, float]:
    """How alike the modalities of a catalog are.

    For each pair of modalities, on the items that have both:

    - `cka/a-b`: linear centered kernel alignment (Kornblith et al. 2019), 0 to 1, whatever the two
      spaces are; high by chance where items are fewer than features;

    and, for vectors in a common space, scaled to unit length:

    - `cosine/a-b`: the mean cosine of an item's two vectors;
    - `alignment/a-b`: their mean squared distance (Wang and Isola 2020, alpha 2);
    - `gap/a-b`: the distance between the modalities' centroids (Liang et al. 2022), 0 to 2;
    - `rank/a-b`: the mean place of an item's own b among all b, by cosine to its a; 1 is the first,
      and equal ones share the mean of their places, as they do where a space has collapsed;
    - `accuracy@1/a-b`: the share of items whose own b stands first, before all others;
    - `rank/b-a` and `accuracy@1/b-a`: the other way round;

    and for each modality, on the items that have it, in whatever space:

    - `uniformity/a`: the log of the mean of exp(-2 |x - y|^2) over pairs of items (Wang and Isola
      2020, t 2); 0 where all are the same, lower the more evenly they are spread.

    Each is computed on at most 2,000 items, the same in every call. What is not defined, as for
    fewer than two items, or CKA of what does not vary, is left out.

    Args:
      vectors: <float32>[item, modality, dim] in a common space; or one <float32>[item, f] per
        modality, each in a space of its own, which only CKA can compare, equal widths or not.
      present: <bool>[item, modality].
      names: of the modalities, in the order of `present`.

    Returns:
      The figures by name, all finite.

    Raises:
      ValueError: for another number of names or items than `present` has.
    """
    present = np.asarray(present, bool)
    common = isinstance(vectors, np.ndarray)
    tables = list(np.moveaxis(vectors, 1, 0) if isinstance(vectors, np.ndarray) else vectors)
    shapes = {(len(table), len(tables)) for table in tables}
    if shapes - {present.shape} or len(names) != present.shape[1]:
        raise ValueError(
            f"present: wanted a row for each item and a column for each of {len(tables)} "
            f"modalities and {len(names)} names; got shape {present.shape}."
        )
    figures = {}
    for a, b in itertools.combinations(range(len(names)), 2):
        rows = _sample(present[:, a] & present[:, b])
        if len(rows) < 2:
            continue
        x, y = np.asarray(tables[a][rows], np.float64), np.asarray(tables[b][rows], np.float64)
        pair = f"{names[a]}-{names[b]}"
        similarity = linear_cka(x, y)
        if similarity is not None:
            figures[f"cka/{pair}"] = similarity
        if common:
            x, y = _unit(x), _unit(y)
            cosines = x @ y.T
            figures[f"cosine/{pair}"] = float(np.diag(cosines).mean())
            figures[f"alignment/{pair}"] = float(np.square(x - y).sum(axis=1).mean())
            figures[f"gap/{pair}"] = float(np.linalg.norm(x.mean(axis=0) - y.mean(axis=0)))
            for way, scores in ((pair, cosines), (f"{names[b]}-{names[a]}", cosines.T)):
                ranks = own_ranks(scores)
                figures[f"rank/{way}"] = float(ranks.mean())
                figures[f"accuracy@1/{way}"] = float((ranks == 1).mean())
    for a, name in enumerate(names):
        rows = _sample(present[:, a])
        if len(rows) > 1:
            figures[f"uniformity/{name}"] = uniformity(_unit(tables[a][rows]))
    return figures


def collapsed(figures: Mapping[str, float]) -> list[str]:
    """The modalities whose vectors all point the same way, by the figures of `diagnose`."""
    start = "uniformity/"
    return [
        name.removeprefix(start)
        for name, value in figures.items()
        # Of float32, whose seventh digit is chance.
        if name.startswith(start) and value > -1e-6
    ]


def linear_cka(x: np.ndarray, y: np.ndarray) -> float | None:
    """Linear centered kernel alignment (Kornblith et al. 2019, eq. 4 with the linear kernel).

    Args:
      x: <float>[item, f].
      y: <float>[item, g], of the same items.

    Returns:
      0 to 1; 1 for spaces that differ by a rotation, one scale and a shift; None where a side is
      the same for all items.
    """
    x, y = _centered(x), _centered(y)
    if not x.any() or not y.any():
        return None
    # Scaled first, lest squares of squares leave the range of numbers.
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    of_x, of_y = x @ x.T, y @ y.T
    return float((of_x * of_y).sum() / (np.linalg.norm(of_x) * np.linalg.norm(of_y)))


def uniformity(vectors: np.ndarray) -> float:
    """The log of the mean Gaussian potential of pairs of items (Wang and Isola 2020, eq. 2, t 2).

    Args:
      vectors: <float>[item, dim], unit length or zeros, at least two.

    Returns:
      At most 0.
    """
    length = np.square(vectors).sum(axis=1)
    squared = np.maximum(length[:, None] + length - 2 * (vectors @ vectors.T), 0.0)
    pairs = squared[np.triu_indices(len(vectors), 1)]
    return float(np.log(np.exp(-2 * pairs).mean()))


def own_ranks(scores: np.ndarray) -> np.ndarray:
    """The place of each row's own column among all columns, highest first.

    Args:
      scores: <float>[item, item]; a row's own column is that on the diagonal.

    Returns:
      <float64>[item], from 1; equal scores share the mean of their places.
    """
    # What differs by less than this, float32 vectors do not tell apart.
    scores = np.round(scores, 6)
    own = np.diag(scores)[:, None]
    equal = (scores == own).sum(axis=1) - 1
    return 1 + (scores > own).sum(axis=1) + equal / 2


def _sample(mask: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero(mask)
    if len(rows) > MAX_ITEMS:
        rows = np.sort(np.random.default_rng(SEED).choice(rows, MAX_ITEMS, replace=False))
    return rows


def _unit(values: np.ndarray) -> np.ndarray:
    """<float64>, rows of unit length; a row of zeros stays."""
    values = np.asarray(values, np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, length, out=np.zeros_like(values), where=length > 0)


def _centered(values: np.ndarray) -> np.ndarray:
    """Less the mean; zeros in place of what only rounding left."""
    values = np.asarray(values, np.float64)
    centered = values - values.mean(axis=0)
    return np.where(np.abs(centered) > 1e-9 * np.abs(values).max(initial=0.0), centered, 0.0)
