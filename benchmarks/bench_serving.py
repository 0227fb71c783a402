"""What does serving cost, and what can harm it? Writes a JSON file.

    python -m benchmarks.bench_serving latency --out benchmarks/results/serving.json
    python -m benchmarks.bench_serving swap --run RUN --out benchmarks/results/serving_swap.json
    python -m benchmarks.bench_serving malformed --run RUN \
        --out benchmarks/results/serving_malformed.json

`latency`: every signature of an export of 100,000 items (that of `bench_recommend`, untrained: that
changes no cost) over gRPC from the local server, in a process of its own, by one caller at a time;
beside it the same SavedModel called in this process. Batches of 1, 8 and 64. Rounds take turns.

`swap`: two callers ask without a pause while new versions are published: by `mmrec-tf export`, and
by `export --only-index` with an item withdrawn. Each answer is compared with what the version that
it says it is of answers in this process.

`malformed`: what requests that no client of ours would send are answered with; the server has to
answer the next one. What they cost, and those that are made to harm, is in `hostile`.

RUN is a run directory with text, pictures and sounds, such as that of `make demo`.
"""

import argparse
import contextlib
import pathlib
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping

import mmrec_tf as mm  # isort: skip  (chooses Keras 2 before TensorFlow is imported)

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from benchmarks.bench_recommend import build, write_dataset
from benchmarks.facts import ROOT, facts
from mmrec_tf.exporting.request_examples import Example, examples_path, read_examples
from mmrec_tf.exporting.verify import predict_request
from mmrec_tf.records.files import write_json
from serving import tensors

