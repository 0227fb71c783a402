"""The report of a run: one HTML file that explains itself and asks nothing of a network."""

import pathlib
import resource
import sys
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from tqdm import tqdm

from mmrec_tf.errors import ConfigError, RunError
from mmrec_tf.records.files import write_json
from mmrec_tf.reporting import figures, page
from mmrec_tf.reporting.material import gather
from mmrec_tf.reporting.page import Markup, Section
from mmrec_tf.reporting.sections import (
    ablation,
    calibration,
    dataset,
    embedding_map,
    exposure,
    facts,
    fusion,
    groups,
    headline,
    labels,
    slices,
    training,
    users,
)
from mmrec_tf.runs.model_card import write_card
from mmrec_tf.runs.run import Run

NAME = "report.html"
# In the order of the page.
SECTIONS = (
    *(headline, training, slices, groups, ablation, fusion, labels, calibration),
    *(embedding_map, exposure, users, dataset, facts),
)


def write_report(
    run: Run,
    *,
    out: str | pathlib.Path | None = None,
    split: str = "valid",
    baselines: Sequence[str] | None = None,
    group: str | None = None,
    plots: str | None = None,
) -> pathlib.Path:
    """Writes the report of a run, aside and then into place.

    Args:
      run: Run, finished.
      out: the file; None for `report.html` in the run directory.
      split: what is measured: "valid", or "test", which is looked at last.
      baselines: names, as for `mmrec_tf.runs.evaluate.evaluate_run`; None for those that are quick
        on a catalog of this size.
      group: the categorical feature of items, such as their provider, by which exposure is set
        against relevance; None for the first that is named so, or else the one that most have.
      plots: "svg" or "png" to write the drawings also into the folder `NAME_plots` beside the file,
        one each; the embedding map, which is no drawing without its page, is not among them.

    Returns:
      The file.

    Raises:
      ConfigError: for another `plots`, or a `group` that is no categorical feature.
      RunError: where the file cannot be written, or the run's metrics are missing.
      DatasetError: where the dataset is missing or damaged.
    """
    path = pathlib.Path(out) if out is not None else run.directory / NAME
    if path.is_dir() or not path.parent.is_dir():
        raise RunError(f"{path}: wanted a file in a folder that is there. Choose another --out.")
    if plots not in (None, "svg", "png"):
        raise ConfigError(f"--plots: wanted svg or png; got {plots!r}.")
    exposure.item_groups(run.dataset, group)
    material = gather(run, split=split, baselines=baselines, group=group)
    sections, drawings = [], {}
    for module in SECTIONS:
        with figures.collected() as drawn:
            sections.append(module.section(material))
        drawings[module.TITLE] = drawn
    if plots:
        _write_plots(path.with_name(f"{path.stem}_plots"), drawings, plots)
    name = run.directory.resolve().name
    lead = page.paragraph(
        f"{run.schema.num_users:,} users, {run.schema.num_items:,} items of "
        f"{material.dataset.directory.name}; measured on the {split} split.",
        class_="soft",
    )
    page.write_page(path, f"Report of {name}", lead, sections)
    return path


def _write_plots(
    folder: pathlib.Path, drawings: Mapping[str, Sequence[Figure]], suffix: str
) -> None:
    folder.mkdir(exist_ok=True)
    for title, drawn in drawings.items():
        name = Section(title, Markup()).anchor
        for number, drawing in enumerate(drawn, 1):
            figures.write_drawing(drawing, folder / f"{name}-{number}.{suffix}")


def report_training(run: Run, *, seconds: float) -> pathlib.Path | None:
    """Writes what a training took, the model card and the report, as the command that trains ends.

    A report that fails does not fail the training: a line on stderr says why there is none.

    Args:
      run: Run, finished.
      seconds: what training took, in this process.

    Returns:
      The file, which is also named on stderr; None where it could not be written.
    """
    try:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KB on Linux, bytes on macOS
        peak_mb = peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
        write_json(run.directory / facts.COST, {"seconds": seconds, "peak_memory_mb": peak_mb})
        card = write_card(run)
        path = write_report(run)
    # Whatever it is: hours of training stand on disk, and are not to look lost.
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        again = f'"mmrec-tf report {run.directory}" tries again'
        tqdm.write(f"report: not written, the run is whole; {said} ({again}).", file=sys.stderr)
        return None
    tqdm.write(f"model card: {card}\nreport: {path}", file=sys.stderr)
    return path
