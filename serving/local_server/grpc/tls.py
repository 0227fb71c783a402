"""TLS for the local server's gRPC port, by the file that `--ssl-config-file` names."""

import os
from concurrent import futures

import grpc

from mmrec_tf.errors import ConfigError
from serving.local_server import config_files


def read_credentials(ssl_config: str | os.PathLike[str]) -> grpc.ServerCredentials:
    """Reads an SSLConfig, which holds the contents of PEM files, not their names.

    Raises:
      ConfigError: when the file is no SSLConfig, or lacks what its other keys need.
    """
    config = config_files.read(ssl_config, "SSLConfig")
    for key in ("server_key", "server_cert"):
        if not getattr(config, key).strip():
            raise ConfigError(
                f"{ssl_config}: wanted the contents of a PEM file in {key}; got none."
            )
    if config.client_verify and not config.custom_ca.strip():
        raise ConfigError(
            f"{ssl_config}: client_verify wants custom_ca, the certificates of who signs those of "
            "clients; got none."
        )
    credentials = grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )
    # gRPC checks them only when it opens a port, and then does not say what is wrong.
    probe = grpc.server(futures.ThreadPoolExecutor(1))
    try:
        probe.add_secure_port("127.0.0.1:0", credentials)
    except RuntimeError as error:
        raise ConfigError(
            f"{ssl_config}: wanted the contents of PEM files in server_key, server_cert and "
            "custom_ca; gRPC cannot use what came."
        ) from error
    finally:
        probe.stop(None)
    return credentials
