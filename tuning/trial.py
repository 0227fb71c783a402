"""One trial: a config trained as far as the objective asks, and measured on the valid split.

Trials read a `ValidDataset`, which has no test split to give away. What trials agree on is trained
once: their retrieval where only ranking or the recommender is varied, both stages where only the
recommender is. What a kill interrupts goes on from its last epoch.
"""

import contextlib
import dataclasses
import gc
import hashlib
import json
import math
import pathlib
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import mmrec_tf as mm
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import MmrecError, TuningError
from mmrec_tf.records.files import hold_folder, read_sealed, write_sealed
from tuning.objective import Objective, measure

RESULT = "result.json"


class Diverged(TuningError):
    """Training whose loss is no number any more."""


class TimedOut(TuningError):
    """A trial that took longer than it may."""


class Budget(NamedTuple):
    """What one training of a trial may use.

    Attributes:
      folder: what it keeps; the same folder goes on where it stopped.
      epochs: after how many epochs to stop for now; None for all.
      deadline: of `time.monotonic`; None for none.
    """

    folder: pathlib.Path
    epochs: int | None = None
    deadline: float | None = None


# A config and a budget -> each metric of the objective by name.
Trial = Callable[[mm.Config, Budget], Mapping[str, float]]


class ValidDataset(Dataset):
    """A dataset directory whose test split cannot be read: what chooses a config must not see what
    it is judged by."""

    def interactions(self, split: str) -> Any:
        """As of `Dataset`, of train and valid.

        Raises:
          TuningError: for the test split.
        """
        if split == "test":
            raise TuningError(
                f"{self.directory}: a search wanted the test split, which it must not read. "
                "Evaluate the best config once, with --retrain or mmrec-tf evaluate."
            )
        return super().interactions(split)

    def ceiling(self, split: str, *, knowable: bool = False) -> dict[str, float] | None:
        """As of `Dataset`, of valid.

        Raises:
          TuningError: for the test split.
        """
        if split == "test":
            raise TuningError(f"{self.directory}: a search wanted the ceiling of the test split.")
        return super().ceiling(split, knowable=knowable)


