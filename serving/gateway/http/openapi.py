"""The OpenAPI page, made of the endpoints and their messages."""

import re
from collections.abc import Sequence
from typing import Any

from mmrec_tf import __version__
from serving.gateway.http.endpoint import Endpoint
from serving.gateway.messages import ErrorOut, json_schemas


def openapi(endpoints: Sequence[Endpoint], *, secured: bool) -> dict[str, Any]:
    """The page as plain dictionaries.

    Args:
      endpoints: all of them.
      secured: whether keys are asked for.
    """
    kinds = [one for end in endpoints for one in (end.takes, end.gives) if one is not None]
    kinds = [*dict.fromkeys([*kinds, ErrorOut])]
    found, components = json_schemas(kinds)
    schemas = dict(zip(kinds, found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for end in endpoints:
        operation = _operation(end, end.route, schemas, secured)
        paths.setdefault(end.route, {})[end.method.lower()] = operation
    page: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "mmrec_tf gateway", "version": __version__},
        "paths": paths,
        "components": {"schemas": components},
    }
    if secured:
        page["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return page


def _operation(end: Endpoint, path: str, schemas: dict[Any, Any], secured: bool) -> dict[str, Any]:
    given = {} if end.gives is None else {"application/json": {"schema": schemas[end.gives]}}
    wrong = {"application/json": {"schema": schemas[ErrorOut]}}
    operation: dict[str, Any] = {
        "summary": end.summary,
        "operationId": end.handler.__name__,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in re.findall(r"{(\w+)}", path)
            ),
            *(
                {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
                for name, text in end.query
            ),
        ],
        "responses": {
            str(end.status): {"description": "Done.", "content": given},
            "4XX": {"description": "Refused; `field` is at fault.", "content": wrong},
            "503": {"description": "Not now; see Retry-After.", "content": wrong},
        },
    }
    if end.takes is not None:
        content = {"application/json": {"schema": schemas[end.takes]}}
        operation["requestBody"] = {"required": True, "content": content}
    if end.form:
        fields = {
            name: {"type": "string", "description": text}
            | ({"format": "binary"} if name in ("image", "audio") else {})
            for name, text in end.form
        }
        content = {"multipart/form-data": {"schema": {"type": "object", "properties": fields}}}
        operation["requestBody"] = {"required": True, "content": content}
    if secured and end.browser is not None:
        operation["security"] = [{"key": []}]
    return operation
