"""What the manifest says of where a dataset comes from."""

import dataclasses
from typing import Any

from data.tables.table import Table


def settings(options: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults, as JSON can hold them."""
    found = {}
    for item in dataclasses.fields(options):
        value, default = getattr(options, item.name), item.default
        if item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        if value == default:
            continue
        if isinstance(value, Table):
            value = str(value.path)
        found[item.name] = settings(value) if dataclasses.is_dataclass(value) else value
    return found
