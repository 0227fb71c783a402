"""The run directory: what was trained, on what, and how well, in a form that reads itself back.

RUN/
  run.json          format, dataset path and hash, versions, whether training has finished; then
                    also the hash of each file; where training went on from another run, its path
                    and its dataset's hash
  config.json       the experiment
  schema.json       the dataset's
  assets/NAME/      vocabulary and architecture of each encoder
  encoders.json     of each that is frozen, what its cached vectors are found by
  weights/          checkpoints: encoders, retrieval, item_head, ranking
  item_head.json    of a head of items against items: its weights, fitted on the valid split
  cold_items.json   where items without train interactions are placed, as a simulation found
  calibration.json  what makes a probability of a logit, fitted on the valid split
  ranking.json      whether ranking is served, or retrieval's own order, which it did not beat
  history.csv       one row an epoch of the retrieval model; ranking_history.csv likewise
  README.md         the model card, as model_card.json is, too; they are not hashed
  metrics.json      what `evaluate` measured on the valid split when training had finished
  twin/             the id-only twin, a run directory like this one
  tensorboard/      where it was asked for, TensorBoard's log
"""

import contextlib
import importlib.metadata
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from mmrec_tf.config import Config, load_config
from mmrec_tf.dataset.directory import Dataset, open_dataset
from mmrec_tf.encoders.stored import LazyEncoders, stored_facts
from mmrec_tf.errors import RunError
from mmrec_tf.evaluation.calibration import Calibration
from mmrec_tf.ranking.model import RankingModel
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.records.files import read_json, read_sealed, write_json, write_sealed, write_text
from mmrec_tf.records.manifest import sha256
from mmrec_tf.retrieval.cold_items_fit import ColdItemsFit
from mmrec_tf.retrieval.content_encoders import make_encoders
from mmrec_tf.retrieval.item_head import ItemHead
from mmrec_tf.retrieval.item_head_fit import ItemHeadFit
from mmrec_tf.retrieval.model import RetrievalModel
from mmrec_tf.schema import Schema
from mmrec_tf.training.checkpoints import load_weights, save_weights

FORMAT = 1
# What a run killed before its run.json may have left; everything else is somebody's.
STARTED = ("config.json", "schema.json")
# In a run directory, but not of what the run is: what training leaves behind when it is killed as
# it ends, another run, and a log that goes on after it.
APART = ("progress", "twin", "tensorboard")
PACKAGES = ("tensorflow", "tf-keras", "tensorflow-recommenders", "transformers", "numpy")


