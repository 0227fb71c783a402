"""The cold start that a trained retrieval model is put through, see `cold_items_fit`.

What is hidden loses its ids, its interactions in the graph, its popularity and its place in
histories; nothing is trained, so that the model is as it was afterwards.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from mmrec_tf.evaluation.evaluate import blocks
from mmrec_tf.retrieval import cold_items_fit
from mmrec_tf.retrieval.catalog_tables import cold_log_frequency, train_count
from mmrec_tf.retrieval.cold_items import place
from mmrec_tf.retrieval.cold_items_fit import ColdItemsFit, Lists, Simulation
from mmrec_tf.retrieval.index.interests import score_all
from mmrec_tf.towers import unit


def fit_places(model: tf.keras.Model, *, monitor: str) -> ColdItemsFit:
    """Where a model's items without train interactions belong.

    Args:
      model: RetrievalModel that places nothing yet; its towers are trained, its head is fitted.
      monitor: the metric whose cut-off counts.

    Returns:
      ColdItemsFit.
    """
    settings = model.config.cold_items
    drawn = cold_items_fit.simulate(
        model.liked_histories(),
        model.near_items(),
        share=settings.hidden_share,
        seed=model.config.training.seed,
    )
    return cold_items_fit.fit(
        drawn,
        simulated_lists(model, drawn) if len(drawn.users) else (),
        warm=np.flatnonzero(model.tables["warm"].numpy() & ~drawn.hidden),
        k=int(monitor.partition("@")[2]),
        num_neighbors=settings.num_neighbors,
        exposure=settings.exposure,
        fixed=settings.pull,
    )


def simulated_lists(model: tf.keras.Model, drawn: Simulation) -> Iterator[Lists]:
    """The scores of the simulated catalog, which holds warm items alone, for its users."""
    left = model.tables["warm"].numpy() & ~drawn.hidden
    hidden, warm = np.flatnonzero(drawn.hidden), np.flatnonzero(left)
    near = np.flatnonzero(model.near_items() & ~drawn.hidden)
    own = model.embed_rows(np.arange(model.schema.num_items))
    own[hidden] = model.embed_rows(hidden, content_only=True)
    smooth = own
    if model.graph is not None:
        smooth = np.asarray(unit(model.graph.without(drawn.hidden).smooth(tf.constant(own))))
    content, num_neighbors = model.by_content(own, near), model.config.cold_items.num_neighbors
    placed = [
        place(smooth, content, hidden, near, num_neighbors=num_neighbors, pull=pull)
        if pull
        else smooth[hidden]
        for pull in cold_items_fit.pulls_to_try(model.config.cold_items.pull)
    ]
    count = np.where(drawn.hidden, 0, train_count(model.dataset, model.config.retrieval))
    frequency = cold_log_frequency(count, model.config.retrieval)
    log_frequency = tf.gather(model.tables["log_frequency"], warm)
    of_warm = model.candidates(tf.constant(smooth[warm]), log_frequency)
    of_hidden = [
        model.candidates(tf.constant(vectors), tf.fill([len(hidden)], frequency))
        for vectors in placed
    ]
    embedding, column = tf.constant(smooth), np.full(model.schema.num_items, -1)
    column[warm] = np.arange(len(warm))
    for block in blocks(len(drawn.users), model.schema.num_items):
        users = drawn.users[block]
        queries = model.queries(model.embed_histories(drawn.histories, embedding, users))
        # Copies, so they may be written to.
        scores = score_all(queries, of_warm).numpy()
        others = [score_all(queries, vectors).numpy() for vectors in of_hidden]
        added = model.head_scores(drawn.histories, users)
        if added is not None:
            scores += added[:, warm]
            if model.config.item_head.kind == "content":
                others = [part + added[:, hidden] for part in others]
        row, item = drawn.histories.pairs(users)
        scores[row, column[item]] = -np.inf
        yield Lists(block.start, scores, others)