NUM_ITEMS = 100_000
BATCHES = (1, 8, 64)
ROUNDS, SECONDS = 5, 1.0
# Seconds under load after a swap.
SETTLED = 5
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@contextlib.contextmanager
def served(export: pathlib.Path, *arguments: str) -> Iterator[str]:
    """The address of a local server in a process of its own."""
    line = [sys.executable, "-m", "serving.local_server", str(export), "--port", "0", "--no-rest"]
    server = subprocess.Popen(
        [*line, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout is not None
        ready = server.stdout.readline()
        found = re.search(r"ready on (\S+) \(gRPC\)", ready)
        if found is None:
            raise SystemExit(f"the server did not start: {ready!r}")
        yield found[1]
    finally:
        server.terminate()
        server.wait()


def stub(address: str):
    """A channel's PredictionService, and the channel."""
    channel = grpc.insecure_channel(address, options=OPTIONS)
    return prediction_service_pb2_grpc.PredictionServiceStub(channel), channel


# Latency


def rows(example: Example, num: int) -> dict[str, np.ndarray]:
    """The inputs of an example, repeated or cut to so many rows."""
    return {
        name: np.resize(value, [num, *value.shape[1:]]) for name, value in example.inputs.items()
    }


def spent(call: Callable[[], object]) -> list[float]:
    """Milliseconds of each call, for `SECONDS`."""
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def told(times: list[float], num: int) -> dict[str, float]:
    """Percentiles of milliseconds, and how much one caller gets through."""
    p50, p95, p99 = np.percentile(times, [50, 95, 99]).tolist()
    mean = statistics.fmean(times)
    return {
        "p50_ms": round(p50, 3),
        "p95_ms": round(p95, 3),
        "p99_ms": round(p99, 3),
        "requests_per_second": round(1e3 / mean, 1),
        "rows_per_second": round(1e3 * num / mean, 1),
    }


def latency(_) -> dict:
    """Every signature, in process and over gRPC."""
    with tempfile.TemporaryDirectory() as work:
        dataset = write_dataset(pathlib.Path(work) / "dataset", NUM_ITEMS)
        folders = mm.export(build(dataset, 100), pathlib.Path(work) / "export", k=50)
        result: dict[str, dict] = {}
        with served(pathlib.Path(work) / "export") as address:
            client, channel = stub(address)
            for folder in folders:
                model = tf.saved_model.load(str(folder))
                seen = set()
                for example in read_examples(examples_path(folder)).requests:
                    if example.signature in seen:
                        continue
                    seen.add(example.signature)
                    name = f"{folder.parent.name}/{example.signature}"
                    result[name] = {}
                    for num in BATCHES:
                        inputs = rows(example, num)
                        result[name][str(num)] = _both(client, model, folder, example, inputs, num)
                        print(name, num, result[name][str(num)], flush=True)
            channel.close()
    return {"items": NUM_ITEMS, "k": 50, "signatures": result}


def _both(client, model, folder, example: Example, inputs: Mapping, num: int) -> dict:
    request = predict_request(folder.parent.name, example._replace(inputs=dict(inputs)))
    call = model.signatures[example.signature]

    def in_process() -> dict[str, np.ndarray]:
        given = {
            name: tf.constant(value.tolist(), tf.string, shape=value.shape)
            if value.dtype == object
            else tf.constant(value)
            for name, value in inputs.items()
        }
        return {name: value.numpy() for name, value in call(**given).items()}

    def over_grpc() -> dict[str, np.ndarray]:
        answer = client.Predict(request, timeout=60)
        return {name: tensors.from_proto(value) for name, value in answer.outputs.items()}

    ways = {"in_process": in_process, "grpc": over_grpc}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        for _ in range(5):
            way()
    for _ in range(ROUNDS):
        for name, way in ways.items():
            times[name] += spent(way)
    found: dict = {name: told(each, num) for name, each in times.items()}
    found["grpc_over_in_process"] = round(
        found["grpc"]["p50_ms"] / found["in_process"]["p50_ms"], 3
    )
    return found


# Swap


def swap(options) -> dict:
    """Two callers, and versions that come and go."""
    run = mm.load_run(options.run)
    user = run.dataset.users.user_id[:8].tolist()
    first = run.recommender().recommend(user, k=1).item_id[0, 0]
    with tempfile.TemporaryDirectory() as work:
        export = pathlib.Path(work) / "export"
        withdrawn = pathlib.Path(work) / "withdrawn.txt"
        withdrawn.write_text(f"{first}\n", encoding="utf-8")
        line = ["export", str(options.run), "--out", str(export), "--k", "10"]
        anew = [*line, "--only-index", "--dataset", str(run.dataset.directory)]
        published = [line, [*anew, "--unavailable", str(withdrawn)], line]
        _publish(published[0])
        example = next(
            e
            for e in read_examples(examples_path(export / "recommender/1")).requests
            if e.signature == "recommend"
        )
        inputs = {
            **rows(example, len(user)),
            "user_id": np.array([u.encode() for u in user], object),
        }
        request = predict_request("recommender", example._replace(inputs=inputs))
        answers: list[tuple[int, bytes]] = []
        errors: list[str] = []
        stop = threading.Event()
        with served(export) as address:
            client, channel = stub(address)

            def ask() -> None:
                while not stop.is_set():
                    try:
                        answer = client.Predict(request, timeout=30)
                    except grpc.RpcError as error:
                        errors.append(f"{error.code().name}: {error.details()}")
                        continue
                    version = answer.model_spec.version.value
                    answers.append((version, answer.outputs["item_id"].SerializeToString()))

            callers = [threading.Thread(target=ask) for _ in range(2)]
            for caller in callers:
                caller.start()
            for number, arguments in enumerate(published[1:], start=2):
                _publish(arguments)
                while all(version < number for version, _ in answers[-100:]):
                    time.sleep(0.1)
                time.sleep(SETTLED)
            stop.set()
            for caller in callers:
                caller.join()
            channel.close()
        want = {}
        for number in (1, 2, 3):
            model = tf.saved_model.load(str(export / f"recommender/{number}"))
            given = {n: tf.constant(tensors.from_proto(v)) for n, v in request.inputs.items()}
            found = model.signatures["recommend"](**given)["item_id"].numpy()
            want[number] = tensors.to_proto(found).SerializeToString()
    by_version = {str(n): sum(v == n for v, _ in answers) for n in want}
    return {
        "published": [
            "mmrec-tf export RUN",
            "mmrec-tf export RUN --only-index --dataset DATASET --unavailable FILE",
            "mmrec-tf export RUN",
        ],
        "versions_differ": len(set(want.values())),
        "answers": len(answers),
        "answers_by_version": by_version,
        "failed": len(errors),
        "errors": sorted(set(errors))[:5],
        "mixed": sum(want.get(version) != items for version, items in answers),
    }


def _publish(arguments: list[str]) -> None:
    # In a process of its own, as an operator would.
    subprocess.run([sys.executable, "-m", "mmrec_tf", *arguments], cwd=ROOT, check=True)


# Malformed requests


def bomb(side: int) -> bytes:
    """A PNG of a few hundred bytes that claims side x side pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def cases(user: str, item: str, search: Example) -> Iterator[tuple[str, str, str, dict]]:
    """What it is, model, signature and inputs; `search` is any request of that signature."""

    def asked(size: int = 1, **changes) -> dict:
        lists = {
            n: np.full([size, 1], b"", object)
            for n in ("history", "exclude", "allow", "deny", "features")
        }
        users = np.full([size], user.encode(), object)
        who = {"user_id": users, "profile": np.full([size], b"", object)}
        return {**who, **lists, "time": np.zeros([size], np.int64), **changes}

    def blank(size: int = 1) -> dict:
        return {
            name: np.full([size, 1], b"", object)
            if value.dtype == object
            else np.zeros([size, *value.shape[1:]], value.dtype)
            for name, value in search.inputs.items()
        }

    def content(**changes) -> dict:
        return blank() | {name: np.array([value], object) for name, value in changes.items()}

    recommend = ("recommender", "recommend")
    yield "a plain request", *recommend, asked()
    yield "user_id as numbers", *recommend, asked(user_id=np.array([7], np.int64))
    yield "time as float", *recommend, asked(time=np.zeros([1], np.float32))
    yield "user_id of rank 2", *recommend, asked(user_id=np.full([1, 2], b"u", object))
    yield "history of rank 1", *recommend, asked(history=np.array([b"a"], object))
    less = asked()
    del less["history"]
    yield "no history sent", *recommend, less
    yield "an input too many", *recommend, asked(more=np.zeros([1], np.int64))
    yield (
        "history of two rows for one user",
        *recommend,
        asked(history=np.full([2, 1], b"", object)),
    )
    yield (
        "a user and items nobody knows",
        *recommend,
        asked(
            user_id=np.array([b"\xff\x00nobody"], object),
            history=np.array([[b"no", b"item"]], object),
        ),
    )
    yield "a category that nothing has", *recommend, asked(allow=np.array([[b"no=thing"]], object))
    yield "a batch of no rows", *recommend, asked(0)
    yield "10,000 rows", *recommend, asked(10_000)
    yield "a history of 100,000", *recommend, asked(history=np.full([1, 100_000], b"x", object))
    yield "a history of 1,024", *recommend, asked(history=np.full([1, 1024], item.encode(), object))
    yield "an unknown signature", "recommender", "guess", asked()
    yield "an unknown model", "oracle", "recommend", asked()
    found = ("encoder", "search")
    noise = np.random.default_rng(0).bytes
    yield "nothing to search by", *found, content()
    yield "random bytes as a picture", *found, content(image=[noise(100_000)])
    yield "random bytes as a sound", *found, content(audio=[noise(100_000)])
    yield "random bytes as a text", *found, content(text=[noise(100_000)])
    yield "20 MB of noise as a picture", *found, content(image=[noise(20_000_000)])
    jpeg = tf.io.encode_jpeg(np.random.default_rng(0).integers(0, 255, [2600, 2600, 3], np.uint8))
    large = tf.io.encode_jpeg(
        np.random.default_rng(0).integers(0, 255, [4000, 4000, 3], np.uint8), quality=100
    )
    yield f"a {len(jpeg.numpy()) / 1e6:.0f} MB JPEG", *found, content(image=[jpeg.numpy()])
    yield f"a {len(large.numpy()) / 1e6:.0f} MB JPEG", *found, content(image=[large.numpy()])
    yield "a PNG that claims 60,000 x 60,000", *found, content(image=[bomb(60_000)])
    yield "a PNG that claims 4,000 x 4,000", *found, content(image=[bomb(4_000)])
    yield "a text of 20 MB", *found, content(text=[b"word " * 4_000_000])
    many = blank(10_000) | {"text": np.full([10_000, 1], b"word", object)}
    yield "10,000 rows of text", *found, many


def malformed(options) -> dict:
    """A row for each request: the code, and what came."""
    run = mm.load_run(options.run)
    user, item = run.dataset.users.user_id[0], run.dataset.catalog.item_id[0]
    table = []
    with tempfile.TemporaryDirectory() as work:
        export = pathlib.Path(work) / "export"
        mm.export(run.recommender(), export, k=10)
        with served(export) as address:
            client, channel = stub(address)
            plain: bytes | None = None
            known = read_examples(examples_path(export / "encoder/1")).requests
            search = next(one for one in known if one.signature == "search")
            for what, model, signature, inputs in cases(user, item, search):
                row = {"request": what, "signature": f"{model}/{signature}"}
                row |= _answer(client, predict_request(model, Example(signature, inputs, {})))
                table.append(row)
                # And the next one is answered as if nothing had been.
                _, _, _, usual = next(cases(user, item, search))
                request = predict_request("recommender", Example("recommend", usual, {}))
                answer = client.Predict(request, timeout=30).outputs["score"].SerializeToString()
                plain = plain or answer
                row["the_next_one_is_answered"] = answer == plain
                print(row, flush=True)
            channel.close()
    return {"requests": table}


def _answer(client, request: predict_pb2.PredictRequest) -> dict[str, str]:
    try:
        outputs = client.Predict(request, timeout=120).outputs
    except grpc.RpcError as error:
        return {
            "code": error.code().name,
            "answer": " ".join((error.details() or "").split())[:160],
        }
    items = tensors.from_proto(outputs["item_id"])
    said = f"{len(items)} rows of items"
    if len(items):
        found = int((items[0] != b"").sum())
        said = f"{found} items" if found else "no items"
    if "unreadable" in outputs:
        said += ", flagged as unreadable" * bool(tensors.from_proto(outputs["unreadable"]).any())
    return {"code": "OK", "answer": said}


def main() -> None:
    """Measures one of the three and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_subparsers(dest="which", required=True)
    for function in (latency, swap, malformed):
        name = function.__name__
        added = which.add_parser(name, help=function.__doc__)
        if function is not latency:
            added.add_argument("--run", type=pathlib.Path, required=True, metavar="RUN")
        added.add_argument("--out", type=pathlib.Path, required=True, metavar="FILE")
        added.set_defaults(function=function)
    options = parser.parse_args()
    result = options.function(options)
    run = "" if options.which == "latency" else " --run RUN"
    line = f"python -m benchmarks.bench_serving {options.which}{run} --out FILE"
    write_json(options.out, {**facts(options.function.__doc__, command=line), **result})


if __name__ == "__main__":
    main()