class Recommenders:
    """Trains and measures configs.

    Args:
      dataset: ValidDataset.
      objective: what is measured.
      shared: folder for what trials share.
      varied: the stages that the space varies, of "retrieval", "ranking" and "recommender".
      paced: the stage whose epochs a budget counts, "retrieval" or "ranking".
      start: whose settings of the recommender a ranking model is trained with that trials share.
    """

    def __init__(
        self,
        dataset: ValidDataset,
        objective: Objective,
        *,
        shared: pathlib.Path,
        varied: Sequence[str],
        paced: str,
        start: mm.Config,
    ):
        self.dataset = dataset
        self.objective = objective
        self.shared = shared
        self.varied = frozenset(varied)
        self.paced = paced
        self.start = start
        self._held: dict[str, tuple[str, Any]] = {}

    def __call__(self, config: mm.Config, budget: Budget) -> dict[str, float]:
        """Each metric of the objective, of a config trained within a budget.

        Raises:
          MmrecError: whatever a model refuses; Diverged and TimedOut among them.
        """
        import tensorflow as tf

        # A search builds many models in one process, and Keras keeps all their graphs until told.
        tf.keras.backend.clear_session()
        gc.collect()
        alone = self.objective.stage == "retrieval"
        rung = budget.epochs if self.paced == "retrieval" else None
        if alone or (rung is not None and "retrieval" in self.varied):
            retrieval = self._retrieval(config, budget.folder / "retrieval", budget, epochs=rung)
        else:
            retrieval = self._shared_retrieval(config, budget)
        if alone:
            return measure(self.objective, self.dataset, retrieval=retrieval)
        ranking = None
        if config.ranking.epochs:
            rung = budget.epochs if self.paced == "ranking" else None
            if self.varied == {"recommender"}:
                ranking = self._shared_ranking(config, retrieval, budget)
            else:
                ranking = self._ranking(
                    config, retrieval, budget.folder / "ranking", budget, epochs=rung
                )
        recommender = mm.Recommender(retrieval, ranking, self.dataset, history="train")
        return measure(self.objective, self.dataset, retrieval=retrieval, recommender=recommender)

    def _retrieval(
        self, config: mm.Config, folder: pathlib.Path, budget: Budget, *, epochs: int | None
    ) -> Any:
        """A retrieval model with the weights that were best on valid."""
        model = mm.RetrievalModel(config, self.dataset)
        self._fit(model, folder, budget, epochs=epochs)
        return model

    def _ranking(
        self,
        config: mm.Config,
        retrieval: Any,
        folder: pathlib.Path,
        budget: Budget,
        *,
        epochs: int | None,
    ) -> Any:
        """A ranking model over a retrieval model; one over another is not gone on from."""
        if self.paced == "retrieval" and "retrieval" in self.varied:
            done = folder / f"of-{budget.epochs or 'all'}"
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
            done.mkdir(parents=True, exist_ok=True)
            folder = done
        model = mm.RankingModel(config, self.dataset, retrieval=retrieval)
        self._fit(model, folder, budget, epochs=epochs)
        return model

    def _fit(self, model: Any, folder: pathlib.Path, budget: Budget, *, epochs: int | None) -> None:
        watch = _watch(budget.deadline)
        mm.train(model, self.dataset, directory=folder, callbacks=[watch], epochs=epochs)

    def _shared_retrieval(self, config: mm.Config, budget: Budget) -> Any:
        """The retrieval model of all trials that agree on its settings, trained by the first."""
        from mmrec_tf.training.checkpoints import load_weights

        key = fingerprint(config, without=("ranking", "recommender"))
        if self._held.get("retrieval", ("",))[0] == key:
            model = self._held["retrieval"][1]
            model.config = config  # whose later stages may be others
            return model
        folder = self.shared / f"retrieval-{key}"
        with _turn(folder, budget.deadline):
            run = _storage(folder / "run", config, self.dataset)
            if (run.directory / "weights/retrieval").exists():
                encoders = run.load_encoders(self.dataset)
                model = mm.RetrievalModel(config, self.dataset, encoders=encoders, initialize=False)
                load_weights(run.directory / "weights/retrieval", model=model)
                _load_head(model, run)
            else:
                model = self._retrieval(config, folder / "progress", budget, epochs=None)
                run.save_item_head(model)
                run.save_retrieval(model)
                shutil.rmtree(folder / "progress", ignore_errors=True)
        self._held = {"retrieval": (key, model)}
        return model

    def _shared_ranking(self, config: mm.Config, retrieval: Any, budget: Budget) -> Any:
        """The ranking model of all trials that agree on all but the recommender's settings."""
        from mmrec_tf.training.checkpoints import load_weights, save_weights

        key = fingerprint(config, without=("recommender",))
        if self._held.get("ranking", ("",))[0] == key:
            model = self._held["ranking"][1]
            model.config = config
            return model
        folder = self.shared / f"ranking-{key}"
        with _turn(folder, budget.deadline):
            if (folder / "weights").exists():
                model = mm.RankingModel(config, self.dataset, retrieval=retrieval, initialize=False)
                load_weights(folder / "weights", model=model)
            else:
                # Lists say which epoch is kept: those of the start, whichever trial comes first.
                first = dataclasses.replace(config, recommender=self.start.recommender)
                model = self._ranking(first, retrieval, folder / "progress", budget, epochs=None)
                model.config = config
                save_weights(folder / "weights", model=model)
                shutil.rmtree(folder / "progress", ignore_errors=True)
        self._held["ranking"] = (key, model)
        return model


