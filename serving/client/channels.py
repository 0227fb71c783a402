"""Channels to a server: with or without TLS and compression."""

import asyncio
import os
import pathlib
import ssl
from typing import Any, NamedTuple

import grpc

from mmrec_tf.errors import ConfigError

COMPRESSIONS = {
    None: grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}


class Tls(NamedTuple):
    """PEM files for a server that requires TLS.

    Attributes:
      ca: certificates of the authority that signed the server's; None for gRPC's own.
      certificate: the client's own, with its chain, for a server that asks for one.
      key: of that certificate, not encrypted.
    """

    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None


def open_channel(
    address: str,
    *,
    asynchronous: bool = False,
    tls: Tls | None = None,
    compression: str | None = None,
    max_message_bytes: int | None = None,
) -> Any:
    """Opens a channel; nothing is sent before the first call.

    Args:
      address: `host:port`.
      asynchronous: for `grpc.aio`, whose channel belongs to the running event loop.
      tls: None for an unencrypted connection.
      compression: of what is sent, "gzip" or "deflate"; None for none.
      max_message_bytes: of one message, sent or received; None for no limit.

    Raises:
      ConfigError: for an argument or a file that cannot be used, or without an event loop.
    """
    if compression not in COMPRESSIONS:
        raise ConfigError(f"compression: wanted gzip, deflate or None; got {compression!r}.")
    if max_message_bytes is not None and max_message_bytes < 1:
        raise ConfigError(f"max_message_bytes: wanted 1 or more; got {max_message_bytes}.")
    most = -1 if max_message_bytes is None else max_message_bytes
    options = [
        # gRPC's own limit for what a client receives is 4 MB.
        ("grpc.max_receive_message_length", most),
        ("grpc.max_send_message_length", most),
        # A server that restarts should be found again by the next retry, not after gRPC's two
        # minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # Models are served inside a private network, where a web proxy is in the way.
        ("grpc.enable_http_proxy", 0),
    ]
    library = _aio() if asynchronous else grpc
    kind = COMPRESSIONS[compression]
    if tls is None:
        return library.insecure_channel(address, options=options, compression=kind)
    return library.secure_channel(address, _credentials(tls), options=options, compression=kind)


def _aio() -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigError(
            "wanted to be made in a coroutine, as the channel belongs to the event loop; there is "
            "none. Outside of one, use Client."
        ) from None
    return grpc.aio


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    if (tls.certificate is None) != (tls.key is None):
        lacking = "certificate" if tls.certificate is None else "key"
        raise ConfigError(
            f"tls: wanted a certificate and its key, or neither; the {lacking} is missing."
        )
    files = {
        name: None if path is None else _read(name, path) for name, path in tls._asdict().items()
    }
    # gRPC itself accepts any bytes, and fails at the first call without saying why.
    context = ssl.create_default_context()
    try:
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
    except OSError as error:
        raise ConfigError(f"tls: {tls.ca} holds no certificates in PEM form: {error}.") from error
    try:
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key, password="")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"tls: wanted a certificate and its key in PEM form, not encrypted, in "
            f"{tls.certificate} and {tls.key}: {error}."
        ) from error
    return grpc.ssl_channel_credentials(
        root_certificates=files["ca"],
        private_key=files["key"],
        certificate_chain=files["certificate"],
    )


def _read(name: str, path: str | os.PathLike[str]) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"tls: {name} {path} cannot be read: {error.strerror}.") from error
