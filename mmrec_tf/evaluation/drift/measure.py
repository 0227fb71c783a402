"""What of the traffic has changed, and whether by more than chance and more than matters."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mmrec_tf.errors import DatasetError
from mmrec_tf.evaluation.drift import two_samples
from mmrec_tf.evaluation.drift.traffic import Traffic
from mmrec_tf.evaluation.drift.two_samples import Found

# Items whose popularity is compared one by one; all others count together.
_NUM_POPULAR = 60
# Fewer rows than these on a side say nothing.
_FEWEST = 20


class Thresholds(NamedTuple):
    """From where on a difference raises an alarm.

    Attributes:
      level: float, the chance of any false alarm by a permutation test, all tests together
        (Bonferroni).
      mean, covariance, discrepancy, together, coherence, popularity, score: float, the size below
        which a difference does not matter, whatever its p.
      unknown: float, the share of interactions with unknown items, or of unknown users.
      changed: float, the share of known items whose content is another one.
    """

    level: float = 0.01
    mean: float = 0.15
    covariance: float = 0.15
    discrepancy: float = 0.002
    together: float = 0.002
    coherence: float = 0.03
    popularity: float = 0.05
    score: float = 0.1
    unknown: float = 0.1
    changed: float = 0.05


class _Check(NamedTuple):
    kind: str
    of: str
    value: float
    threshold: float
    p: float | None
    words: str


def measure(
    reference: Traffic, new: Traffic, *, thresholds: Thresholds | None = None, seed: int = 0
) -> dict[str, Any]:
    """Compares traffic.

    Of each user one item is drawn, so that rows do not depend on each other, and its vector stands
    for what the user met. Items of the new traffic that come without content of their own take the
    reference's.

    Args:
      reference: Traffic that a model was trained on.
      new: Traffic.
      thresholds: Thresholds; None for those that are usual.
      seed: of what is drawn.

    Returns:
      dict of "reference" and "new", their names; "users", how many of each were compared; "alarm",
      bool; "checks", a list of dicts of "kind", "of" (which modality), "value", "threshold", "p"
      and "p_corrected" (None where nothing is left to chance), "alarm" and "words"; and
      "left_out", sentences.

      The kinds: "mean", "covariance" and "discrepancy" of a modality's vectors; "together", of two
      modalities' vectors of one item, which finds one shuffled among items; "coherence", how much
      more alike two items of one user are than two of different ones, likewise; "changed content"
      of items that both know; "unknown items", "unknown users", "popularity" and "score".

    Raises:
      DatasetError: where too few users met anything.
    """
    thresholds = thresholds or Thresholds()
    rng = np.random.default_rng(seed)

    @functools.cache
    def dealt(first: int, second: int) -> np.ndarray:
        return two_samples.deals(first, second, rng)

    left_out: list[str] = []
    checks = _unknown(reference, new, thresholds)
    first, second = _drawn(reference, rng), _drawn(new, rng)
    for traffic, some in ((reference, first), (new, second)):
        if len(some) < _FEWEST:
            raise DatasetError(
                f"{traffic.name}: wanted at least {_FEWEST} users who met something; got "
                f"{len(some)}. Compare a longer time."
            )
    checks += _changed(reference, new, thresholds)
    checks += _popularity(reference, new, first, second, thresholds, dealt)
    checks += _vectors(reference, new, first, second, thresholds, rng, dealt, left_out)
    if reference.scores is not None and new.scores is not None:
        checks.append(_scores(reference.scores, new.scores, thresholds, rng, dealt))
    else:
        left_out.append("scores: they come with a run (--run), or in the log of requests.")
    tested = sum(check.p is not None for check in checks)
    rows = []
    for check in checks:
        corrected = None if check.p is None else min(check.p * tested, 1.0)
        likely = corrected is None or corrected <= thresholds.level
        rows.append(
            {
                **check._asdict(),
                "p_corrected": corrected,
                "alarm": bool(likely and check.value > check.threshold),
            }
        )
    return {
        "reference": reference.name,
        "new": new.name,
        "users": [len(first), len(second)],
        "alarm": any(row["alarm"] for row in rows),
        "checks": rows,
        "left_out": left_out,
    }


def _drawn(traffic: Traffic, rng: np.random.Generator) -> list[int]:
    """Users who met something, at most half as many as a kernel has rows."""
    some = [n for n, met in enumerate(traffic.met) if met]
    most = two_samples.MOST_ROWS // 2
    return some if len(some) <= most else sorted(rng.permutation(some)[:most].tolist())


def _unknown(reference: Traffic, new: Traffic, thresholds: Thresholds) -> list[_Check]:
    known = set(reference.items) | {item for met in reference.met for item in met}
    met = [item for items in new.met for item in items]
    items = float(np.mean([item not in known for item in met])) if met else 0.0
    people = set(reference.users)
    named = [user for user in new.users if user]
    users = float(np.mean([user not in people for user in named])) if named else 0.0
    return [
        _Check("unknown items", "", items, thresholds.unknown, None, "share of interactions"),
        _Check("unknown users", "", users, thresholds.unknown, None, "share of users"),
    ]


def _changed(reference: Traffic, new: Traffic, thresholds: Thresholds) -> list[_Check]:
    place = {item: row for row, item in enumerate(reference.items)}
    both = [(place[item], row) for row, item in enumerate(new.items) if item in place]
    if not both:
        return []
    before, after = np.array(both).T
    found = []
    for name, vectors in new.vectors.items():
        if name not in reference.vectors:
            continue
        there = reference.present[name][before] & new.present[name][after]
        if not there.any():
            continue
        old, now = reference.vectors[name][before[there]], vectors[after[there]]
        size = np.linalg.norm(old, axis=1) + np.linalg.norm(now, axis=1)
        other = np.linalg.norm(old - now, axis=1) > 1e-2 * size
        words = "share of the items that both know"
        value = float(other.mean())
        found.append(_Check("changed content", name, value, thresholds.changed, None, words))
    return found


def _popularity(
    reference: Traffic,
    new: Traffic,
    first: list[int],
    second: list[int],
    thresholds: Thresholds,
    dealt: Callable[[int, int], np.ndarray],
) -> list[_Check]:
    met = [reference.met[n] for n in first] + [new.met[n] for n in second]
    names, count = np.unique([item for items in met for item in items], return_counts=True)
    popular = names[np.argsort(-count, kind="stable")[:_NUM_POPULAR]].tolist()
    place = {name: column for column, name in enumerate(popular)}
    table = np.zeros([len(met), len(popular) + 1], np.float32)
    for row, items in enumerate(met):
        for item in items:
            table[row, place.get(item, len(popular))] += 1
    found = two_samples.total_variation(table, dealt(len(first), len(second)))
    words = f"total variation of the shares of {len(popular)} items and the rest"
    # How far apart samples of this size are by chance is no drift.
    by_chance = float(np.sqrt(len(popular) / max(table.sum(), 1.0)))
    threshold = max(thresholds.popularity, 0.5 * by_chance)
    return [_Check("popularity", "", found.value, threshold, found.p, words)]


def _vectors(
    reference: Traffic,
    new: Traffic,
    first: list[int],
    second: list[int],
    thresholds: Thresholds,
    rng: np.random.Generator,
    dealt: Callable[[int, int], np.ndarray],
    left_out: list[str],
) -> list[_Check]:
    one, other = _rows(reference, reference, first, rng), _rows(new, reference, second, rng)
    checks, kernels = [], {}
    for name in reference.vectors:
        drawn = [side[name] for side in (one, other)]
        there = [side.there for side in drawn]
        if min(rows.sum() for rows in there) < _FEWEST:
            left_out.append(f"{name}: fewer than {_FEWEST} users met an item that has it.")
            continue
        kept = [side.vector[rows] for side, rows in zip(drawn, there, strict=True)]
        label = dealt(len(kept[0]), len(kept[1]))
        both = two_samples.whiten(*kept)
        kernels[name] = (two_samples.kernel(both), there)
        found: list[tuple[str, Found, float, str]] = [
            ("mean", two_samples.mean_shift(both, label), thresholds.mean, "of the spread"),
            (
                "covariance",
                two_samples.covariance_shift(both, label),
                thresholds.covariance,
                "of its norm",
            ),
            (
                "discrepancy",
                two_samples.discrepancy(kernels[name][0], label),
                thresholds.discrepancy,
                "squared maximum mean discrepancy",
            ),
        ]
        paired = [side.coherence[~np.isnan(side.coherence)] for side in drawn]
        if min(map(len, paired)) >= _FEWEST:
            label = dealt(len(paired[0]), len(paired[1]))
            change = two_samples.difference(np.concatenate(paired), label)
            words = "change of the mean cosine of two items of one user"
            found.append(("coherence", change, thresholds.coherence, words))
        else:
            left_out.append(
                f"coherence of {name}: fewer than {_FEWEST} users met two that have it."
            )
        checks += [_Check(k, name, f.value, least, f.p, words) for k, f, least, words in found]
    for a, b in itertools.combinations(kernels, 2):
        pair = _together(kernels[a], kernels[b])
        if pair is None:
            left_out.append(f"{a} with {b}: fewer than {_FEWEST} users met an item that has both.")
            continue
        joint, sizes = pair
        found_joint = two_samples.discrepancy(joint, dealt(*sizes))
        words = "squared maximum mean discrepancy of both at once"
        check = _Check(
            "together", f"{a}, {b}", found_joint.value, thresholds.together, found_joint.p, words
        )
        checks.append(check)
    return checks


def _together(
    one: tuple[np.ndarray, list[np.ndarray]], other: tuple[np.ndarray, list[np.ndarray]]
) -> tuple[np.ndarray, tuple[int, int]] | None:
    """The product of two kernels over the rows that have both."""
    there = [a & b for a, b in zip(one[1], other[1], strict=True)]
    if min(rows.sum() for rows in there) < _FEWEST:
        return None
    parts = []
    for kernel, had in (one, other):
        kept = np.concatenate([rows[mine] for rows, mine in zip(there, had, strict=True)])
        parts.append(kernel[np.ix_(kept, kept)])
    return parts[0] * parts[1], (int(there[0].sum()), int(there[1].sum()))


class _Drawn(NamedTuple):
    """One modality of one item a user: <float32>[user, dim], <bool>[user]; and how alike it is to
    another item of the user, <float>[user], NaN where there is none."""

    vector: np.ndarray
    there: np.ndarray
    coherence: np.ndarray


def _rows(
    traffic: Traffic, fallback: Traffic, users: list[int], rng: np.random.Generator
) -> dict[str, _Drawn]:
    place = {item: row for row, item in enumerate(traffic.items)}
    before = {item: row for row, item in enumerate(fallback.items)}
    drawn = {}
    pairs = [rng.permutation(np.array(traffic.met[n], object))[:2].tolist() for n in users]
    for name, table in fallback.vectors.items():
        own = traffic.vectors.get(name)
        center = table[fallback.present[name]].mean(axis=0) if fallback.present[name].any() else 0.0
        vector = np.zeros([len(users), table.shape[1]], np.float32)
        there, alike = np.zeros([len(users)], bool), np.full([len(users)], np.nan)
        for row, items in enumerate(pairs):
            found = []
            for item in items:
                if own is not None and item in place and traffic.present[name][place[item]]:
                    found.append(own[place[item]])
                elif own is None and item in before and fallback.present[name][before[item]]:
                    found.append(table[before[item]])
                else:
                    found.append(None)
            if found[0] is not None:
                vector[row], there[row] = found[0], True
            if len(found) == 2 and found[0] is not None and found[1] is not None:
                a, b = found[0] - center, found[1] - center
                alike[row] = a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9)
        drawn[name] = _Drawn(vector, there, alike)
    return drawn


def _scores(
    first: np.ndarray,
    second: np.ndarray,
    thresholds: Thresholds,
    rng: np.random.Generator,
    dealt: Callable[[int, int], np.ndarray],
) -> _Check:
    most = two_samples.MOST_ROWS
    kept = [rng.permutation(values[np.isfinite(values)])[:most] for values in (first, second)]
    both = np.concatenate(kept)
    label = dealt(len(kept[0]), len(kept[1]))
    found = two_samples.difference(both / max(float(both.std()), 1e-12), label)
    words = "change of the mean score of the first item, of the spread"
    return _Check("score", "", found.value, thresholds.score, found.p, words)