def versions() -> dict[str, str]:
    """The versions of the packages that a result depends on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


class Run:
    """A run directory, opened. Models and dataset are loaded on first use.

    Args:
      directory: its path.
      dataset: path of the dataset where it has moved since training; None for where it was.
      verify: compares the hashes of all its files when it is opened, not just their sizes.
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        *,
        dataset: str | pathlib.Path | None = None,
        verify: bool = False,
    ):
        self.directory = pathlib.Path(directory)
        try:
            self.facts = read_sealed(self.directory / "run.json")
        except (OSError, ValueError) as error:
            raise RunError(
                f'{directory}: wanted a run directory, as "mmrec-tf train" writes it; run.json: '
                f"{error}."
            ) from error
        found = self.facts.get("format")
        if found != FORMAT:
            raise RunError(f"{directory}: wanted run format {FORMAT}; got {found}. Train again.")
        self._compare()
        try:
            self.schema = Schema.from_json(read_json(self.directory / "schema.json"))
        except (OSError, ValueError) as error:
            raise RunError(
                f"{self.directory / 'schema.json'}: wanted the dataset's schema; {error}."
            ) from error
        self.config = load_config(self.directory / "config.json")
        self._dataset_path = pathlib.Path(dataset or self.facts["dataset"])
        self._verify = verify
        self._dataset: Dataset | None = None
        self._retrieval: RetrievalModel | None = None
        self._ranking: RankingModel | None = None

    @classmethod
    def create(
        cls,
        directory: str | pathlib.Path,
        config: Config,
        dataset: Dataset,
        *,
        start: "Run | None" = None,
    ) -> "Run":
        """Opens the unfinished run of the same experiment there, or starts a new one.

        Args:
          directory: its path.
          config: Config.
          dataset: Dataset.
          start: the run that training goes on from; None for a new model.

        Raises:
          RunError: when another or a finished run, or something else, stands there.
        """
        directory = pathlib.Path(directory)
        origin = None
        if start is not None:
            origin = {
                "run": str(start.directory.resolve()),
                "dataset_hash": start.facts["dataset_hash"],
            }
        if (directory / "run.json").exists():
            run = cls(directory, dataset=dataset.directory)
            if run.finished:
                # What a kill left that came as training had ended.
                shutil.rmtree(directory / "progress", ignore_errors=True)
                raise RunError(
                    f"{directory}: a finished run stands there. Choose another --out, or delete it."
                )
            same = run.config == config and run.facts["dataset_hash"] == dataset.hash
            if not same or run.facts.get("start") != origin:
                raise RunError(
                    f"{directory}: an unfinished run of another config or dataset, or one that "
                    "went on from another run, stands there. Choose another --out, or delete it."
                )
        elif directory.is_file():
            raise RunError(
                f"{directory}: wanted a folder; a file stands there. Choose another --out."
            )
        elif directory.exists() and {path.name for path in directory.iterdir()} - set(STARTED):
            raise RunError(
                f"{directory}: wanted a new or an empty folder; other files stand there. "
                "Choose another --out."
            )
        else:
            directory.mkdir(parents=True, exist_ok=True)
            write_json(directory / "config.json", config.to_json())
            write_json(directory / "schema.json", dataset.schema.to_json())
            facts = {
                "format": FORMAT,
                "dataset": str(dataset.directory.resolve()),
                "dataset_hash": dataset.hash,
                "seed": config.training.seed,
                "versions": versions(),
                "finished": False,
            }
            if origin is not None:
                facts["start"] = origin
            write_sealed(directory / "run.json", facts)
            run = cls(directory)
        run._dataset = dataset
        return run

    def withdraw(self) -> None:
        """Takes back what `create` wrote, unless something was made of it.

        A setting that is refused as a model is made would otherwise stand in the way of the same
        command with that setting mended.
        """
        if any((self.directory / name).exists() for name in ("weights", "progress", "twin")):
            return
        for name in ("run.json", "config.json", "schema.json"):
            (self.directory / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.directory.rmdir()  # unless others keep something there

    @property
    def finished(self) -> bool:
        """Whether training has come to its end."""
        return self.facts["finished"]

    @property
    def dataset(self) -> Dataset:
        """The dataset of the run.

        Raises:
          DatasetError: when it is missing or damaged.
          RunError: when it is another one by now.
        """
        if self._dataset is None:
            dataset = open_dataset(self._dataset_path, verify=self._verify)
            if dataset.hash != self.facts["dataset_hash"]:
                raise RunError(
                    f"{self._dataset_path}: this is not the dataset that {self.directory} was "
                    "trained on. Name that one with --dataset, or train again."
                )
            self._dataset = dataset
        return self._dataset

    def share_dataset(self, dataset: Dataset) -> None:
        """Takes a dataset that is open already for that of the run.

        Raises:
          RunError: when it is another one.
        """
        if dataset.hash != self.facts["dataset_hash"]:
            raise RunError(
                f"{dataset.directory}: this is not the dataset that {self.directory} was trained "
                "on. Name that one, or train again."
            )
        self._dataset = dataset

    @property
    def loaded(self) -> bool:
        """Whether it holds a model in memory."""
        return self._retrieval is not None

    def unload(self) -> None:
        """Lets go of the models, which are loaded again when they are asked for."""
        self._retrieval = self._ranking = None

    @property
    def retrieval(self) -> RetrievalModel:
        """The retrieval model; loaded unless `save_retrieval` put it there."""
        if self._retrieval is None:
            encoders = self._lazy_encoders()
            model = RetrievalModel(self.config, self.dataset, encoders=encoders, initialize=False)
            load_weights(self.directory / "weights/retrieval", model=model)
            fit = self.item_head_fit
            if fit is not None:
                head = ItemHead.of(self.config, self.schema.num_items)
                if fit.used:
                    load_weights(self.directory / "weights/item_head", head=head)
                model.set_item_head(head, fit)
            model.set_cold_items(self.cold_items_fit)
            self._retrieval = model
        return self._retrieval

    @property
    def item_head_fit(self) -> ItemHeadFit | None:
        """What was found when the head of items against items was fitted; None without one, and
        before.

        Raises:
          RunError: when the file is damaged.
        """
        path = self.directory / "item_head.json"
        if not path.exists():
            return None
        try:
            return ItemHeadFit.from_json(read_json(path))
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: wanted JSON; {error}. Train again.") from error

    @property
    def cold_items_fit(self) -> ColdItemsFit | None:
        """Where items without train interactions are placed; None where that was not fitted.

        Raises:
          RunError: when the file is damaged.
        """
        path = self.directory / "cold_items.json"
        if not path.exists():
            return None
        try:
            return ColdItemsFit.from_json(read_json(path))
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: wanted JSON; {error}. Train again.") from error

    @property
    def ranks(self) -> bool:
        """Whether it has a ranking model."""
        return (self.directory / "weights/ranking").exists()

    @property
    def serves_ranking(self) -> bool:
        """Whether its recommender ranks; False where ranking was of no use, and was told to stay
        out then.

        Raises:
          RunError: when the file that says so is damaged.
        """
        path = self.directory / "ranking.json"
        if not self.ranks or not path.exists():
            return self.ranks
        try:
            served = read_json(path)["served"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: wanted JSON with served; {error!r}. Train again.") from error
        if not isinstance(served, bool):
            raise RunError(f"{path}: wanted served true or false; got {served!r}. Train again.")
        return served

    @property
    def ranking(self) -> RankingModel | None:
        """The ranking model; None for a run without one."""
        if self._ranking is None and self.ranks:
            model = RankingModel(
                self.config, self.dataset, retrieval=self.retrieval, initialize=False
            )
            load_weights(self.directory / "weights/ranking", model=model)
            self._ranking = model
        return self._ranking

    @property
    def twin(self) -> "Run | None":
        """The id-only twin; None for a run without one."""
        path = self.directory / "twin"
        if not (path / "run.json").exists():
            return None
        twin = Run(path, dataset=self._dataset_path)
        twin._dataset = self._dataset
        return twin

    @property
    def calibration(self) -> Calibration:
        """What makes a probability of a logit; of an untouched logit where none was fitted.

        Raises:
          RunError: when the file is damaged.
        """
        path = self.directory / "calibration.json"
        if not path.exists():
            return Calibration()
        try:
            return Calibration.from_json(read_json(path))
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: wanted JSON; {error}. Train again.") from error

    @property
    def metrics(self) -> dict[str, Any]:
        """What `evaluate` measured when training had finished: `metrics.json`.

        Raises:
          RunError: when the file is missing or damaged.
        """
        path = self.directory / "metrics.json"
        try:
            return dict(read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{path}: wanted the figures of a run; {error}. Train again.") from error

    def recommender(
        self,
        *,
        unavailable: Sequence[str] = (),
        history: str = "all",
        compiled: bool = True,
    ) -> Recommender:
        """Both stages together; retrieval alone where ranking is not served.

        Args:
          unavailable: ids of items that are never recommended.
          history: what is known of users, as in `Recommender`.
          compiled: as in `Recommender`.
        """
        return Recommender(
            self.retrieval,
            self.ranking if self.serves_ranking else None,
            self.dataset,
            calibration=self.calibration,
            unavailable=unavailable,
            history=history,
            compiled=compiled,
        )

    def save_calibration(self, calibration: Calibration) -> None:
        """Writes what makes a probability of a logit."""
        write_json(self.directory / "calibration.json", calibration.to_json())

    def save_encoders(self, encoders: Mapping[str, Any]) -> None:
        """Writes the encoders' vocabulary, architecture and weights."""
        for name, encoder in encoders.items():
            folder = self.directory / "assets" / name
            folder.mkdir(parents=True, exist_ok=True)
            for file, text in encoder.assets().items():
                write_text(folder / file, text)
        facts = {name: stored_facts(encoder) for name, encoder in encoders.items()}
        write_json(self.directory / "encoders.json", facts)
        save_weights(self.directory / "weights/encoders", **encoders)

    def load_encoders(self, dataset: Dataset | None = None) -> dict[str, Any]:
        """The encoders that `save_encoders` wrote, by modality.

        Args:
          dataset: that of the model which is to read them; None for that of the run.
        """
        assets = _read_assets(self.directory / "assets")
        encoders = make_encoders(self.config, dataset or self.dataset, assets=assets)
        load_weights(self.directory / "weights/encoders", **encoders)
        return encoders

    def _lazy_encoders(self) -> Mapping[str, Any] | LazyEncoders:
        """`load_encoders`, of a finished run only when one of them is asked for."""
        path = self.directory / "encoders.json"
        # Weights that nobody looks at now must be known to be whole.
        if not self.finished or path.name not in self.facts.get("files", {}):
            return self.load_encoders()
        try:
            facts = dict(read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{path}: wanted JSON; {error}. Train again.") from error
        return LazyEncoders(facts, self.load_encoders)

    def save_retrieval(self, model: RetrievalModel) -> None:
        """Writes the trained retrieval model with its encoders."""
        self.save_encoders(model.encoders)
        save_weights(self.directory / "weights/retrieval", model=model)
        self._retrieval = model

    def save_item_head(self, model: RetrievalModel) -> None:
        """Writes what the model's head was fitted to, its matrix only where that is of use."""
        if model.item_head is not None:
            save_weights(self.directory / "weights/item_head", head=model.item_head)
        if model.item_head_fit is not None:
            # Last, as it says that the head is whole.
            write_json(self.directory / "item_head.json", model.item_head_fit.to_json())

    def save_cold_items(self, model: RetrievalModel) -> None:
        """Writes where the model places items without train interactions."""
        if model.cold_items_fit is not None:
            write_json(self.directory / "cold_items.json", model.cold_items_fit.to_json())

    def save_ranking(self, model: RankingModel, *, served: bool = True) -> None:
        """Writes the trained ranking model, and whether recommenders of this run rank with it."""
        write_json(self.directory / "ranking.json", {"served": served})
        save_weights(self.directory / "weights/ranking", model=model)
        self._ranking = model

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Writes the metrics and marks the run as finished."""
        write_json(
            self.directory / "metrics.json",
            {
                "seed": self.config.training.seed,
                "versions": self.facts["versions"],
                "dataset_hash": self.facts["dataset_hash"],
                **metrics,
            },
        )
        files = {
            path.relative_to(self.directory).as_posix(): sha256(path)
            for path in sorted(self.directory.rglob("*"))
            if path.is_file() and self._is_ours(path)
        }
        self.facts = {**self.facts, "finished": True, "files": files}
        write_sealed(self.directory / "run.json", self.facts)

    def _is_ours(self, path: pathlib.Path) -> bool:
        first = path.relative_to(self.directory).parts[0]
        hidden = any(part.startswith(".") for part in path.relative_to(self.directory).parts)
        return not hidden and first not in (*APART, "run.json")

    def _compare(self) -> None:
        """Refuses files that are not those that training wrote; a run of before they were hashed
        has none to compare."""
        for name, wanted in self.facts.get("files", {}).items():
            path = self.directory / name
            try:
                found = sha256(path)
            except OSError as error:
                raise RunError(
                    f"{path}: wanted the file of this run; {error.strerror}. Copy the run again, "
                    "or train again."
                ) from error
            if found != wanted:
                raise RunError(
                    f"{path}: its content is not what training wrote (another sha256). Copy the "
                    "run again, or train again."
                )


def _read_assets(folder: pathlib.Path) -> dict[str, dict[str, str]]:
    if not folder.is_dir():
        return {}
    return {
        encoder.name: {
            file.name: file.read_text(encoding="utf-8")
            for file in encoder.iterdir()
            if not file.name.startswith(".")
        }
        for encoder in folder.iterdir()
    }


def load_run(
    directory: str | pathlib.Path,
    *,
    dataset: str | pathlib.Path | None = None,
    verify: bool = False,
) -> Run:
    """Opens a finished run.

    Args:
      directory: what `mmrec-tf train --out` wrote.
      dataset: path of the dataset where it has moved since.
      verify: compares the hashes of all the dataset's files, not just their sizes.

    Returns:
      Run, with `config`, `schema`, `dataset`, `retrieval`, `ranking`, `twin`, `recommender()`.

    Raises:
      RunError: when it is missing, unfinished or damaged.
    """
    run = Run(directory, dataset=dataset, verify=verify)
    if not run.finished:
        raise RunError(
            f'{directory}: training has not finished. Go on with the same "mmrec-tf train".'
        )
    return run
