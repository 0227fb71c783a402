"""Who may ask: keys as bearer tokens, each with a scope."""

import hashlib
import hmac
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from mmrec_tf.errors import ConfigError
from serving.gateway.refusals import Refusal

SCOPES = ("server", "browser")


class _Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    scope: str
    sha256: str


class _Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[_Key]


class Key(NamedTuple):
    """A key: its name, and "server", which may do anything, or "browser", which may recommend,
    search, read items and send events."""

    name: str
    scope: str


class Keys:
    """The keys of a gateway, known by the hashes of their tokens."""

    def __init__(self, keys: Mapping[str, Key] | None):
        """Describes them.

        Args:
          keys: by SHA-256 of the token, in hexadecimal; None lets everyone do everything.
        """
        self._keys = keys

    @property
    def open(self) -> bool:
        """Whether no key is asked for."""
        return self._keys is None

    def check(self, header: str | None, *, browser: bool) -> str:
        """The name of the key of a request.

        Args:
          header: `Authorization` as it came.
          browser: whether keys of the scope "browser" may do this.

        Raises:
          Refusal: 401 without a key that is known, 403 with one that may not.
        """
        if self._keys is None:
            return ""
        kind, _, token = (header or "").partition(" ")
        digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for known, key in self._keys.items():
            if hmac.compare_digest(known, digest):
                found = key
        if kind.lower() != "bearer" or found is None:
            raise Refusal(401, "unauthorized", "wanted a known key as Authorization: Bearer TOKEN.")
        if found.scope != "server" and not browser:
            raise Refusal(
                403, "forbidden", f"the key {found.name} is for browsers, which may not do this."
            )
        return found.name


def read_keys(path: str | os.PathLike[str]) -> Keys:
    """Keys of a file: `{"keys": [{"name": "shop", "scope": "server", "sha256": "..."}]}`.

    Raises:
      ConfigError: when it cannot be read or used.
    """
    try:
        found = msgspec.json.decode(pathlib.Path(path).read_bytes(), type=_Keys).keys
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f'{path}: wanted {{"keys": [{{"name": ..., "scope": ..., "sha256": ...}}]}}; {error}.'
        ) from error
    for key in found:
        digits = set(key.sha256.lower()) <= set("0123456789abcdef")
        if key.scope not in SCOPES or len(key.sha256) != 64 or not digits or not key.name:
            raise ConfigError(
                f"{path}: key {key.name!r}: wanted a name, a scope of {', '.join(SCOPES)} and the "
                "SHA-256 of its token in hexadecimal, as of: printf %s TOKEN | sha256sum"
            )
    if len({key.sha256.lower() for key in found}) < len(found) or not found:
        raise ConfigError(f"{path}: wanted at least one key, and no token twice.")
    return Keys({key.sha256.lower(): Key(key.name, key.scope) for key in found})
