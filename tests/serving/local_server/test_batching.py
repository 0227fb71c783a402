"""Requests that run together: what is merged, filled up, cut and refused."""

import json
import pathlib
import re
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from support import toy_export
from support.toy_export import strings
from support.wire import CODE, WAIT_SECONDS, ask, refusal, request, wait_for
from tensorflow_serving.apis import prediction_service_pb2_grpc

from mmrec_tf.errors import ConfigError
from serving.client import Client
from serving.local_server import LocalServer
from serving.local_server.batching import merging
from serving.local_server.batching import parameters as batching_parameters
from serving.local_server.batching.batcher import Batcher
from serving.local_server.batching.parameters import BatchingParameters
from serving.local_server.metrics import Metrics
from serving.local_server.refusals import Refusal

DEPLOY = pathlib.Path(__file__).resolve().parents[3] / "serving/deploy"


class Graph:
    """Runs when it is let, and keeps what ran."""

    def __init__(self, act=lambda inputs: {"y": inputs["x"] * 2}, opens_at=0):
        self.act, self.opens_at = act, opens_at
        self.runs, self.is_open = [], threading.Event()

    def __call__(self, inputs):
        self.runs.append({name: array.copy() for name, array in inputs.items()})
        if len(self.runs) > self.opens_at:
            self.is_open.wait(WAIT_SECONDS)
        return self.act(inputs)


class Caller(threading.Thread):
    """One request; `answer` is its outputs or its refusal."""

    def __init__(self, batcher, run, arrays, key="k", **settings):
        super().__init__(daemon=True)
        self.act = lambda: batcher.run(key, run, arrays, **settings)
        self.answer = None
        self.start()

    def run(self):
        try:
            self.answer = self.act()
        except Refusal as refusal:
            self.answer = (refusal.code, refusal.text)

    def ended(self):
        self.join(WAIT_SECONDS)
        return self.answer


class Busy:
    """A batcher of one thread that is kept busy, so that what comes next has to wait."""

    def __init__(self, **settings):
        self.batcher = Batcher(
            BatchingParameters(**{"num_batch_threads": 1, **settings}), Metrics()
        )
        self.first = Graph()

    def __enter__(self):
        self.caller = Caller(self.batcher, self.first, {"x": np.ones(1)}, key="first")
        wait_for(lambda: self.first.runs)
        return self

    def queue(self, run, *requests, **settings):
        """Puts requests into the queue, one after the other."""
        callers = []
        for arrays in requests:
            before = self.size()
            caller = Caller(self.batcher, run, arrays, **settings)
            wait_for(lambda before=before, caller=caller: self.size() > before or caller.answer)
            callers.append(caller)
        return callers

    def size(self):
        queues = self.batcher._queues.values()
        return sum(len(batch.pieces) for queue in list(queues) for batch in list(queue.batches))

    def let(self):
        self.first.is_open.set()

    def __exit__(self, *_):
        self.let()
        self.batcher.close(WAIT_SECONDS)


def opened(**settings):
    graph = Graph(**settings)
    graph.is_open.set()
    return graph


def f32(*values):
    return np.array(values, np.float32)


def test_what_waits_runs_together_and_everyone_gets_their_own_rows():
    run = opened()
    with Busy() as busy:
        callers = busy.queue(run, {"x": f32(1)}, {"x": f32(2, 3)}, {"x": f32(4)})
        busy.let()
        answers = [caller.ended()["y"].tolist() for caller in callers]
    assert answers == [[2], [4, 6], [8]]
    assert [ran["x"].tolist() for ran in run.runs] == [[1, 2, 3, 4]]


def test_keys_do_not_mix():
    run = opened()
    with Busy() as busy:
        callers = busy.queue(run, {"x": f32(1)}, key="a") + busy.queue(run, {"x": f32(2)}, key="b")
        busy.let()
        assert [caller.ended()["y"].tolist() for caller in callers] == [[2], [4]]
    assert [ran["x"].tolist() for ran in run.runs] == [[1], [2]]


def test_batches_are_as_large_as_they_may_be_and_keep_their_order():
    run = opened()
    with Busy(max_execution_batch_size=3) as busy:
        callers = busy.queue(run, *({"x": f32(*range(n))} for n in (2, 1, 2, 2, 1)))
        busy.let()
        assert [len(caller.ended()["y"]) for caller in callers] == [2, 1, 2, 2, 1]
    assert [len(ran["x"]) for ran in run.runs] == [3, 2, 3]


