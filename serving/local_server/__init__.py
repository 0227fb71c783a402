"""TensorFlow Serving's gRPC and REST answers from an export, in Python.

    python -m serving.local_server EXPORT --port 8500 --rest-port 8501

For demos and tests without TensorFlow Serving. It answers
PredictionService Predict and GetModelMetadata, ModelService GetModelStatus and
HandleReloadConfigRequest, and the REST routes predict, status and metadata, with TensorFlow
Serving's codes and texts; all else is UNIMPLEMENTED. Models, labels, batching, metrics, health and
TLS are switched on by its flags, written with dashes, and by its files. Production is stock
TensorFlow Serving on the same directory.
"""

import functools
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from mmrec_tf.errors import ConfigError, ServingError

if TYPE_CHECKING:
    from serving.local_server.batching.batcher import Batcher
    from serving.local_server.grpc.services import RpcServer
    from serving.local_server.metrics import Metrics
    from serving.local_server.models.models import Models
    from serving.local_server.rest.server import RestServer

Path = str | os.PathLike[str]


class LocalServer:
    """Serves every model below an export directory; newest versions, swapped as they appear.

    Example:

        with LocalServer("work/export") as server:
            with Client(server.address) as client:
                print(client.recommend(["u42"], k=10))
    """

    def __init__(
        self,
        export: Path | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rest_port: int | None = 0,
        poll_seconds: float = 1.0,
        model_config_file: Path | None = None,
        model_config_file_poll_wait_seconds: float = 0.0,
        allow_version_labels_for_unavailable_models: bool = False,
        enable_batching: bool = False,
        batching_parameters_file: Path | None = None,
        monitoring_config_file: Path | None = None,
        ssl_config_file: Path | None = None,
        enable_grpc_healthcheck_service: bool = False,
        grpc_max_threads: int = 16,
        allow_other_ops: bool = False,
    ):
        """Describes a server; `start`, or a `with` block, loads the models and opens the ports.

        Args:
          export: the directory that holds `<model>/<number>/`; each model is served in its highest
            version. None if `model_config_file` says what is served.
          host: the address to listen on.
          port: for gRPC; 0 for any free one.
          rest_port: for REST; 0 for any free one, None for no REST.
          poll_seconds: how often to look for new versions; 0 for never.
          model_config_file: models, their folders, policies and labels (`models.config`).
          model_config_file_poll_wait_seconds: how often that file is read again; 0 for never.
          allow_version_labels_for_unavailable_models: whether a new label may name a version that
            is not loaded yet; at the start none is.
          enable_batching: whether requests that arrive together run together.
          batching_parameters_file: how (`batching.config`).
          monitoring_config_file: the path of the metrics on the REST port (`monitoring.config`).
          ssl_config_file: the contents of PEM files for TLS, of gRPC only.
          enable_grpc_healthcheck_service: whether grpc.health.v1.Health is answered.
          grpc_max_threads: how many gRPC calls are answered at once; more of them wait.
          allow_other_ops: whether models may hold ops that no export has, which may read and write
            files: only for models that you trust like a program.

        Raises:
          ConfigError: for arguments that do not go together.
        """
        if (export is None) == (model_config_file is None):
            raise ConfigError(
                "wanted either an export directory or a --model-config-file; got "
                f"{'none' if export is None else 'both'} of them."
            )
        if batching_parameters_file is not None and not enable_batching:
            raise ConfigError("--batching-parameters-file needs --enable-batching.")
        if grpc_max_threads < 1:
            raise ConfigError(f"--grpc-max-threads: wanted 1 or more; got {grpc_max_threads}.")
        self._export = export
        self._host = host
        self._port = port
        self._rest_port = rest_port
        self._poll_seconds = poll_seconds
        self._model_config_file = model_config_file
        self._model_config_seconds = model_config_file_poll_wait_seconds
        self._labels_may_wait = allow_version_labels_for_unavailable_models
        self._enable_batching = enable_batching
        self._batching_parameters_file = batching_parameters_file
        self._monitoring_config_file = monitoring_config_file
        self._ssl_config_file = ssl_config_file
        self._has_health = enable_grpc_healthcheck_service
        self._max_threads = grpc_max_threads
        self._allow_other_ops = allow_other_ops
        self._models: Models | None = None
        self._batcher: Batcher | None = None
        self._rpc: RpcServer | None = None
        self._rest: RestServer | None = None
        self._pollers: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._stopped = threading.Event()

    @property
    def address(self) -> str:
        """Where gRPC answers: `127.0.0.1:8500`."""
        return f"{_bracketed(self._host)}:{self._port}"

    @property
    def rest_port(self) -> int | None:
        """Where REST answers; None where it does not."""
        return self._rest_port

    @property
    def rest_address(self) -> str:
        """Where REST answers: `127.0.0.1:8501`."""
        return f"{_bracketed(self._host)}:{self._rest_port}"

    @property
    def models(self) -> list[str]:
        """What is served now: `["encoder/1", "recommender/1"]`."""
        return self._models.names() if self._models else []

    def start(self) -> "LocalServer":
        """Loads and warms up every model, then opens the ports; an open port is a ready server.

        Raises:
          ConfigError: when a file of settings cannot be used.
          ServingError: when there is nothing to serve, a model does not load, or a port is taken.
        """
        # Imported here because loading TensorFlow would delay --help.
        from serving.local_server import metrics
        from serving.local_server.batching import batcher as batching
        from serving.local_server.batching import parameters as batching_parameters
        from serving.local_server.grpc import tls
        from serving.local_server.grpc.services import RpcServer
        from serving.local_server.limits import Budget
        from serving.local_server.rest.routes import Site
        from serving.local_server.rest.server import RestServer

        if self._models is not None:
            raise ServingError("this server was started before; make another one.")
        counts, metrics_path, credentials = metrics.Metrics(), None, None
        if self._monitoring_config_file is not None:
            metrics_path = metrics.read_path(self._monitoring_config_file)
        if self._ssl_config_file is not None:
            credentials = tls.read_credentials(self._ssl_config_file)
        if self._enable_batching:
            parameters = batching_parameters.BatchingParameters()
            if self._batching_parameters_file is not None:
                parameters = batching_parameters.read(self._batching_parameters_file)
            self._batcher = batching.Batcher(parameters, counts)
        try:
            self._models = self._load(counts)
            budget = Budget()
            self._rpc = RpcServer(
                self._models,
                counts,
                self.address,
                max_threads=self._max_threads,
                credentials=credentials,
                has_health=self._has_health,
                budget=budget,
            )
            self._port = self._rpc.port
            if self._rest_port is not None:
                site = Site(self._models, counts, metrics_path)
                self._rest = RestServer(site, self._host, self._rest_port, budget=budget)
                self._rest_port = self._rest.port
        except BaseException:
            self.stop(grace_seconds=0.0)
            raise
        if self._rest is not None:
            self._rest.start()
        self._rpc.start()
        self._repeat(self._poll_seconds, self._models.poll)
        if self._model_config_file is not None:
            reload = functools.partial(self._models.reload_file, self._model_config_file)
            self._repeat(self._model_config_seconds, reload)
        return self

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Blocks until `stop` has ended the server, or for `timeout_seconds`.

        Returns:
          Whether it has ended.
        """
        return self._stopped.wait(timeout_seconds)

    def stop(self, *, grace_seconds: float = 5.0) -> None:
        """Takes no more requests, waits up to `grace_seconds` for those begun, closes the ports."""
        self._stopping.set()
        end = time.monotonic() + grace_seconds
        if self._rest is not None:
            self._rest.refuse()
        if self._rpc is not None:
            self._rpc.stop(grace_seconds)
        if self._rest is not None:
            self._rest.stop(max(0.0, end - time.monotonic()))
        for poller in self._pollers:
            # A version that is just being loaded may take long; its thread dies with the process.
            poller.join(max(0.0, end - time.monotonic()))
        if self._batcher is not None:
            self._batcher.close(max(0.0, end - time.monotonic()))
        self._stopped.set()

    def __enter__(self) -> "LocalServer":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _load(self, counts: "Metrics") -> "Models":
        from serving.local_server.models import models_config
        from serving.local_server.models.models import Models
        from serving.local_server.models.servable import Servable
        from serving.local_server.refusals import Refusal

        if self._model_config_file is None:
            settings = models_config.folders_of(str(self._export))
        else:
            try:
                settings = models_config.settings_of(models_config.read(self._model_config_file))
            except Refusal as refusal:
                raise ConfigError(f"{self._model_config_file}: {refusal.text}.") from refusal
            if not settings:
                raise ConfigError(f"{self._model_config_file}: wanted a model; found none.")
        models = Models(
            settings,
            functools.partial(
                Servable,
                metrics=counts,
                batcher=self._batcher,
                allow_other_ops=self._allow_other_ops,
            ),
            labels_may_wait=self._labels_may_wait,
        )
        models.load()
        return models

    def _repeat(self, seconds: float, act: Callable[[], None]) -> None:
        def run() -> None:
            while not self._stopping.wait(seconds):
                act()

        if seconds > 0:
            self._pollers.append(threading.Thread(target=run, daemon=True))
            self._pollers[-1].start()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
