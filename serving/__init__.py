"""Asking an export for answers, and answering from it; nothing here writes an export.

client        a typed gRPC client for TensorFlow Serving, and a command
check         replays an export's examples against a running server
local_server  TensorFlow Serving's answers from Python, for demos and tests
rpc, rest     its gRPC services and its HTTP routes
tensors       TensorProto <-> NumPy
json_tensors  JSON <-> NumPy, as the REST interface has it
servables     one loaded version: signatures, warm-up, predict
versions      the versions on disk; which are loaded, swapped and dropped
"""
