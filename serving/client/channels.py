"""Ways to a server: in the clear or over TLS, compressed or not."""

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
    """Files in PEM form for a server that takes calls over TLS only.

    Attributes:
      ca: certificates of who signed the server's; None for those that gRPC brings.
      certificate: one's own, with all that lead to its root, for a server that asks for it.
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
      asynchronous: for `grpc.aio`, whose channel belongs to the event loop that runs now.
      tls: None for a connection in the clear.
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
        # Models are served inside one's own network; a proxy for the web is in the way there.
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
    # gRPC itself takes any bytes and fails later, at the first call, without a word about why.
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
