"""How a server is reached, on the command lines of this folder."""

import argparse
from typing import Any

from serving.client.channels import COMPRESSIONS, Tls


def connection_options(
    *, address: str | None, timeout_seconds: float, needed: str = ""
) -> argparse.ArgumentParser:
    """A parent of parsers that adds what `connection` reads.

    Args:
      address: the default.
      timeout_seconds: the default.
      needed: what happens without one, if `address` is None.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--address",
        default=address,
        help=f"host:port of the server's gRPC ({'%(default)s' if address else needed})",
    )
    parser.add_argument(
        "--timeout-seconds", type=float, default=timeout_seconds, help="for one call (%(default)s)"
    )
    tls = parser.add_argument_group("TLS", "for a server that takes calls over TLS only; PEM files")
    tls.add_argument("--tls-ca", metavar="FILE", help="who signed the server's certificate")
    tls.add_argument(
        "--tls-certificate", metavar="FILE", help="one's own, where the server asks for it"
    )
    tls.add_argument("--tls-key", metavar="FILE", help="the key of --tls-certificate")
    parser.add_argument(
        "--compression",
        choices=[name for name in COMPRESSIONS if name],
        help="of what is sent (none)",
    )
    return parser


def connection(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of a `Client`, without its address."""
    files = (options.tls_ca, options.tls_certificate, options.tls_key)
    return {
        "timeout_seconds": options.timeout_seconds,
        "tls": Tls(*files) if any(file is not None for file in files) else None,
        "compression": options.compression,
    }
