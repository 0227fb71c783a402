"""The report of a run: one HTML file that explains itself and asks nothing of a network."""

import pathlib
import resource
import sys
from collections.abc import Sequence

from tqdm import tqdm

from mmrec_tf.errors import RunError
from mmrec_tf.records.files import write_json
from mmrec_tf.reporting import page
from mmrec_tf.reporting.material import gather
from mmrec_tf.reporting.sections import (
    calibration,
    dataset,
    embedding_map,
    exposure,
    facts,
    fusion,
    headline,
    labels,
    slices,
    training,
    users,
)
from mmrec_tf.runs.run import Run

NAME = "report.html"
# In the order of the page.
SECTIONS = (
    *(headline, training, slices, fusion, labels, calibration),
    *(embedding_map, exposure, users, dataset, facts),
)


def write_report(
    run: Run,
    *,
    out: str | pathlib.Path | None = None,
    split: str = "valid",
    baselines: Sequence[str] | None = None,
) -> pathlib.Path:
    """Writes the report of a run, aside and then into place.

    Args:
      run: Run, finished.
      out: the file; None for `report.html` in the run directory.
      split: what is measured: "valid", or "test", which is looked at last.
      baselines: names, as for `mmrec_tf.runs.evaluate.evaluate_run`; None for those that are quick
        on a catalog of this size.

    Returns:
      The file.

    Raises:
      RunError: where the file cannot be written, or the run's metrics are missing.
      DatasetError: where the dataset is missing or damaged.
    """
    path = pathlib.Path(out) if out is not None else run.directory / NAME
    if path.is_dir() or not path.parent.is_dir():
        raise RunError(f"{path}: wanted a file in a folder that is there. Choose another --out.")
    material = gather(run, split=split, baselines=baselines)
    sections = [module.section(material) for module in SECTIONS]
    name = run.directory.resolve().name
    lead = page.paragraph(
        f"{run.schema.num_users:,} users, {run.schema.num_items:,} items of "
        f"{material.dataset.directory.name}; measured on the {split} split.",
        class_="soft",
    )
    page.write_page(path, f"Report of {name}", lead, sections)
    return path


def report_training(run: Run, *, seconds: float) -> pathlib.Path | None:
    """Writes what a training took, and the report, at the end of the command that trained.

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
        path = write_report(run)
    # Whatever it is: hours of training stand on disk, and are not to look lost.
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        again = f'"mmrec-tf report {run.directory}" tries again'
        tqdm.write(f"report: not written, the run is whole; {said} ({again}).", file=sys.stderr)
        return None
    tqdm.write(f"report: {path}", file=sys.stderr)
    return path
