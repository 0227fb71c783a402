"""Asking an export for answers, and answering from it; nothing here writes an export.

client        a typed gRPC client for TensorFlow Serving, and a command
gateway       the live layer: takes events, remembers users, shows new items, over HTTP
check         replays an export's examples against a running server
load_test     sends requests at a chosen rate and reports latencies
local_server  TensorFlow Serving's answers from Python, for demos and tests
deploy        files for stock TensorFlow Serving: docker compose, Kubernetes, monitoring
tensors       TensorProto <-> NumPy
"""

from mmrec_tf.errors import answer_interrupts

answer_interrupts("serving")
