"""Whether a probability means what it says."""

import numpy as np

from mmrec_tf.errors import MmrecError
from mmrec_tf.evaluation.metrics import expected_calibration_error
from mmrec_tf.recommender.funnel import collect
from mmrec_tf.reporting import figures, page
from mmrec_tf.reporting.material import Material
from mmrec_tf.reporting.page import Section

TITLE = "Calibration"
_BINS = 10


def section(material: Material) -> Section:
    """Said and observed probabilities of the split's candidates, in bins of equal size."""
    try:
        pool = collect(material.recommender, material.dataset, split=material.split, k=1)
    except MmrecError as error:
        return page.missing(TITLE, f"Nothing could be measured: {error}")
    labels, _, real = pool.examples()
    if not len(labels) or labels.all() or not labels.any():
        return page.missing(
            TITLE, "The candidates are all of one kind, so no probability can be checked."
        )
    said = material.recommender.calibration(pool.logit[real]).numpy()
    drawn = reliability_bins(said, labels)
    off = expected_calibration_error(labels, said, equal_mass=True)
    kind = material.recommender.calibration.kind
    fitted = ", on which it was fitted" if material.split == "valid" and kind != "none" else ""
    drawing = page.figure(
        figures.reliability(drawn),
        f"{len(labels):,} candidates of the {material.split} split{fitted}, {int(labels.sum()):,} "
        f"of them chosen, in {len(drawn)} bins of equal size. On the dotted line a probability "
        "means what it says.",
    )
    words = f"Calibration: {kind}. Expected calibration error {off:.5f} (equal-mass bins)."
    return Section(TITLE, page.join([page.figures(drawing), page.paragraph(words)]))


def reliability_bins(said: np.ndarray, labels: np.ndarray) -> list[tuple[float, float, int]]:
    """Examples in bins of equal size by what was said.

    Args:
      said: <float>[example], probabilities.
      labels: <bool>[example].

    Returns:
      Of each bin the mean of what was said, the share of positives, and its examples.
    """
    order = np.argsort(said, kind="stable")
    return [
        (float(said[part].mean()), float(labels[part].mean()), len(part))
        for part in np.array_split(order, min(_BINS, len(order)))
    ]
