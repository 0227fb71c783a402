"""Asking a server over gRPC and HTTP, and publishing versions for it to find."""

import http.client
import json
import os
import pathlib
import shutil
import time

import grpc
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
)

CODE = grpc.StatusCode
WAIT_SECONDS = 20
LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def publish(source: pathlib.Path, model: pathlib.Path, version: int) -> pathlib.Path:
    model.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, model / f".{version}")
    os.rename(model / f".{version}", model / str(version))
    return model / str(version)


def request(model="table", signature="", version=None, label=None, outputs=(), **inputs):
    made = predict_pb2.PredictRequest(output_filter=outputs)
    if model is not None:
        made.model_spec.name = model
        made.model_spec.signature_name = signature
    if version is not None:
        made.model_spec.version.value = version
    if label is not None:
        made.model_spec.version_label = label
    for name, value in inputs.items():
        is_proto = isinstance(value, tensor_pb2.TensorProto)
        made.inputs[name].CopyFrom(value if is_proto else tf.make_tensor_proto(value))
    return made


def refusal(call, made):
    with pytest.raises(grpc.RpcError) as raised:
        call(made, timeout=WAIT_SECONDS)
    return raised.value.code(), raised.value.details()


def status_request(model="table", version=None):
    made = get_model_status_pb2.GetModelStatusRequest()
    if model is not None:
        made.model_spec.name = model
    if version is not None:
        made.model_spec.version.value = version
    return made


def statuses(address, model="table"):
    with grpc.insecure_channel(address) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        answer = stub.GetModelStatus(status_request(model), timeout=WAIT_SECONDS)
    return [
        (one.version, one.state, one.status.error_code, one.status.error_message)
        for one in answer.model_version_status
    ]


def ask(server, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection(server.rest_address, timeout=WAIT_SECONDS)
    try:
        if isinstance(body, dict):
            body = json.dumps(body)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def wait_for(fact):
    end = time.monotonic() + WAIT_SECONDS
    while not fact():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
