"""Batches for one step of a retrieval model, and what comes of it."""

import numpy as np
import tensorflow as tf

from mmrec_tf import open_dataset
from mmrec_tf.records import DatasetWriter
from mmrec_tf.schema import Schema


def batch(item, *, user=None, history=None, weight=None):
    size = len(item)
    if history is None:
        history = np.full([size, 4], -1)
    return {
        "user": tf.constant(np.arange(size) if user is None else user, tf.int32),
        "item": tf.constant(item, tf.int32),
        "history": tf.constant(history, tf.int32),
        "rating": tf.ones([size]),
        "weight": tf.ones([size]) if weight is None else tf.constant(weight, tf.float32),
    }


# Items 1 and 7 stand twice; users 0 and 2 know items that others of the batch choose.
REPEATED = batch(
    [1, 7, 3, 1, 12, 7],
    history=[[7, 3, 20, -1], [-1] * 4, [12, 1, 1, 5], [-1] * 4, [4, -1, -1, -1], [9, 8, -1, -1]],
)


def gradients(model, inputs, **options):
    @tf.function(**options)
    def step(inputs):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(inputs)
        found = tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")
        return loss, [tf.convert_to_tensor(gradient) for gradient in found]

    loss, found = step(inputs)
    return float(loss), [gradient.numpy() for gradient in found]


def logits_of(model, inputs):
    """Users against the whole catalog, by the formula of the class."""
    embedding = model.embed_catalog().embedding
    history = inputs["history"].numpy()
    user = model.embed_users(
        inputs["user"], tf.constant(embedding[np.maximum(history, 0)]), tf.constant(history >= 0)
    )
    temperature = np.exp(model.log_temperature.numpy())
    popularity = model.popularity_weight.numpy() * model.tables["log_frequency"].numpy()
    return user.numpy() @ embedding.T / temperature + popularity


def popular_world(folder):
    """Everyone draws items from one and the same distribution: there is nothing else to learn."""
    rng = np.random.default_rng(0)
    share = np.arange(1, 13) ** -1.0
    with DatasetWriter(folder) as writer:
        for item in range(12):
            writer.write_item(f"i{item}")
        for user in range(400):
            writer.write_user(f"u{user}")
            items = rng.choice(12, 4, p=share / share.sum())
            writer.write_interactions("train", user, item=items, timestamp=range(4))
        schema = Schema(num_users=400, num_items=12)
        writer.finish(schema, source={"name": "test"}, split_rule="given")
    return open_dataset(folder)