def test_a_batch_is_filled_up_with_the_first_row_of_the_last_request():
    run = opened()
    with Busy(max_execution_batch_size=8, allowed_batch_sizes=(2, 4, 8)) as busy:
        callers = busy.queue(run, {"x": f32([1, 2])}, {"x": f32([5, 6], [7, 8])})
        busy.let()
        assert [caller.ended()["y"].tolist() for caller in callers] == [
            [[2, 4]],
            [[10, 12], [14, 16]],
        ]
    assert run.runs[0]["x"].tolist() == [[1, 2], [5, 6], [7, 8], [5, 6]]


def test_no_rows_are_no_request_and_nobody_waits_for_their_answer():
    """Stock TensorFlow Serving would wait for it until the deadline."""
    batcher = Batcher(BatchingParameters(allowed_batch_sizes=(2, 1000)), Metrics())
    with pytest.raises(Refusal) as raised:
        batcher.run("k", opened(), {"x": f32()})
    assert raised.value.code is CODE.DEADLINE_EXCEEDED and not batcher._queues
    batcher.close(WAIT_SECONDS)


def test_shorter_lists_are_filled_up_with_their_own_first_element():
    run = opened(act=lambda inputs: {"y": inputs["x"]})
    with Busy(pad_variable_length_inputs=True) as busy:
        callers = busy.queue(
            run,
            {"x": strings([b"", b"a"])},
            {"x": strings([b"b", b"c", b"d"], [b"e", b"f", b"g"])},
            {"x": strings([b"h"])},
        )
        busy.let()
        first = callers[0].ended()["y"]
        assert [caller.ended()["y"].shape for caller in callers] == [(1, 3), (2, 3), (1, 3)]
    assert first.tolist() == [[b"", b"a", b""]]
    assert run.runs[0]["x"].tolist()[-1] == [b"h", b"h", b"h"]


@pytest.mark.parametrize(
    ("pad", "arrays", "code", "text"),
    [
        (False, (f32([1, 2]), f32([1])), CODE.FAILED_PRECONDITION, "padding is turned off"),
        (True, (f32([1, 2]), f32(1)), CODE.FAILED_PRECONDITION, "have different shapes"),
        (
            True,
            (f32([1, 2]), np.zeros([1, 0], np.float32)),
            CODE.INVALID_ARGUMENT,
            "Got empty tensor in batch of non-empty tensors.",
        ),
    ],
)
def test_shapes_that_do_not_go_together_fail_for_all(pad, arrays, code, text):
    with Busy(pad_variable_length_inputs=pad) as busy:
        callers = busy.queue(opened(), *({"x": array} for array in arrays))
        busy.let()
        for caller in callers:
            assert caller.ended()[0] is code and text in caller.answer[1]


def test_rows_without_requests_take_any_shape():
    none, some = np.zeros([0, 5], np.float32), f32([1, 2])
    merged = merging.merge([{"x": none}, {"x": some}], size=2, pad=True)
    assert merged["x"].shape == (2, 5) and merged["x"][0].tolist() == [1, 2, 1, 1, 1]


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"x": np.array(1.0)}, "Batching Run() input tensors must have at least one dimension"),
        (
            {"x": f32(1), "z": f32(1, 2)},
            "Batching Run() input tensors must have equal 0th-dimension size",
        ),
        ({}, "Batching Run() must have at least one input tensor"),
        ({"x": f32(*range(9))}, "Task size 9 is larger than maximum input batch size 8"),
    ],
)
def test_requests_that_cannot_be_batched_are_refused(inputs, text):
    batcher = Batcher(BatchingParameters(max_execution_batch_size=8), Metrics())
    with pytest.raises(Refusal) as raised:
        batcher.run("k", opened(), inputs)
    assert (raised.value.code, raised.value.text) == (CODE.INVALID_ARGUMENT, text)
    assert not batcher._queues
    batcher.close(WAIT_SECONDS)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (np.float32(3), "Batched output tensor has 0 dimensions"),
        (f32(1), "0th dimension does not equal the sum of the 0th dimension sizes of the input"),
    ],
)
def test_outputs_that_cannot_be_cut_are_refused(output, text):
    run = opened(act=lambda inputs: {"y": np.asarray(output)})
    with Busy() as busy:
        callers = busy.queue(run, {"x": f32(1)}, {"x": f32(2)})
        busy.let()
        for caller in callers:
            assert caller.ended()[0] is CODE.FAILED_PRECONDITION and text in caller.answer[1]


