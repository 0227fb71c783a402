"""What a retrieval model learns beside who chose what: from its modalities, labels and graph."""

from collections.abc import Mapping

import tensorflow as tf

from mmrec_tf.dataset import draws
from mmrec_tf.towers import TowerOutput
from mmrec_tf.towers.alignment import TranslationLoss
from mmrec_tf.towers.labels import LabelHeads


def draw_triples(model: tf.keras.Model, count: tf.Tensor) -> tf.Tensor | None:
    """Some triples of the knowledge graph, each with another node in place of its tail:
    <int32>[triple, 4], head, relation, tail and wrong tail. None without a graph."""
    if model.translation is None:
        return None
    triples = model.tables["triples"]
    row = draws.uniform([count], maxval=tf.shape(triples)[0], dtype=tf.int32)
    num_nodes = model.schema.num_items + model.schema.num_entities
    wrong = draws.uniform([count, 1], maxval=num_nodes, dtype=tf.int32)
    return tf.concat([tf.gather(triples, row), wrong], axis=1)


def graph_loss(
    model: tf.keras.Model,
    translation: TranslationLoss,
    output: TowerOutput,
    rows: Mapping[str, tf.Tensor],
    triples: tf.Tensor,
) -> tf.Tensor:
    """What pulls items together that the knowledge graph links."""
    # Rows of the step's items stand first, whatever their numbers; then the entities.
    num_rows = tf.shape(output.embedding)[0]
    is_item = triples < model.schema.num_items
    entity = triples - model.schema.num_items + num_rows
    head, _, tail, wrong = tf.unstack(tf.where(is_item, rows["nodes"], entity), axis=1)
    return translation.loss(output.embedding, num_rows, head, triples[:, 1], tail, wrong)


def label_loss(
    model: tf.keras.Model,
    heads: LabelHeads,
    output: TowerOutput,
    rows: Mapping[str, tf.Tensor],
    item: tf.Tensor,
    *,
    training: bool,
) -> tf.Tensor:
    """How far the heads are from what the step's items are called."""
    embedding = tf.gather(output.embedding, rows["item"])
    if model.item_tower.id_embedding is not None or model.graph is not None:
        # By content alone, as a new item is: with an id, the id would learn it.
        placed = model.embed_items(item, training=training, content_only=True)
        embedding = placed.embedding
    table = model.tables["item_features"]
    features = {name: tf.gather(table[name], item) for name in heads.forms}
    return heads.loss(embedding, features)


def contrastive_loss(
    model: tf.keras.Model, output: TowerOutput, rows: Mapping[str, tf.Tensor], item: tf.Tensor
) -> tf.Tensor:
    """What pulls the modalities of an item together."""
    collaborative = has_collaborative = None
    if model.config.alignment.collaborative and model.item_tower.id_embedding is not None:
        collaborative = model.item_tower.id_embedding(item)
        has_collaborative = tf.gather(model.tables["warm"], item)
    return model.item_tower.alignment.loss(
        tf.gather(output.modalities, rows["item"]),
        tf.gather(output.present, rows["item"]),
        item=item,
        collaborative=collaborative,
        has_collaborative=has_collaborative,
    )
