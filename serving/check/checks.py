"""Checks a served export from the outside.

    python -m serving.check EXPORT --address localhost:8500 --rest-address localhost:8501
    python -m serving.check EXPORT                      # starts serving.local_server itself

Replays the examples stored in each servable's newest version and compares the answers. Then checks
what TensorFlow Serving, its batching and its REST interface need of a model: a default signature, a
free first dimension everywhere, rows that do not depend on each other, any number of rows, finite
numbers of types that have a JSON form, warm-up records, and no custom ops.
"""

import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmrec_tf.errors import ExportError, MmrecError
from mmrec_tf.exporting.allowed_ops import other_ops, read_ops
from mmrec_tf.exporting.checksums import CHECKSUMS_FILE, compare_checksums
from mmrec_tf.exporting.request_examples import (
    Example,
    Examples,
    compare,
    examples_path,
    read_examples,
)
from serving.check.batches import DEFAULT, Tensors, for_default, pools, stacked
from serving.check.exported import newest_versions
from serving.client import Client

if TYPE_CHECKING:
    from serving.client.calls import Signature

_BATCHES = (5, 32)
_REST_DTYPES = (
    "string bool float32 float64 int8 int16 int32 int64 uint8 uint32 uint64"  # No half, no uint16.
).split()


class Check(NamedTuple):
    """The result of one check; `problem` is empty if it passed."""

    name: str
    problem: str


def check(
    export: str | os.PathLike[str],
    address: str,
    *,
    rest_address: str | None = None,
    timeout_seconds: float = 30.0,
    empty: bool = False,
    **settings: Any,
) -> Iterator[Check]:
    """Checks every servable of an export against a server that serves it.

    Args:
      export: the directory that holds `<model>/<number>/`.
      address: `host:port` of the server's gRPC.
      rest_address: `host:port` of its REST; None to leave REST out.
      timeout_seconds: for one call.
      empty: whether batches of 0 are sent, too. A server that batches never answers one, and keeps
        a thread with it until the deadline.
      **settings: of `Client`, such as `tls`.

    Yields:
      One Check after the other.

    Raises:
      ServingError: when there is no export, or no server.
    """
    with Client(address, timeout_seconds=timeout_seconds, **settings) as client:
        for name, (version, path) in newest_versions(export).items():
            model = _Model(client, name, version, path, rest_address, timeout_seconds, empty=empty)
            yield from model.checks()


def files(name: str, version: int, path: pathlib.Path) -> Iterator[Check]:
    """Checks a version's files by reading them: none is loaded or run.

    Args:
      name: of the model.
      version: its number.
      path: its folder.

    Yields:
      One Check after the other. After a problem the version must not be loaded.
    """
    try:
        ops, others = sorted(read_ops(path)), other_ops(path)
    except ExportError as error:
        yield Check(f"{name}/{version} has a SavedModel", str(error))
        return
    yield Check(
        f"{name}/{version} has ops of an export only: {', '.join(ops)}", _listed("others:", others)
    )
    if not (path / CHECKSUMS_FILE).exists():
        return
    try:
        problem = "; ".join(compare_checksums(path))
    except ExportError as error:
        problem = str(error)
    yield Check(f"{name}/{version} has the files that were published, by {CHECKSUMS_FILE}", problem)


