"""The dataset directory on disk: TFRecord shards, their manifest, and nothing of their meaning.

`DatasetWriter` writes a whole directory aside and renames it into place; the `read_*` functions
read one back and say which file and which record is at fault when they cannot. The format is
described in `docs/dataset_format.md`.
"""

from mmrec_tf.records.columns import Columns, read_item_columns, read_user_columns
from mmrec_tf.records.interactions import Interactions, read_interactions
from mmrec_tf.records.items import PreparedItem, Quarantined
from mmrec_tf.records.manifest import FORMAT, read_manifest, read_schema, sha256, verify
from mmrec_tf.records.reader import Item, User, read_items, read_users
from mmrec_tf.records.triples import Triples, read_triples
from mmrec_tf.records.writer import DatasetWriter, versions

__all__ = [
    "FORMAT",
    "Columns",
    "DatasetWriter",
    "Interactions",
    "Item",
    "PreparedItem",
    "Quarantined",
    "Triples",
    "User",
    "read_interactions",
    "read_item_columns",
    "read_items",
    "read_manifest",
    "read_schema",
    "read_triples",
    "read_user_columns",
    "read_users",
    "sha256",
    "verify",
    "versions",
]