def fingerprint(config: mm.Config, *, without: Sequence[str]) -> str:
    """What names a config apart from some sections, the same for equal ones."""
    tree = {name: part for name, part in config.to_json().items() if name not in without}
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def run_seeds(
    trial: Trial,
    config: mm.Config,
    objective: Objective,
    *,
    folder: pathlib.Path,
    seeds: int = 1,
    epochs: int | None = None,
    past: pathlib.Path | None = None,
    minutes: float | None = None,
) -> dict[str, Any]:
    """Runs a trial once for each seed; those that are done already, as before a kill, are read.

    Args:
      trial: what trains and measures.
      config: Config, whose `training.seed` is the first.
      objective: what makes a score of its metrics.
      folder: of the trial.
      seeds: how many; the next ones count up.
      epochs: as of `Budget`.
      past: folder of the trial that this one goes on from.
      minutes: how long all seeds together may take; what is done before a kill does not count.

    Returns:
      "score", its mean over seeds; "spread", its standard deviation (null of one seed); "metrics",
      the mean of each; "seeds", of each "seed", "score" and "metrics"; "seconds"; "epochs".

    Raises:
      TuningError: for a score that is no number.
      Exception: whatever the trial raises.
    """
    start = time.monotonic()
    deadline = None if minutes is None else start + 60 * minutes
    done = []
    for number in range(seeds):
        seed = config.training.seed + number
        place = folder / f"seed-{seed}"
        path = place / RESULT
        if path.exists():
            done.append(read_sealed(path))
            continue
        if past is not None and not place.exists():
            _go_on(past / f"seed-{seed}", place)
        began = time.monotonic()
        place.mkdir(parents=True, exist_ok=True)
        metrics = trial(
            config if not number else config.override({"training.seed": seed}),
            Budget(place, epochs, deadline),
        )
        score = float(objective.score(metrics))
        if not math.isfinite(score):
            raise TuningError(f"the score is {score}")
        found = {
            "seed": seed,
            "score": score,
            "metrics": {name: float(value) for name, value in metrics.items()},
            "seconds": time.monotonic() - began,
        }
        write_sealed(path, found)
        done.append(found)
    scores = [entry["score"] for entry in done]
    return {
        "score": statistics.fmean(scores),
        "spread": statistics.stdev(scores) if len(scores) > 1 else None,
        "metrics": {
            name: statistics.fmean(entry["metrics"][name] for entry in done)
            for name in done[0]["metrics"]
        },
        "seeds": [{k: entry[k] for k in ("seed", "score", "metrics")} for entry in done],
        "seconds": sum(entry["seconds"] for entry in done),
        "epochs": epochs,
    }


def why(error: BaseException) -> str:
    """Why a trial failed, in one line: out of memory, diverged, timed out, or what was raised."""
    said = " ".join(str(error).split())
    name = type(error).__name__
    if isinstance(error, MemoryError) or name == "ResourceExhaustedError":
        return f"out of memory: {said[:300] or 'no more could be had'}"
    # The library says so itself where scores are no numbers.
    if isinstance(error, Diverged) or "the model diverged" in said:
        return f"diverged: {said}"
    if isinstance(error, TimedOut):
        return f"timed out: {said}"
    return f"{name}: {said}"


def _go_on(past: pathlib.Path, place: pathlib.Path) -> None:
    """Copies what an earlier trial had come to, whole or not at all; its result is its own."""
    new = place.with_name(f".{place.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    if past.exists():
        shutil.copytree(past, new, ignore=shutil.ignore_patterns(RESULT, ".*"))
    else:
        new.mkdir(parents=True)
    new.rename(place)


class _Busy(MmrecError):
    """Another worker holds a folder."""


@contextlib.contextmanager
def _turn(folder: pathlib.Path, deadline: float | None) -> Iterator[None]:
    """Waits until no other worker trains in a folder."""
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(hold_folder(folder, _Busy, "trains"))
                break
            except _Busy:
                if deadline is not None and time.monotonic() > deadline:
                    raise TimedOut("another worker trains the retrieval model still") from None
                time.sleep(0.5)
        yield


def _storage(folder: pathlib.Path, config: mm.Config, dataset: Dataset) -> Any:
    """A run directory as a place for a retrieval model with its encoders."""
    from mmrec_tf.runs.run import Run

    if (folder / "run.json").exists():
        run = Run(folder)
        run.share_dataset(dataset)
        return run
    return Run.create(folder, config, dataset)


def _load_head(model: Any, run: Any) -> None:
    from mmrec_tf.retrieval.item_head import ItemHead
    from mmrec_tf.training.checkpoints import load_weights

    fit = run.item_head_fit
    if fit is None:
        return
    head = ItemHead.of(model.config, model.schema.num_items)
    if fit.used:
        load_weights(run.directory / "weights/item_head", head=head)
    model.set_item_head(head, fit)


def _watch(deadline: float | None) -> Any:
    """A Keras callback that ends training which diverges or takes too long."""
    import tensorflow as tf

    class Watch(tf.keras.callbacks.Callback):
        """Looks at the clock after each batch, at the loss after each epoch."""

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if deadline is not None and time.monotonic() > deadline:
                raise TimedOut(f"in {self.model.stage}, after {batch + 1} batches of an epoch")

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            for name, value in (logs or {}).items():
                if not math.isfinite(float(value)):
                    raise Diverged(f"{name} is {float(value)} after epoch {epoch + 1}")

    return Watch()
