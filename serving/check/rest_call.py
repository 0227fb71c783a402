"""One prediction over TensorFlow Serving's REST interface, for `serving.check`."""

import base64
import http.client
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec_tf.errors import ServingError
from mmrec_tf.exporting.request_examples import Example

_BINARY_SUFFIX = "_bytes"


def predict(
    address: str, path: str, request: Example, *, row: bool, timeout_seconds: float
) -> dict[str, NDArray[Any]]:
    """Asks for an example's prediction.

    Args:
      address: `host:port`.
      path: `/v1/models/<model>[/versions/<n>]:predict`.
      request: the example; its outputs tell the dtypes, which JSON does not.
      row: `{"instances": [...]}` instead of `{"inputs": ...}`.
      timeout_seconds: for the whole call.

    Returns:
      The outputs by name; strings as object arrays of bytes.

    Raises:
      ServingError: when no server answers, or it answers with an error or anything unreadable.
    """
    inputs = {name: _to_json(array) for name, array in request.inputs.items()}
    document: dict[str, Any] = {"signature_name": request.signature, "inputs": inputs}
    if row:
        num_rows = min(map(len, request.inputs.values()))
        del document["inputs"]
        document["instances"] = [
            {name: values[place] for name, values in inputs.items()} for place in range(num_rows)
        ]
    answer = _post(address, path, json.dumps(document), timeout_seconds)
    try:
        found = answer["predictions" if row else "outputs"]
        if len(request.outputs) == 1:
            (name,) = request.outputs
            columns = {name: found}
        elif row:
            columns = {name: [one[name] for one in found] for name in found[0]}
        else:
            columns = found
        return {
            name: _from_json(name, values, request.outputs[name].dtype)
            if name in request.outputs
            else np.asarray(values)
            for name, values in columns.items()
        }
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ServingError(f"{address}{path} answered in an unknown form: {error!r}.") from error


def _post(address: str, path: str, body: str, timeout_seconds: float) -> dict[str, Any]:
    connection = http.client.HTTPConnection(address, timeout=timeout_seconds)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read().decode("utf-8", "surrogateescape")
    except (OSError, http.client.HTTPException) as error:
        raise ServingError(
            f"no REST answer from {address}: {error!r}. Check --rest-address, and that the server "
            "was started with a REST port."
        ) from error
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise ServingError(f"{address}{path} answered {response.status}: {text[:300]}")
    try:
        answer: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise ServingError(f"{address}{path} answered with no JSON: {error}.") from error
    return answer


def _to_json(array: NDArray[Any]) -> Any:
    if array.dtype != object:
        return array.tolist()
    # A string may hold any bytes, such as a picture's; base64 carries them all.
    packed = np.empty(array.shape, dtype=object)
    for place, value in np.ndenumerate(array):
        packed[place] = {"b64": base64.b64encode(value).decode("ascii")}
    return packed.tolist()


def _from_json(name: str, values: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "b":
        # NumPy converts anything to a boolean; texts and numbers are refused here.
        found = np.array(values)
        if found.size and found.dtype != dtype:
            raise ValueError(f"{name}: wanted true and false; got {found.dtype}")
        return found.astype(dtype)
    if dtype.kind != "O":
        return np.array(values, dtype=dtype)
    strings = np.array(values, dtype=object)
    for place, value in np.ndenumerate(strings):
        if name.endswith(_BINARY_SUFFIX):
            strings[place] = base64.b64decode(value["b64"])
        else:
            strings[place] = value.encode("utf-8", "surrogateescape")
    return strings