@pytest.mark.parametrize("error", [Refusal(CODE.OUT_OF_RANGE, "no"), ZeroDivisionError("zero")])
def test_a_run_that_fails_fails_for_all_and_the_next_one_works(error):
    def fail(_):
        raise error

    with Busy() as busy:
        callers = busy.queue(opened(act=fail), {"x": f32(1)}, {"x": f32(2)})
        busy.let()
        wanted = (CODE.OUT_OF_RANGE, "no")
        if isinstance(error, ZeroDivisionError):
            wanted = (CODE.INTERNAL, "ZeroDivisionError: zero")
        assert [caller.ended() for caller in callers] == [wanted, wanted]
        assert busy.batcher.run("k", opened(), {"x": f32(3)})["y"].tolist() == [6]


def test_a_full_queue_refuses_and_others_do_not():
    run = opened()
    with Busy(max_execution_batch_size=2, max_enqueued_batches=2) as busy:
        callers = busy.queue(run, *[{"x": f32(n)} for n in range(4)])
        (extra,) = busy.queue(run, {"x": f32(5)})
        assert extra.ended() == (
            CODE.UNAVAILABLE,
            "The batch scheduling queue to which this task was submitted is full; currently 2 "
            "batches enqueued and max_enqueued_batches is 2",
        )
        (other,) = busy.queue(run, {"x": f32(6)}, key="other")
        busy.let()
        assert [c.ended()["y"].tolist() for c in [*callers, other]] == [[0], [2], [4], [6], [12]]


def test_a_large_request_is_cut():
    run = opened()
    with Busy(
        max_execution_batch_size=4, max_enqueued_batches=3, enable_large_batch_splitting=True
    ) as busy:
        small, large = busy.queue(run, {"x": f32(100)}, {"x": f32(*range(9))})
        (over,) = busy.queue(run, {"x": f32(1, 2, 3)})
        assert over.ended()[0] is CODE.UNAVAILABLE
        assert over.answer[1].endswith(
            "full; task size is 3 but scheduling capacity is only 2 (num_enqueued_batches=3, "
            "max_enqueued_batches=3, open_batch_size=2, max_execution_batch_size=4)"
        )
        busy.let()
        assert large.ended()["y"].tolist() == [2 * n for n in range(9)]
        assert small.ended()["y"].tolist() == [200]
    assert [ran["x"].tolist() for ran in run.runs] == [[100, 0, 1, 2], [3, 4, 5, 6], [7, 8]]


def test_the_pieces_of_a_request_run_at_the_same_time():
    both = threading.Barrier(2)

    def meet(inputs):
        both.wait(WAIT_SECONDS)
        return {"y": inputs["x"]}

    batcher = Batcher(
        BatchingParameters(
            max_execution_batch_size=2, num_batch_threads=2, enable_large_batch_splitting=True
        ),
        Metrics(),
    )
    # Both sleep, and one request has to wake them.
    wait_for(lambda: len(batcher._changed._waiters) == 2)
    assert batcher.run("k", meet, {"x": f32(1, 2, 3, 4)})["y"].tolist() == [1, 2, 3, 4]
    batcher.close(WAIT_SECONDS)


def test_a_piece_that_fails_fails_the_request():
    def fail(inputs):
        if 9 in inputs["x"]:
            raise Refusal(CODE.OUT_OF_RANGE, "nine")
        return {"y": inputs["x"]}

    with Busy(max_execution_batch_size=2, enable_large_batch_splitting=True) as busy:
        (large,) = busy.queue(opened(act=fail), {"x": f32(1, 2, 9, 3, 4)})
        busy.let()
        assert large.ended() == (CODE.OUT_OF_RANGE, "nine")


@pytest.mark.parametrize(
    ("size", "free", "pieces"),
    [(3, 3, [3]), (4, 3, [3, 1]), (9, 0, [4, 4, 1]), (4, 4, [4])],
)
def test_cutting(size, free, pieces):
    assert list(merging.cut(size, free, 4)) == pieces


def test_the_time_is_over_while_it_waits():
    run = opened()
    with Busy() as busy:
        late = time.monotonic() + 0.05
        (over,) = busy.queue(run, {"x": f32(1)}, deadline=late)
        (alive,) = busy.queue(run, {"x": f32(2)})
        assert over.ended() == (
            CODE.DEADLINE_EXCEEDED,
            "Timed out waiting for notification",
        )
        busy.let()
        assert alive.ended()["y"].tolist() == [4]
    assert [ran["x"].tolist() for ran in run.runs] == [[2]]


