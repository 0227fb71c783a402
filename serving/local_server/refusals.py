"""The error that ends a request or a load: a gRPC code and TensorFlow Serving's text."""

import grpc


class Refusal(Exception):
    """A request, or a load, that ends with a status instead of an answer."""

    def __init__(self, code: grpc.StatusCode, text: str):
        super().__init__(text)
        self.code = code
        self.text = text
