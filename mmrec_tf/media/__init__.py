"""Media as people have them -> the bytes that graphs read: what a dataset directory holds.

Each of `text`, `image`, `audio` and `video` has `prepare(raw) -> raw`, run on the host, once, when
a dataset is made. Nothing here imports TensorFlow: preparation runs in many processes, and
TensorFlow takes seconds and hundreds of megabytes in each. What happens in the graph stands in
`mmrec_tf.encoders`.
"""