def test_a_batch_waits_for_company_for_as_long_as_it_is_told_to():
    run = opened()
    batcher = Batcher(
        BatchingParameters(max_execution_batch_size=2, batch_timeout_seconds=60.0), Metrics()
    )
    callers = [
        Caller(batcher, run, {"x": f32(n)}) for n in range(2)
    ]  # Full, so they need not wait.
    assert sorted(caller.ended()["y"].tolist()[0] for caller in callers) == [0, 2]
    alone = Caller(batcher, run, {"x": f32(5)})
    wait_for(lambda: batcher._queues)
    assert alone.answer is None
    batcher.close(WAIT_SECONDS)  # What is queued still runs; what comes then does not.
    assert alone.ended()["y"].tolist() == [10]
    assert [len(ran["x"]) for ran in run.runs] == [2, 1]
    with pytest.raises(Refusal, match="shutting down"):
        batcher.run("k", run, {"x": f32(1)})


def test_many_callers_of_several_keys_get_their_own_rows():
    batcher = Batcher(
        BatchingParameters(
            max_execution_batch_size=7, num_batch_threads=3, enable_large_batch_splitting=True,
            max_enqueued_batches=1000, allowed_batch_sizes=(3, 7),
        ),
        Metrics(),
    )  # fmt: skip
    wrong, run = [], lambda inputs: {"y": inputs["x"] * 2, "z": inputs["x"] + 1}

    def call(number):
        rng = np.random.default_rng(number)
        for _ in range(100):
            x = rng.random(int(rng.integers(1, 12)), np.float32)
            answer = batcher.run(number % 2, run, {"x": x})
            if not np.array_equal(answer["y"], x * 2) or not np.array_equal(answer["z"], x + 1):
                wrong.append(x)

    threads = [threading.Thread(target=call, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert wrong == [] and not batcher._queues
    batcher.close(WAIT_SECONDS)
    assert not any(thread.is_alive() for thread in batcher._threads)


# The file


def write(tmp_path, text):
    file = tmp_path / "batching.config"
    file.write_text(text)
    return file


def test_the_file_of_the_checkout_is_read():
    file = DEPLOY / "batching.config"
    read = batching_parameters.read(file)
    assert read == BatchingParameters(64, 0.001, 4, 100, (), True, True, max_batch_size=1024)


def test_a_request_beyond_the_largest_is_refused_though_it_could_be_split():
    parameters = batching_parameters.read(DEPLOY / "batching.config")
    batcher = Batcher(parameters, Metrics())
    run = opened()
    assert len(batcher.run("k", run, {"x": f32(*range(1024))})["y"]) == 1024
    assert [len(ran["x"]) for ran in run.runs] == [64] * 16
    with pytest.raises(Refusal) as raised:
        batcher.run("k", run, {"x": f32(*range(1025))})
    assert (raised.value.code, raised.value.text) == (
        CODE.INVALID_ARGUMENT,
        "Task size 1025 is larger than maximum input batch size 1024",
    )
    batcher.close(WAIT_SECONDS)


def test_an_empty_file_means_the_defaults(tmp_path):
    read = batching_parameters.read(write(tmp_path, ""))
    assert read == BatchingParameters(max_batch_size=1000)
    text = 'max_execution_batch_size { value: 3 } thread_pool_name { value: "p" }'
    read = batching_parameters.read(write(tmp_path, text))
    # Without splitting it does not count.
    assert (
        read == BatchingParameters(thread_pool_name="p", max_batch_size=1000)
        and read.max_execution_batch_size == 1000
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "max_batch_size: 3",
            "wanted a BatchingParameters in text form; not so in line 1, column 17",
        ),
        ("max_batchsize { value: 3 }", 'has no field named "max_batchsize"'),
        ("num_batch_threads { value: 0 }", "num_batch_threads: wanted 1 or more; got 0"),
        ("max_batch_size { value: -1 }", "max_batch_size: wanted 1 or more; got -1"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros: wanted 0 or more; got -1"),
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: 2 allowed_batch_sizes: 4",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; "
            "expected 8",
        ),
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: [4, 4, 8]",
            "wanted numbers from 1 that grow; got 4, 4, 8",
        ),
        (
            "max_batch_size { value: 1024 } max_execution_batch_size { value: 64 } "
            "enable_large_batch_splitting { value: true } allowed_batch_sizes: 64",
            "must match max_batch_size; last entry was 64; expected 1024. To have larger requests "
            "split, leave allowed_batch_sizes out",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(tmp_path, text, message):
    with pytest.raises(ConfigError) as raised:
        batching_parameters.read(write(tmp_path, text))
    assert message in str(raised.value) and "batching.config" in str(raised.value)


def test_a_file_without_batching_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--batching-parameters-file needs --enable-batching"):
        LocalServer(tmp_path, batching_parameters_file=write(tmp_path, ""))


# Over the wire


def test_a_server_batches(tmp_path):
    toy_export.save(toy_export.Table(), toy_export_folder(tmp_path))
    toy_export.export(tmp_path, "recommender", 1, toy_export.Recommender(1, mixes_rows=True))
    config = write(
        tmp_path,
        "max_batch_size { value: 8 } batch_timeout_micros { value: 50000 } "
        "num_batch_threads { value: 2 } pad_variable_length_inputs: true allowed_batch_sizes: 8",
    )
    with (
        LocalServer(tmp_path, enable_batching=True, batching_parameters_file=config) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        values = [f32(*range(n)) for n in (1, 3, 2)]
        futures = [predict.future(request("table", "add", x=x, z=x)) for x in values]
        for future, x in zip(futures, values, strict=True):
            answer = tf.make_ndarray(future.result(WAIT_SECONDS).outputs["y"])
            np.testing.assert_array_equal(answer, x + x)
        for made, code, text in (
            (request("table", "total", x=f32(1)), CODE.FAILED_PRECONDITION, "has 0 dimensions"),
            (request("table", "add", x=f32(*range(9)), z=f32(*range(9))),
             CODE.INVALID_ARGUMENT, "Task size 9 is larger than maximum input batch size 8"),
            (request("table", x=np.float32(1)), CODE.INVALID_ARGUMENT, "at least one dimension"),
            (request("table", x=f32(1).astype(int)), CODE.INVALID_ARGUMENT, "Expects arg[0] to be"),
        ):  # fmt: skip
            found = refusal(predict, made)
            assert found[0] is code and text in found[1]
        code, body = ask(server, "POST", "/v1/models/table:predict", {"instances": [1, 2.5]})
        assert code == 200 and json.loads(body) == {"predictions": [1.0, 2.5]}


@pytest.mark.slow
def test_an_export_answers_alike_in_any_company(exported, tmp_path):
    """By the file of the checkout, but so slow to close a batch that callers do meet in it."""
    file = DEPLOY / "batching.config"
    text = file.read_text()
    assert "batch_timeout_micros { value: 1000 }" in text
    config = write(tmp_path, text.replace("{ value: 1000 }", "{ value: 100000 }"))
    num_callers, num_rounds = 8, 3

    def questions(client, number):
        """Lists of other lengths for each caller and round, and other items in each row: what a
        list is wrongly filled up with changes its answer only where it did not hold that before."""
        for turn in range(num_rounds):
            users = [f"u{number + row}" for row in range(1 + number % 3)]
            histories = [
                [f"i{5 * row + n}" for n in range((number + turn + row) % 5)]
                for row in range(len(users))
            ]
            yield client.recommend(users, histories)
            yield client.rank(users, [["i1", f"i{number}", "nope"][: 1 + turn]] * len(users))
            yield client.search(text=["owl night " * number])

    with LocalServer(exported) as server, Client(server.address) as client:
        wanted = [list(questions(client, number)) for number in range(num_callers)]
    together = threading.Barrier(num_callers)
    got = [[] for _ in range(num_callers)]

    def call(number, address):
        with Client(address, timeout_seconds=WAIT_SECONDS) as client:
            together.wait(WAIT_SECONDS)
            for answer in questions(client, number):
                got[number].append(answer)
                together.wait(WAIT_SECONDS)

    monitoring = file.with_name("monitoring.config")
    with LocalServer(
        exported,
        enable_batching=True,
        batching_parameters_file=config,
        monitoring_config_file=monitoring,
    ) as server:
        before = num_runs(server)
        threads = [
            threading.Thread(target=call, args=[number, server.address], daemon=True)
            for number in range(num_callers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_SECONDS)
        assert num_runs(server) - before < num_callers * num_rounds * 3
    for number in range(num_callers):
        assert len(got[number]) == len(wanted[number])
        for answer, alone in zip(got[number], wanted[number], strict=True):
            for name, value in answer._asdict().items():
                expected = getattr(alone, name)
                if np.asarray(value).dtype.kind == "f":
                    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
                else:
                    np.testing.assert_array_equal(value, expected, err_msg=name)


def num_runs(server):
    _, page = ask(server, "GET", "/monitoring/prometheus/metrics")
    (count,) = re.findall(r":batching_session:wrapped_run_count{} (\d+)", page.decode())
    return int(count)


def toy_export_folder(root):
    (root / "table").mkdir()
    return root / "table" / "1"
