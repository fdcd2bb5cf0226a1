"""What a service does without TensorFlow: the protocol, what is asked for, merging."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan import rng
from hpcgan.errors import InputError
from hpcgan.problems.detector_images.conditional import ConditionalModel, ConditionalProblem
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem
from hpcgan.serve import asking, protocol, running, workers
from hpcgan.serve.asking import Asked
from hpcgan.serve.merging import Job, Merger
from hpcgan.serve.refusal import Refusal

RPV = RpvProblem(RpvModel())
CONDITIONAL = ConditionalProblem(ConditionalModel())


# --- protocol ----------------------------------------------------------------------------------------


def body_of(inputs: Mapping[str, np.ndarray], binary: bool) -> tuple[bytes, str | None]:
    """A request as a client sends it."""
    tensors = []
    for name, array in inputs.items():
        entry: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": protocol.datatype(array.dtype)}
        if binary:
            entry["parameters"] = {"binary_data_size": array.nbytes}
        else:
            entry["data"] = array.tolist()
        tensors.append(entry)
    head = json.dumps({"id": "a", "inputs": tensors}).encode()
    if not binary:
        return head, None
    return head + b"".join(array.tobytes() for array in inputs.values()), str(len(head))


@pytest.mark.parametrize("binary", [False, True])
def test_requests_are_read_as_numbers_and_as_bytes(binary: bool) -> None:
    inputs = {
        "seed": np.array([7]),
        "mGlu": np.array([1500.0, 1600.5], np.float32),
        "grid": np.arange(6, dtype=np.int16).reshape(2, 3),
        "flag": np.array([True, False]),
    }
    request = protocol.read(*body_of(inputs, binary))
    assert request.id == "a"
    assert list(request.inputs) == list(inputs)
    for name, array in inputs.items():
        assert request.inputs[name].dtype == array.dtype
        np.testing.assert_array_equal(request.inputs[name], array)
    assert (request.outputs, request.binary) == (None, False)


def test_the_bytes_are_those_of_the_protocol() -> None:
    """Little-endian, row by row, after the JSON object, in its order."""
    head = json.dumps(
        {
            "inputs": [
                {"name": "a", "datatype": "INT32", "shape": [2], "parameters": {"binary_data_size": 8}},
                {"name": "b", "datatype": "FP32", "shape": [1, 1], "parameters": {"binary_data_size": 4}},
            ],
            "outputs": [{"name": "hist", "parameters": {"binary_data": True}}, {"name": "other"}],
        }
    ).encode()
    request = protocol.read(head + b"\x01\0\0\0\xff\xff\xff\xff" + b"\0\0\x80?", str(len(head)))
    assert {name: array.tolist() for name, array in request.inputs.items()} == {"a": [1, -1], "b": [[1.0]]}
    assert request.outputs == {"hist": True, "other": False}
    made = {"hist": np.array([[1.0, -2.0]], np.float32), "other": np.array([3], np.int64)}
    text, arrays = protocol.write("m", "40", request, made)
    assert json.loads(text) == {
        "model_name": "m",
        "model_version": "40",
        "id": "",
        "outputs": [
            {"name": "hist", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
            {"name": "other", "datatype": "INT64", "shape": [1], "data": [3]},
        ],
    }
    assert b"".join(chunk for array in arrays for chunk in protocol.chunks(array)) == b"\0\0\x80?\0\0\0\xc0"


SEED = {"name": "seed", "datatype": "INT64", "shape": [1], "data": [1]}
BROKEN = {
    "": "no JSON object",
    "[" * 100_000: "nested too deeply",
    "\xff": "no JSON object",
    "[]": "the request: needed is a JSON object",
    '{"inputs": 3}': "inputs: needed is a list",
    '{"inputs": [3]}': "inputs: needed is a JSON object",
    '{"inputs": [{}]}': "a tensor has no 'name'",
    json.dumps({"inputs": [{**SEED, "datatype": "BYTES"}]}): "'BYTES' is none of BOOL",
    json.dumps({"inputs": [{**SEED, "shape": [-1]}]}): "is no list of lengths",
    json.dumps({"inputs": [{**SEED, "shape": [2]}]}): "has 1 numbers, shape [2] takes 2",
    json.dumps({"inputs": [{**SEED, "data": [1.5]}]}): "numbers that are no int64",
    json.dumps({"inputs": [{**SEED, "data": [2**70]}]}): "'seed'",
    json.dumps({"inputs": [{**SEED, "data": ["1"]}]}): "does not hold int64 numbers",
    json.dumps({"inputs": [{**SEED, "data": [[1], [2, 3]]}]}): "does not hold int64 numbers",
    json.dumps({"inputs": [SEED, SEED]}): "'seed' is given twice",
    '{"inputs": [{"name": "a", "datatype": "FP32", "shape": [1], "data": [NaN]}]}': "NaN is no number of JSON",
    json.dumps({"inputs": [{**SEED, "parameters": {"binary_data_size": 4}}]}): "shape and datatype take 8 bytes",
    json.dumps({"inputs": [{**SEED, "parameters": {"binary_data_size": 8}}]}): "ends before its 8 bytes do",
}


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_request_is_said_in_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        protocol.read(text.encode("latin1"))
    assert BROKEN[text] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_lengths_of_headers_and_bytes_too_many_are_refused() -> None:
    body = json.dumps({"inputs": [SEED]}).encode()
    for length in ("-1", "x", "9" * 5000, str(len(body) + 1)):
        with pytest.raises(InputError, match="is no length within"):
            protocol.read(body, length)
    with pytest.raises(InputError, match="3 bytes follow the request that no input claims"):
        protocol.read(body + b"abc", str(len(body)))


KEYS = ["name", "datatype", "shape", "data", "parameters", "inputs", "outputs", "binary_data_size"]
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["seed", "INT64", "FP32", "BOOL", ""])
)
lists = st.lists(leaves | st.lists(leaves, max_size=3), max_size=3)
tensors = st.dictionaries(
    st.sampled_from(KEYS), leaves | lists | st.dictionaries(st.sampled_from(KEYS), leaves, max_size=2), max_size=6
)
json_values = leaves | st.dictionaries(
    st.sampled_from(KEYS), leaves | tensors | st.lists(tensors, max_size=3), max_size=4
)


@given(st.binary(max_size=60) | json_values.map(lambda v: json.dumps(v).encode()), st.none() | st.integers().map(str))
def test_anything_is_a_request_or_refused(body: bytes, length: str | None) -> None:
    with contextlib.suppress(InputError):  # any other error fails
        assert asking.read(CONDITIONAL, protocol.read(body, length).inputs, 10).n <= 10


def test_outputs_that_there_are_not_and_text_too_long_are_refused() -> None:
    request = protocol.Request("", {}, {"mist": True}, False)
    with pytest.raises(InputError, match="outputs: 'mist' is none of hist"):
        protocol.check_size(request, {"hist": 1})
    whole = protocol.Request("", {}, None, False)
    protocol.check_size(whole, {"hist": protocol.MOST_JSON})
    with pytest.raises(InputError, match="numbers as JSON, at most 262144; ask for bytes"):
        protocol.check_size(whole, {"hist": protocol.MOST_JSON + 1})
    protocol.check_size(protocol.Request("", {}, None, True), {"hist": 10**9})


# --- what is asked for -------------------------------------------------------------------------------


def inputs(**values: Any) -> dict[str, np.ndarray]:
    return {name: np.atleast_1d(np.asarray(value)) for name, value in values.items()}


@pytest.mark.parametrize(
    ("given_inputs", "seeds", "indices"),
    [
        (inputs(seed=5), [5], [0]),
        (inputs(seed=5, events=3), [5, 5, 5], [0, 1, 2]),
        (inputs(seed=5, index=7, events=3), [5, 5, 5], [7, 8, 9]),
        (inputs(seed=[5, 6]), [5, 6], [0, 0]),
        (inputs(seed=[5, 6], index=2), [5, 6], [2, 2]),
        (inputs(seed=5, index=[4, 2]), [5, 5], [4, 2]),
        (inputs(seed=[5, 6], index=[4, 2]), [5, 6], [4, 2]),
    ],
)
def test_events_are_named_by_seed_and_index(
    given_inputs: dict[str, np.ndarray], seeds: list[int], indices: list[int]
) -> None:
    asked = asking.read(RPV, given_inputs, 10)
    assert (asked.seeds.tolist(), asked.indices.tolist(), asked.conditions) == (seeds, indices, {})


def test_conditions_are_for_all_events_or_for_each() -> None:
    asked = asking.read(CONDITIONAL, inputs(seed=1, mGlu=[1500.0, 1600.0], mNeu=850.0), 10)
    assert asked.n == 2
    assert {name: values.reshape(-1).tolist() for name, values in asked.conditions.items()} == {
        "mGlu": [1500.0, 1600.0],
        "mNeu": [850.0, 850.0],
    }
    same = asking.read(CONDITIONAL, inputs(seed=1, events=3, mGlu=1500, mNeu=850.0), 10)
    assert same.conditions["mGlu"].reshape(-1).tolist() == [1500.0] * 3
    part = same.part(1, 2)
    assert (part.n, part.indices.tolist(), len(part.conditions["mNeu"])) == (2, [1, 2], 2)


@pytest.mark.parametrize(
    ("problem", "given_inputs", "text"),
    [
        (RPV, inputs(events=3), "'seed' is missing"),
        (RPV, inputs(seed=1, events=0), "'events' is 0"),
        (RPV, inputs(seed=1, events=11), "11 events; this service makes at most 10"),
        (RPV, inputs(seed=1, events=2**62), "at most 10"),
        (RPV, inputs(seed=-1), "'seed' has numbers below 0"),
        (RPV, inputs(seed=1.0), "'seed' has whole numbers, INT64"),
        (RPV, inputs(seed=1, index=2**41), "'index' has numbers below 0 or above"),
        (RPV, inputs(seed=[1, 2], events=3), "'seed' is for 2 events, another input for 3"),
        (RPV, inputs(seed=1, events=[1, 2]), "'events' is one number"),
        (RPV, inputs(seed=np.ones((2, 2), np.int64)), "'seed' has shape (2, 2)"),
        (RPV, inputs(seed=np.ones(0, np.int64)), "'seed' has shape (0,)"),
        (RPV, inputs(seed=1, mGlu=1500.0), "takes no conditions"),
        (CONDITIONAL, inputs(seed=1), "mGlu, mNeu is missing"),
        (CONDITIONAL, inputs(seed=1, mGlu=1500.0, mNeu=850.0, m=1.0), "'m' is not a condition"),
        (CONDITIONAL, inputs(seed=1, mGlu=[1500.0] * 2, mNeu=[850.0] * 3), "events, another input for 3"),
        (CONDITIONAL, inputs(seed=1, mGlu=np.nan, mNeu=850.0), "give finite numbers"),
        (CONDITIONAL, inputs(seed=1, mGlu=500.0, mNeu=850.0), "850 GeV: must be at least 4 GeV below"),
    ],
)
def test_what_no_event_can_have_is_refused(problem: Any, given_inputs: dict[str, np.ndarray], text: str) -> None:
    with pytest.raises(InputError) as caught:
        asking.read(problem, given_inputs, 10)
    assert text in str(caught.value)
    assert str(caught.value).startswith("inputs: ")


def test_the_metadata_have_units_and_shapes() -> None:
    about = asking.metadata("m", "40", CONDITIONAL)
    assert [entry["name"] for entry in about["inputs"]] == ["seed", "index", "events", "mGlu", "mNeu"]
    assert about["inputs"][3] == {"name": "mGlu", "datatype": "FP32", "shape": [-1], "parameters": {"unit": "GeV"}}
    assert about["outputs"] == [
        {"name": "hist", "datatype": "FP32", "shape": [-1, 64, 64], "parameters": {"unit": "MeV"}}
    ]


# --- merging -----------------------------------------------------------------------------------------


def asked(n: int, seed: int = 1) -> Asked:
    return Asked(np.full(n, seed), np.arange(n), {})


def events(batch: Any) -> dict[str, np.ndarray]:
    """Events that tell who they are."""
    return {"who": np.stack([batch.asked.seeds, batch.asked.indices], axis=1)}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_full_batch_goes_at_once_and_the_rest_after_the_latency() -> None:
    clock = Clock()
    merger = Merger([8], 0.5, clock)
    jobs = [merger.add(0, asked(3, seed)) for seed in (1, 2, 3)]
    first = merger.next()
    assert first is not None
    assert sum(part.n for part in first.parts) == 8
    first.deliver(events(first))
    clock.now += 0.5
    second = merger.next()
    assert second is not None
    assert sum(part.n for part in second.parts) == 1
    second.deliver(events(second))
    for seed, job in enumerate(jobs, 1):
        assert job.future.result(0)["who"].tolist() == [[seed, i] for i in range(3)]


def test_a_large_request_leaves_room_for_small_ones() -> None:
    merger = Merger([8], 0.0)
    large, small = merger.add(0, asked(100)), merger.add(0, asked(2, 9))
    batch = merger.next()
    assert batch is not None
    batch.deliver(events(batch))
    assert sum(part.n for part in batch.parts) == 8
    assert small.future.done()
    assert not large.future.done()
    merger.close()
    while (batch := merger.next()) is not None:
        batch.deliver(events(batch))
    assert large.future.result(0)["who"][:, 1].tolist() == list(range(100))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30)), max_size=12), st.integers(1, 9))
def test_everybody_gets_their_own_events(requests: list[tuple[int, int]], size: int) -> None:
    merger = Merger([size] * 3, 0.0)
    jobs = [merger.add(model, asked(n, seed)) for seed, (model, n) in enumerate(requests)]
    merger.close()
    made = []
    while (batch := merger.next()) is not None:
        assert 0 < sum(part.n for part in batch.parts) <= size
        made.append(batch)
    for batch in reversed(made):  # workers need not end in order
        batch.deliver(events(batch))
    for seed, (job, (_, n)) in enumerate(zip(jobs, requests, strict=True)):
        assert job.future.result(0)["who"].tolist() == [[seed, i] for i in range(n)]
    assert len(made) >= sum(math.ceil(n / size) for n in [sum(n for m, n in requests if m == k) for k in range(3)])


def test_nothing_is_made_for_whoever_has_left() -> None:
    merger = Merger([4], 0.0)
    gone, stays = merger.add(0, asked(50)), merger.add(0, asked(1, 2))
    first = merger.next()
    assert first is not None
    gone.future.cancel()
    first.deliver(events(first))  # some of it was under way
    assert stays.future.result(0)["who"].tolist() == [[2, 0]]
    merger.close()
    assert merger.next() is None
    with pytest.raises(Refusal, match="the service stops") as caught:
        merger.add(0, asked(1))
    assert caught.value.status == 503


def test_a_batch_that_fails_says_why_to_its_requests_and_no_others() -> None:
    merger = Merger([4, 4], 0.0)
    ours, others = merger.add(0, asked(2)), merger.add(1, asked(2))
    batch = merger.next()
    assert batch is not None
    batch.fail(Refusal(503, "the worker was killed"))
    failed = ours if batch.model == 0 else others
    with pytest.raises(Refusal, match="the worker was killed"):
        failed.future.result(0)
    rest = merger.next()
    assert rest is not None
    rest.deliver(events(rest))
    assert (others if failed is ours else ours).future.result(0)["who"].shape == (2, 2)


def test_generators_take_turns() -> None:
    merger = Merger([2, 2], 0.0)
    for model in (0, 1):
        merger.add(model, asked(4))
    merger.close()
    batches = iter(merger.next, None)
    assert [batch.model for batch in batches if batch is not None] == [0, 1, 0, 1]


def test_a_worker_that_has_ended_takes_no_batch() -> None:
    merger = Merger([2], 60.0)
    alive = threading.Event()
    alive.set()
    with ThreadPoolExecutor(1) as workers:
        waiting = workers.submit(merger.next, alive.is_set)
        alive.clear()
        assert waiting.result(10) is None
    merger.add(0, asked(2))
    assert merger.next(alive.is_set) is None
    assert merger.next() is not None


def test_what_is_left_of_a_request_is_for_the_other_workers_that_wait() -> None:
    merger = Merger([2], 60.0)
    with ThreadPoolExecutor(2) as workers:
        waiting = [workers.submit(merger.next) for _ in range(2)]
        time.sleep(0.05)  # both wait
        merger.add(0, asked(4))
        batches = [batch.result(10) for batch in waiting]
    assert sorted(part.first for batch in batches if batch is not None for part in batch.parts) == [0, 2]


def test_a_job_takes_its_events_in_any_order() -> None:
    job = Job(asked(3), 0.0)
    job.deliver(2, {"a": np.array([2.0])})
    job.deliver(0, {"a": np.array([0.0, 1.0])})
    assert job.future.result(0)["a"].tolist() == [0.0, 1.0, 2.0]


class FakeProcess:
    """A worker that ends before it is ready, or has the checkpoints of `steps` and ends at its first batch."""

    pid = 0

    def __init__(self, steps: Iterator[int]) -> None:
        self.steps = steps

    def ready(self) -> list[dict[str, Any]]:
        step = next(self.steps)
        if not step:
            raise workers.WorkerEnded("has ended (exit code 3)")
        return [{"step": step}]

    def is_alive(self) -> bool:
        return True

    def make(self, batch: Any, timeout_s: float) -> Any:
        raise workers.WorkerEnded("was killed by SIGKILL")

    def end(self) -> None:
        pass


@pytest.mark.parametrize(
    ("steps", "reason", "restarts"),
    [
        ([0, 0, 0], "a worker has ended (exit code 3) before it was ready, 3 times in a row", 2),
        ([40, 0, 0, 41], "now of step 41, the service began with that of step 40; start it anew", 3),
    ],
)
def test_workers_that_do_not_start_or_have_other_weights_end_the_service(
    monkeypatch: pytest.MonkeyPatch, steps: list[int], reason: str, restarts: int
) -> None:
    left = iter(steps)
    monkeypatch.setattr(workers, "Process", lambda *_: FakeProcess(left))
    merger = Merger([2], 0.0)
    job = merger.add(0, asked(2))
    notes: list[str] = []
    told = workers.Workers(
        workers.Plan([{"run": "RUN", "checkpoint": "best"}], [["who"]], 1, 1.0), merger, notes.append
    )
    told.start()
    told.join()
    assert reason in str(told.failure)
    assert (told.ready, told.restarts, len(notes)) == (0, restarts, restarts)
    with pytest.raises(
        Refusal, match="SIGKILL while it made these" if steps[0] else "the service has failed: a worker"
    ):
        job.future.result(0)
    with pytest.raises(Refusal):
        merger.add(0, asked(1))


def test_a_token_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    where = running.Where(host="0.0.0.0", token_file=tmp_path / "token")
    token = running.read_token(where)
    assert token is not None
    assert len(token) >= 32
    assert (tmp_path / "token").stat().st_mode & 0o077 == 0
    assert running.read_token(where) == token
    (tmp_path / "token").write_text("short\n")
    with pytest.raises(InputError, match="one word of at least 16 characters"):
        running.read_token(where)
    with pytest.raises(InputError, match="no token can be read"):
        running.read_token(running.Where(token_file=tmp_path / "none" / "token"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("10.0.0.1", False), ("node", False)],
)
def test_what_other_machines_reach(host: str, expected: bool) -> None:
    assert running.is_local(host) == expected


def test_stretches_of_seeds_and_numbers() -> None:
    assert rng.runs(np.array([1, 1, 1, 2, 2, 1]), np.array([4, 5, 7, 8, 9, 10])) == [
        (1, 4, 2), (1, 7, 1), (2, 8, 2), (1, 10, 1),
    ]  # fmt: skip
    assert rng.runs(np.array([], np.int64), np.array([], np.int64)) == []