class _Model:
    """The checks of one servable's newest version."""

    def __init__(
        self,
        client: Client,
        name: str,
        version: int,
        path: pathlib.Path,
        rest_address: str | None,
        timeout_seconds: float,
        *,
        empty: bool,
    ):
        self._client = client
        self._empty = empty
        self._name = name
        self._version = version
        self._path = path
        self._rest_address = rest_address
        self._timeout_seconds = timeout_seconds
        self._answers: list[Tensors] = []

    def checks(self) -> Iterator[Check]:
        before = list(files(self._name, self._version, self._path))
        yield from before
        if any(one.problem for one in before):
            return
        statuses = self._client.status(self._name)
        state = next((one.state for one in statuses if one.version == self._version), "unknown")
        served = "" if state == "AVAILABLE" else f"the server has it as {state}: {statuses}"
        yield self._check("is served, and the newest on disk", served)
        if served:
            return
        signatures = self._client.metadata(self._name, version=self._version).signatures
        yield from self._check_signatures(signatures)
        yield self._check("has warm-up records for each signature", self._warmup(signatures))
        try:
            examples = read_examples(examples_path(self._path))
        except ExportError as error:
            yield self._check("has examples", str(error))
            return
        covered = {DEFAULT, *(request.signature for request in examples.requests if _rows(request))}
        lacking = sorted(set(signatures) - covered)
        yield self._check(
            "has an example for each signature", f"none for {', '.join(lacking)}" if lacking else ""
        )
        requests = examples.requests + for_default(examples, signatures)
        for place, request in enumerate(requests, start=1):
            yield from self._replay(request, f"example {place} of {len(requests)}", examples)
        for signature in dict.fromkeys(request.signature for request in requests):
            of_signature = [request for request in requests if request.signature == signature]
            yield from self._check_rows(signature, of_signature, examples)
        infinite = sorted(
            {name for answer in self._answers for name in answer if not _finite(answer[name])}
        )
        yield self._check("answers with finite numbers", _listed("NaN or infinity in", infinite))

    def _check_signatures(self, signatures: "Mapping[str, Signature]") -> Iterator[Check]:
        yield self._check(
            f"has the signature {DEFAULT}",
            "" if DEFAULT in signatures else f"it has {', '.join(signatures)}",
        )
        for name, signature in signatures.items():
            tensors = {**signature.inputs, **signature.outputs}
            fixed = [key for key, spec in tensors.items() if not _free(spec.shape)]
            yield self._check(
                f"{name}: every input and output has a free first dimension",
                _listed("fixed or scalar:", fixed),
            )
            bad = [
                f"{key} ({spec.dtype})"
                for key, spec in signature.outputs.items()
                if spec.dtype not in _REST_DTYPES
            ]
            yield self._check(
                f"{name}: every output has a JSON form", _listed("none, so no REST:", bad)
            )

    def _replay(self, request: Example, what: str, examples: Examples) -> Iterator[Check]:
        def over_grpc() -> str:
            return self._differences(
                self._ask(request.signature, request.inputs), request, examples
            )

        what = f"{request.signature}: {what}"
        yield self._try(f"{what} agrees over gRPC", over_grpc)
        if self._rest_address is None:
            return
        for row in (True, False):
            form = "row" if row else "columnar"
            yield self._try(
                f"{what} agrees over REST, {form} form",
                lambda row=row: self._differences(  # type: ignore[misc]
                    self._ask_rest(request, row=row), request, examples
                ),
            )

    def _check_rows(
        self, signature: str, requests: list[Example], examples: Examples
    ) -> Iterator[Check]:
        """A row must get the same answer alone as in any batch, whatever the other rows are."""
        for place, rows in enumerate(pools(requests), start=1):
            where = f"{signature}: group {place}, {len(rows)} different rows"
            singles: list[Tensors] = []

            def one_by_one(rows: list[Tensors] = rows, singles: list[Tensors] = singles) -> str:
                singles.extend(self._ask(signature, row) for row in rows)
                wrong = [key for key in singles[0] if any(len(one[key]) != 1 for one in singles)]
                return _listed("wanted one row of", wrong)

            alone = self._try(f"{where}: batch of 1", one_by_one)
            yield alone
            if alone.problem:
                continue
            for size in _BATCHES:
                # Backwards, so that the first row of the batch is not always the same one.
                order = [-place % len(rows) for place in range(size)]

                def together(
                    rows: list[Tensors] = rows,
                    singles: list[Tensors] = singles,
                    order: list[int] = order,
                ) -> str:
                    answer = self._ask(signature, stacked([rows[place] for place in order]))
                    expected = stacked([singles[place] for place in order])
                    return "; ".join(
                        compare(answer, expected, rtol=examples.rtol, atol=examples.atol)
                    )

                yield self._try(f"{where}: batch of {size}, rows independent", together)

            if not self._empty:
                continue

            def none(rows: list[Tensors] = rows) -> str:
                empty = self._ask(signature, {name: rows[0][name][:0] for name in rows[0]})
                return _listed("wanted no rows of", [key for key in empty if len(empty[key])])

            yield self._try(f"{where}: batch of 0", none)

    def _warmup(self, signatures: "Mapping[str, Signature]") -> str:
        from serving.local_server.models.servable import WARMUP_FILE, read_warmup
        from serving.local_server.refusals import Refusal

        path = self._path / WARMUP_FILE
        if not path.exists():
            return f"there is no {WARMUP_FILE}; the first requests will be slow"
        try:
            logs = read_warmup(path)
        except Refusal as refusal:
            return refusal.text
        warmed = {
            log.predict_log.request.model_spec.signature_name or DEFAULT
            for log in logs
            if log.HasField("predict_log")
        }
        return _listed("none for", sorted(set(signatures) - warmed))

    def _ask(self, signature: str, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        answer = self._client.predict(
            self._name, inputs, signature=signature, version=self._version
        )
        self._answers.append(answer)
        return answer

    def _ask_rest(self, request: Example, *, row: bool) -> Tensors:
        from serving.check import rest_call

        assert self._rest_address is not None
        return rest_call.predict(
            self._rest_address,
            f"/v1/models/{self._name}/versions/{self._version}:predict",
            request,
            row=row,
            timeout_seconds=self._timeout_seconds,
        )

    def _differences(self, answer: Tensors, request: Example, examples: Examples) -> str:
        return "; ".join(compare(answer, request.outputs, rtol=examples.rtol, atol=examples.atol))

    def _try(self, name: str, problem: Callable[[], str]) -> Check:
        try:
            return self._check(name, problem())
        except (MmrecError, ValueError) as error:
            return self._check(name, str(error))

    def _check(self, name: str, problem: str) -> Check:
        return Check(f"{self._name}/{self._version} {name}", problem)


def _rows(request: Example) -> int:
    return min(map(len, request.inputs.values()), default=0)


def _free(shape: tuple[int | None, ...] | None) -> bool:
    return bool(shape) and shape is not None and shape[0] is None


def _finite(array: NDArray[Any]) -> bool:
    # bfloat16 is of no kind that NumPy knows.
    return array.dtype.kind not in "fV" or bool(np.isfinite(array).all())


def _listed(what: str, names: list[str]) -> str:
    return f"{what} {', '.join(names)}" if names else ""
