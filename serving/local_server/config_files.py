"""Reads the text files that TensorFlow Serving's flags name, with its keys.

Of their messages only ModelServerConfig comes with tensorflow-serving-api. The others are declared
here, with the keys that the local server knows; a text file names keys, so their numbers are free.
"""

import os
import pathlib
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from mmrec_tf.errors import ConfigError

_PACKAGE = "mmrec_tf.serving"
_DECLARED = {
    "BatchingParameters": {
        "max_batch_size": "google.protobuf.Int64Value",
        "batch_timeout_micros": "google.protobuf.Int64Value",
        "max_enqueued_batches": "google.protobuf.Int64Value",
        "num_batch_threads": "google.protobuf.Int64Value",
        "thread_pool_name": "google.protobuf.StringValue",
        "allowed_batch_sizes": "repeated int64",
        "pad_variable_length_inputs": "bool",
        "enable_large_batch_splitting": "google.protobuf.BoolValue",
        "max_execution_batch_size": "google.protobuf.Int64Value",
    },
    "PrometheusConfig": {"enable": "bool", "path": "string"},
    "MonitoringConfig": {"prometheus_config": f"{_PACKAGE}.PrometheusConfig"},
    "SSLConfig": {
        "server_key": "string",
        "server_cert": "string",
        "custom_ca": "string",
        "client_verify": "bool",
    },
}
_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _FIELD.TYPE_BOOL,
    "int64": _FIELD.TYPE_INT64,
    "string": _FIELD.TYPE_STRING,
}


def _declare() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="serving/config_files.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for message, fields in _DECLARED.items():
        declared = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields.items(), start=1):
            field = declared.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL)
            if kind.startswith("repeated "):
                field.label = _FIELD.LABEL_REPEATED
                kind = kind.removeprefix("repeated ")
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{kind}"
    # A pool of its own, because the default pool is shared.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _DECLARED
    }


_MESSAGES = {"ModelServerConfig": model_server_config_pb2.ModelServerConfig, **_declare()}


def read(path: str | os.PathLike[str], message: str) -> Any:
    """Reads a file in protobuf's text form.

    Args:
      path: the file.
      message: ModelServerConfig, BatchingParameters, MonitoringConfig or SSLConfig.

    Raises:
      ConfigError: when it cannot be read, or holds something else.
    """
    try:
        return text_format.Parse(pathlib.Path(path).read_text("utf-8"), _MESSAGES[message]())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}.") from error
    except text_format.ParseError as error:
        # The error quotes the file, which may hold a key.
        quoted = "" if message == "SSLConfig" else f": {error}"
        where = f"line {error.GetLine()}, column {error.GetColumn()}"
        raise ConfigError(
            f"{path}: wanted a {message} in text form; not so in {where}{quoted}"
        ) from (error if quoted else None)
