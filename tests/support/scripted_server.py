"""A server that answers Predict as told, for the tests of the clients."""

import time
from concurrent import futures

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

CODE = grpc.StatusCode


class Script:
    """A server that answers Predict as told, one step a call, and keeps the requests."""

    def __init__(self, *steps, credentials=None):
        self.steps = list(steps)
        self.requests = []
        self.peers = []
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        handlers = {
            "Predict": grpc.unary_unary_rpc_method_handler(
                self._predict,
                request_deserializer=predict_pb2.PredictRequest.FromString,
                response_serializer=predict_pb2.PredictResponse.SerializeToString,
            )
        }
        service = "tensorflow.serving.PredictionService"
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, handlers),)
        )
        if credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{port}"

    def _predict(self, request, context):
        self.requests.append(request)
        self.peers.append(context.auth_context().get("x509_common_name"))
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, tuple):
            context.abort(*step)
        if isinstance(step, float):
            time.sleep(step)
        return step if isinstance(step, predict_pb2.PredictResponse) else answer()

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(None)


def answer(packed=False):
    made = predict_pb2.PredictResponse()
    made.outputs["item_id"].CopyFrom(tf.make_tensor_proto([["i1", "grün", ""]]))
    made.outputs["score"].CopyFrom(tf.make_tensor_proto([[0.5, 0.25, 0.0]]))
    made.outputs["probability"].CopyFrom(tf.make_tensor_proto([[0.75, 0.5, 0.0]]))
    for name in ("modality", "history_item"):
        made.outputs[name].CopyFrom(tf.make_tensor_proto([["text", "grün", ""]]))
    if packed:
        ids, score = made.outputs["item_id"], made.outputs["score"]
        # TensorFlow's packed strings: the lengths as varints, then the bytes.
        ids.tensor_content = b"\x02\x05\x00" + "i1grün".encode()
        del ids.string_val[:]
        score.tensor_content = np.array([0.5, 0.25, 0.0], "<f4").tobytes()
        del score.float_val[:]
    return made


BUSY = (CODE.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
AWAY = (CODE.UNAVAILABLE, "The batch scheduling queue is full")
