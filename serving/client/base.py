"""What `Client` and `AsyncClient` share: their settings."""

from typing import Any

from mmrec_tf.errors import ConfigError
from serving.client.channels import Tls, open_channel


class BaseClient:
    """The settings of a client, its channel, and the calls that it can make."""

    _asynchronous = False

    def __init__(
        self,
        address: str,
        *,
        timeout_seconds: float = 5.0,
        retries: int = 5,
        recommender: str = "recommender",
        encoder: str = "encoder",
        version: int | None = None,
        label: str | None = None,
        tls: Tls | None = None,
        compression: str | None = None,
        max_message_bytes: int | None = None,
    ):
        """Opens a channel; nothing is sent before the first call.

        Args:
          address: `host:port` of the server's gRPC.
          timeout_seconds: for one call with all its retries.
          retries: how often a call is retried at most.
          recommender: the name under which the recommender is served.
          encoder: the name under which the encoder is served.
          version: which version of every model to ask; None for the newest available one.
          label: the same by a label of the server's `models.config`.
          tls: files for a server that requires TLS; None for an unencrypted connection.
          compression: of requests, "gzip" or "deflate"; None for none.
          max_message_bytes: of one request or answer; None for no limit.

        Raises:
          ConfigError: for an argument, or a file of `tls`, that cannot be used.
        """
        if not timeout_seconds > 0:
            raise ConfigError(f"timeout_seconds: wanted more than 0; got {timeout_seconds}.")
        if retries < 0:
            raise ConfigError(f"retries: wanted 0 or more; got {retries}.")
        # Imported here because TensorFlow's protocol buffers would delay --help.
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        from serving.client.calls import Calls
        from serving.client.methods import Questions

        self._questions = Questions(
            Calls(address, timeout_seconds=timeout_seconds, retries=retries),
            recommender=recommender,
            encoder=encoder,
            version=version,
            label=label,
        )
        self._channel = open_channel(
            address,
            asynchronous=self._asynchronous,
            tls=tls,
            compression=compression,
            max_message_bytes=max_message_bytes,
        )
        prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        model = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._methods: dict[str, Any] = {
            "Predict": prediction.Predict,
            "GetModelMetadata": prediction.GetModelMetadata,
            "GetModelStatus": model.GetModelStatus,
        }
