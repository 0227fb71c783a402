"""Vectors of items -> the top k for a query, in TensorFlow's core ops.

index, facts = build_index(vectors, queries, k=100)
scores, items = index.search(queries, 100)

`exact` compares with every item, `ivf` with those of a few lists, which `clustering` makes and
`codes` fills; `alike` tells which items have the same vector, and `build` measures what is found.
`scann` is for programs that bring its library.
"""

from mmrec_tf.retrieval.index.build import build_index, recall
from mmrec_tf.retrieval.index.exact import Added, ExactIndex, best_of, gather_rows
from mmrec_tf.retrieval.index.ivf import IvfIndex
from mmrec_tf.retrieval.index.scann import ScannIndex

__all__ = [
    "Added",
    "ExactIndex",
    "IvfIndex",
    "ScannIndex",
    "best_of",
    "build_index",
    "gather_rows",
    "recall",
]
