"""The figures of a run beside those of what it has to beat."""

import sys
from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.errors import ConfigError
from mmrec_tf.evaluation.baselines import BASELINES, baseline_names, rank_by
from mmrec_tf.evaluation.evaluate import (
    Ranker,
    rank_by_popularity,
    relevant_items,
    require_history,
)
from mmrec_tf.evaluation.metrics import (
    ItemVectors,
    coverage,
    diversity,
    gini,
    mean_metrics,
    novelty,
    paired_bootstrap,
    retrieval_metrics,
)
from mmrec_tf.evaluation.slices import item_slices, slice_metrics
from mmrec_tf.retrieval.model import RetrievalModel
from mmrec_tf.runs.run import Run

# Of each slice these two are told, of everything else all metrics.
SLICE_METRICS = ("recall", "ndcg")


def _rank_baselines(
    names: Iterable[str],
    dataset: Dataset,
    users: np.ndarray,
    vectors: ItemVectors | None,
    *,
    k: int,
    history: str,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The first k items by each baseline, and why those are missing that could not be made."""
    tops, left_out = {}, {}
    for name in names:
        try:
            score = BASELINES[name](dataset, vectors, history=history)
        except ConfigError as error:
            left_out[name] = str(error)
            tqdm.write(f"left out: {error}", file=sys.stderr)
            continue
        tops[name] = rank_by(score, dataset, users, k=k, history=history)
    return tops, left_out


def evaluate_run(
    run: Run,
    *,
    split: str,
    ks: Iterable[int],
    stage: str = "retrieval",
    baselines: Iterable[str] = (),
    slices: bool = False,
    history: str = "train",
) -> dict:
    """The figures of a run beside those of what it has to beat.

    Args:
      run: Run.
      split: "valid" or "test".
      ks: cut-offs.
      stage: "retrieval", or "recommender" for what is left after ranking too.
      baselines: names of `mmrec_tf.evaluation.baselines.BASELINES`, or "all"; popularity is
        always there.
      slices: whether to say also how each does on groups of items.
      history: what the model, its twin and the baselines know of users, and leave out: "train", or
        on test "train+valid".

    Returns:
      dict of

      - "split", "history", and "users", the number of users;
      - "intervals", of the model by metric, `[mean, low, high]` over users, from a bootstrap;
      - "model", "popularity" and "id_only", metrics by name; the last is None without a twin;
      - "baselines", by name their metrics;
      - "left_out", by name the reason why a baseline could not be made; also a line on stderr;
      - "differences", by what stands beside the model and by metric, `[mean, low, high]` of
        model minus that, see `mmrec_tf.evaluation.metrics.paired_bootstrap`;
      - "beyond_accuracy", of each, see `beyond_accuracy`; "diversity_of" says whether diversity
        compares "content" (vectors of frozen encoders) or the model's "item embeddings";
      - "slices", only if asked for: by slice (`item_slices`) the number of items and users, and
        recall and NDCG of each.

    Raises:
      ConfigError: for an unknown baseline, or a history that holds the split.
      DatasetError: for a split without interactions.
    """
    require_history(split, history)
    names = [name for name in baseline_names(baselines) if name != "popularity"]
    ks = sorted(set(ks))
    dataset, twin = run.dataset, run.twin
    users, relevant = relevant_items(dataset, split)
    vectors = content_vectors(run.retrieval, dataset)

    def rank(part: Run) -> np.ndarray:
        model: Ranker = part.retrieval
        if stage == "recommender":
            model = part.recommender(history=history)
        return model.rank_items(dataset, users, k=ks[-1], history=history)

    popular = rank_by_popularity(dataset, users, k=ks[-1], history=history)
    tops = {"model": rank(run), "popularity": popular}
    if twin is not None:
        tops["id_only"] = rank(twin)
    others, left_out = _rank_baselines(names, dataset, users, vectors, k=ks[-1], history=history)
    tops |= others
    per_user = {name: retrieval_metrics(top, relevant, ks=ks) for name, top in tops.items()}
    means = {name: mean_metrics(values) for name, values in per_user.items()}
    compared = vectors or _embeddings(run.retrieval)
    result = {
        "split": split,
        "history": history,
        "users": len(users),
        "model": means["model"],
        "popularity": means["popularity"],
        "id_only": means.get("id_only"),
        "baselines": {name: means[name] for name in others},
        "left_out": left_out,
        # The difference from nothing at all is the mean itself.
        "intervals": {
            metric: list(paired_bootstrap(values, np.zeros(len(values))))
            for metric, values in per_user["model"].items()
        },
        "differences": {
            name: {
                metric: list(paired_bootstrap(per_user["model"][metric], values))
                for metric, values in per_user[name].items()
            }
            for name in tops
            if name != "model"
        },
        "diversity_of": "item embeddings" if vectors is None else "content",
        "beyond_accuracy": {
            name: beyond_accuracy(top, dataset, compared, ks=ks) for name, top in tops.items()
        },
    }
    if slices:
        result["slices"] = {
            name: _slice(tops, relevant, members, ks)
            for name, members in item_slices(dataset).items()
        }
    return result


def content_vectors(model: RetrievalModel, dataset: Dataset) -> ItemVectors | None:
    """What the frozen encoders of a model make of the catalog; None for a model without one.

    Those of encoders that train would say what the model has learned, not what the content is.
    """
    frozen = [name for name in model.modalities if model.encoders[name].frozen]
    if not frozen:
        return None
    # Not the model's own table, in which absent content may have been filled in.
    present = dataset.catalog.present
    columns = [list(dataset.schema.modalities).index(name) for name in frozen]
    content = model.tables["content"]
    return ItemVectors({name: np.asarray(content[name]) for name in frozen}, present[:, columns])


def _embeddings(model: RetrievalModel) -> ItemVectors:
    embedding = model.embed_all()
    return ItemVectors({"embedding": embedding}, np.ones([len(embedding), 1], bool))


def beyond_accuracy(
    top: np.ndarray, dataset: Dataset, vectors: ItemVectors, *, ks: Iterable[int]
) -> dict[str, float | None]:
    """Coverage, Gini, novelty and diversity at each cut-off, see `mmrec_tf.evaluation.metrics`."""
    found: dict[str, float | None] = {}
    for k in ks:
        first = top[:, :k]
        found |= {
            f"coverage@{k}": coverage(first, num_items=dataset.schema.num_items),
            f"gini@{k}": gini(first, num_items=dataset.schema.num_items),
            f"novelty@{k}": novelty(first, probability=dataset.catalog.probability),
            f"diversity@{k}": diversity(first, vectors=vectors),
        }
    return found


def _slice(
    tops: dict[str, np.ndarray],
    relevant: tuple[np.ndarray, np.ndarray],
    members: np.ndarray,
    ks: list[int],
) -> dict:
    """One slice of "slices"; users are the same whoever ranks."""
    found: dict = {"items": int(members.sum())}
    for name, top in tops.items():
        values = slice_metrics(top, relevant, members, ks)
        found["users"] = values.pop("users")
        found[name] = {n: v for n, v in values.items() if n.partition("@")[0] in SLICE_METRICS}
    return found
