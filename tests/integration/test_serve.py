"""A service that runs, with TensorFlow in a worker: the events of `hpcgan generate`, however they are asked for."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import needs
import numpy as np
import psutil
import pytest
import tiny
import untrained
from stopping import stop_process

tf = needs.tensorflow()
needs.found("uvicorn", "starlette", "prometheus_client", "grpc")

import grpc  # noqa: E402

import hpcgan  # noqa: E402
from hpcgan import config  # noqa: E402
from hpcgan.commands.cli import main  # noqa: E402
from hpcgan.errors import HpcganError  # noqa: E402
from hpcgan.serve import rpc  # noqa: E402
from hpcgan.serve.client import Client, ServiceError  # noqa: E402
from hpcgan.serve.local import LocalService  # noqa: E402

TOKEN = "a-token-of-enough-characters"
MASSES = {"mGlu": [1500.0, 1600.0, 1700.0], "mNeu": 850.0}


def wait_for(what: Callable[[], Any], seconds: float = 120.0) -> Any:
    """What it gives as soon as it gives something."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return found


class Served:
    """A service in a process of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.token_file, address = folder / "token", folder / "address.json"
        self.token_file.write_text(TOKEN + "\n")
        self.token_file.chmod(0o600)
        command = [sys.executable, "-m", "hpcgan", "serve", *words, "--port", "0", "--grpc-port", "0"]
        command += [f"--token-file={self.token_file}", f"--address-file={address}"]
        self.log = folder / "log"
        with open(self.log, "w") as log:
            env = {**os.environ, "HPCGAN_THREADS": "1"}
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True, env=env)
        self.address_file = address
        wait_for(lambda: address.exists() or self.process.poll() is not None)
        assert address.exists(), self.log.read_text()
        where = json.loads(address.read_text())
        self.url, self.grpc = where["url"], where["grpc"]
        self.port = int(self.url.rpartition(":")[2])
        self.clients: list[Client] = []

    def client(self) -> Client:
        self.clients.append(Client(self.url, TOKEN))
        return self.clients[-1]

    def ask(self, path: str, body: bytes | None = None, token: str | None = TOKEN, **headers: str) -> tuple[int, Any]:
        """Status and content of a response."""
        if token:
            headers["Authorization"] = f"Bearer {token}"
        call = urllib.request.Request(self.url + path, body, headers)
        try:
            with urllib.request.urlopen(call, timeout=60) as answer:
                content, status = answer.read(), answer.status
        except urllib.error.HTTPError as error:
            with error:
                content, status = error.read(), error.code
        return status, content.decode() if path == "/metrics" else json.loads(content)

    def number(self, name: str) -> float:
        """One of the metrics."""
        _, text = self.ask("/metrics")
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    def end(self) -> None:
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two runs: of images for given masses, and of images made with the statistics of batches."""
    folder = tmp_path_factory.mktemp("runs")
    raw = {
        "problem": "conditional",
        "data": {"path": str(folder / "data"), "augment": ["phi_rotation"]},
        "model": {"filters": 2, "latent_dim": 3},
        "training": {"batch_size": 8, "average_half_life": 50, "augment_generated": True},
    }
    untrained.make_run(folder / "masses", config.load(raw))
    untrained.make_run(folder / "batches", tiny.config(folder / "data", "scoring.statistics=batch"))
    return {name: folder / name for name in ("masses", "batches")}


@pytest.fixture(scope="module")
def served(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    limits = ["--max-events", "100", "--max-held", "150", "--latency", "0.05"]
    service = Served(tmp_path_factory.mktemp("served"), str(runs["masses"]), f"other={runs['batches']}", *limits)
    yield service
    service.end()


def same_events(made: np.ndarray, expected: np.ndarray) -> None:
    """Check that they are, to the rounding of float32; a network rounds some rows of a batch in another way."""
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1.0)


@pytest.mark.filterwarnings("ignore:no telling whether this is an extrapolation:UserWarning")  # there are no data
def test_events_are_those_of_generate_whatever_they_are_merged_with(runs: dict[str, Path], served: Served) -> None:
    expected = {
        seed: hpcgan.generate(
            runs["masses"], 21, seed=seed, conditions=[{"mGlu": m, "mNeu": 850.0} for m in MASSES["mGlu"]]
        )
        for seed in range(4)
    }

    def whole(seed: int) -> np.ndarray:
        made = served.client().generate("masses", seed, mGlu=MASSES["mGlu"] * 7, mNeu=850.0)
        return made["hist"]

    def single(number: int) -> np.ndarray:
        seed, index = number % 4, number % 21
        made = served.client().generate("masses", seed, 1, index, mGlu=MASSES["mGlu"][index % 3], mNeu=850.0)
        return made["hist"][0]

    with ThreadPoolExecutor(8) as threads:
        singles, wholes = threads.map(single, range(24)), threads.map(whole, range(4))
        merged, events = list(wholes), list(singles)
    for seed, made in enumerate(merged):
        same_events(made, expected[seed]["hist"])
    for number, event in enumerate(events):  # in whatever batch
        same_events(event, merged[number % 4][number % 21])
    for seed, index in ((0, 3), (1, 0)):  # of the same masses
        with pytest.raises(AssertionError):
            same_events(merged[seed][index], merged[0][0])
    own = served.client().generate(
        "masses", [3, 2], index=[20, 19], mGlu=[MASSES["mGlu"][2], MASSES["mGlu"][1]], mNeu=850.0
    )
    same_events(own["hist"], np.stack([merged[3][20], merged[2][19]]))


def test_batch_statistics_give_way_to_moving_ones(served: Served) -> None:
    """An event alone is what it is among others; the command has said that `generate` makes others."""
    client = served.client()
    among = client.generate("other", seed=5, events=9)["hist"]
    same_events(client.generate("other", seed=5, index=7)["hist"][0], among[7])
    assert "scoring.statistics=batch" in served.log.read_text()


def test_the_protocol_says_what_there_is(served: Served) -> None:
    assert served.ask("/v2/health/live", token=None) == (200, {"live": True})
    assert served.ask("/v2/health/ready", token=None) == (200, {"ready": True})
    status, about = served.ask("/v2")
    assert (status, about["extensions"], about["models"]) == (200, ["binary_tensor_data"], ["masses", "other"])
    status, about = served.ask("/v2/models/masses/versions/40")
    assert [tensor["name"] for tensor in about["inputs"]] == ["seed", "index", "events", "mGlu", "mNeu"]
    assert served.ask("/v2/models/masses/ready") == (200, {"name": "masses", "ready": True})
    head = {"name": "seed", "datatype": "INT64", "shape": [1], "data": [5]}
    status, answer = served.ask("/v2/models/other/infer", json.dumps({"id": "mine", "inputs": [head]}).encode())
    (tensor,) = answer.pop("outputs")
    assert (status, answer) == (200, {"model_name": "other", "model_version": "40", "id": "mine"})
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("hist", "FP32", [1, 64, 64])
    np.testing.assert_array_equal(
        np.array(tensor["data"], np.float32), served.client().generate("other", 5)["hist"].reshape(-1)
    )


def test_grpc_gives_the_same(served: Served) -> None:
    classes = rpc.messages()
    metadata = (("authorization", f"Bearer {TOKEN}"),)

    def call(name: str, request: Any, **options: Any) -> Any:
        method = channel.unary_unary(
            f"/{rpc.NAME}/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=classes[f"{name}Response"].FromString,
        )
        return method(request, **{"metadata": metadata, "timeout": 60, **options})

    tensors = [
        {"name": "seed", "datatype": "INT64", "shape": [1], "contents": {"int64_contents": [5]}},
        {"name": "mGlu", "datatype": "FP32", "shape": [2], "contents": {"fp32_contents": [1500.0, 1600.0]}},
        {"name": "mNeu", "datatype": "FP32", "shape": [1], "contents": {"fp32_contents": [850.0]}},
    ]
    with grpc.insecure_channel(served.grpc) as channel:
        assert call("ServerReady", classes["ServerReadyRequest"](), metadata=()).ready
        about = call("ModelMetadata", classes["ModelMetadataRequest"](name="masses"))
        assert [list(tensor.shape) for tensor in about.outputs] == [[-1, 64, 64]]
        made = call("ModelInfer", classes["ModelInferRequest"](model_name="masses", inputs=tensors, id="mine"))
        (raw,), (tensor,) = made.raw_output_contents, made.outputs
        expected = served.client().generate("masses", 5, mGlu=[1500.0, 1600.0], mNeu=850.0)["hist"]
        np.testing.assert_array_equal(np.frombuffer(raw, "<f4").reshape(tensor.shape), expected)
        assert (made.id, made.model_version) == ("mine", "40")
        for request, options, code, text in (
            ({"model_name": "m"}, {}, "NOT_FOUND", "there are masses, other"),
            ({"model_name": "masses", "inputs": tensors[:1]}, {}, "INVALID_ARGUMENT", "mGlu, mNeu is missing"),
            ({"model_name": "masses", "inputs": tensors, "raw_input_contents": [b""]}, {}, "INVALID_ARGUMENT", "are 3"),
            ({"model_name": "masses", "inputs": tensors}, {"metadata": ()}, "UNAUTHENTICATED", "the service's token"),
        ):  # fmt: skip
            with pytest.raises(grpc.RpcError) as caught:
                call("ModelInfer", classes["ModelInferRequest"](**request), **options)
            assert (caught.value.code().name, text in caught.value.details()) == (code, True), caught.value.details()


def test_what_cannot_be_is_refused_in_one_line(served: Served) -> None:
    client = served.client()
    for arguments, status, text in (
        ({"model": "mass", "seed": 1}, 404, "there is no model 'mass'; there are masses, other"),
        ({"model": "masses", "seed": 1, "mGlu": 500.0, "mNeu": 850.0}, 400, "850 GeV: must be at least 4 GeV below"),
        ({"model": "other", "seed": 1, "events": 101}, 400, "at most 100"),
    ):
        with pytest.raises(ServiceError) as caught:
            client.generate(**arguments)  # type: ignore[arg-type]
        assert caught.value.status == status
        assert text in str(caught.value)
    infer = "/v2/models/other/infer"
    assert served.ask(infer, os.urandom(1000))[0] == 400
    assert served.ask(infer, b"{}") == (
        400,
        {"error": "inputs: 'seed' is missing: the same seed makes the same events"},
    )
    assert served.ask(infer)[0] == 405
    assert served.ask("/v2/nothing")[0] == 404
    assert served.ask("/v2/models/other/versions/41")[0] == 404
    status, answer = served.ask(infer, bytes((8 << 20) + 1))
    assert (status, "more than 8388608 bytes" in answer["error"]) == (413, True)
    for token in (None, "x", TOKEN + "x"):
        assert served.ask("/v2", token=token)[0] == 401
    assert client.generate("other", 1)["hist"].shape == (1, 64, 64)  # it goes on


def test_more_than_is_held_is_refused_at_once_and_who_leaves_frees_the_place(served: Served) -> None:
    body = json.dumps({"inputs": [{"name": "seed", "datatype": "INT64", "shape": [1], "data": [1]},
                                  {"name": "events", "datatype": "INT64", "shape": [1], "data": [100]}],
                       "parameters": {"binary_data_output": True}})  # fmt: skip
    stop_process(served_worker(served))  # so that nothing is finished meanwhile
    try:
        left = http.client.HTTPConnection("127.0.0.1", served.port)
        left.request("POST", "/v2/models/other/infer", body, {"Authorization": f"Bearer {TOKEN}"})
        wait_for(lambda: served.number("hpcgan_held_events") == 100)
        with pytest.raises(ServiceError, match="100 events are asked for already, at most 150") as caught:
            served.client().generate("other", 1, 51)
        assert caught.value.status == 503
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", served.port)) as other:
            other.request("POST", "/v2/models/other/infer", body, {"Authorization": f"Bearer {TOKEN}"})
            assert other.getresponse().headers["Retry-After"] == "1"
        left.close()
        wait_for(lambda: served.number("hpcgan_held_events") == 0)
    finally:
        os.kill(served_worker(served), signal.SIGCONT)
    before = served.number("hpcgan_events_total")
    assert len(served.client().generate("other", 1, 51)["hist"]) == 51
    assert served.number('hpcgan_requests_total{model="other",status="499"') == 1
    assert served.number('hpcgan_requests_total{model="other",status="503"') == 2
    assert served.number("hpcgan_events_total") == before + 51


def served_worker(served: Served) -> int:
    """The process of the worker."""
    text = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text()
    found = [int(pid) for pid in text.split()] + [
        int(pid)
        for task in Path(f"/proc/{served.process.pid}/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]
    return next(pid for pid in found if b"hpcgan.serve.worker" in Path(f"/proc/{pid}/cmdline").read_bytes())


def test_half_a_request_harms_nobody(served: Served) -> None:
    lines = ["POST /v2/models/other/infer HTTP/1.1", "Host: a", f"Authorization: Bearer {TOKEN}", "Content-Length: 90"]
    head = "\r\n".join([*lines, "", ""]).encode()
    for sent in (b"GET", head, head + b"{", os.urandom(300) + b"\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.sendall(sent)
    client = served.client()
    assert client.generate("other", 1)["hist"].shape == (1, 64, 64)
    client._connection.sock.shutdown(socket.SHUT_RDWR)  # as of a connection that the service has closed
    assert client.generate("other", 1)["hist"].shape == (1, 64, 64)
    assert served.number("hpcgan_held_events") == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["{run}", "--host", "0.0.0.0"], "--host 0.0.0.0: other machines can reach it there; give --token-file FILE"),
        (["{run}", "{run}"], "there is a generator 'masses' already"),
        (["a b={run}"], "'a b' is no name for a generator"),
        (["{run}", "--max-held", "10"], "--max-held 10: is below --max-events 4096"),
        (["{run}", "--port", "{port}"], "127.0.0.1 cannot be listened on (Address already in use)"),
        (["{run}", "--token-file", "{open}"], "others can read the token; chmod 600 it"),
        (["pretrained:none"], "none"),
    ],
)
def test_what_cannot_be_served_is_said_at_once(
    words: list[str], text: str, runs: dict[str, Path], served: Served, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "open").write_text(TOKEN)
    (tmp_path / "open").chmod(0o644)
    values = {"run": runs["masses"], "port": served.port, "open": tmp_path / "open"}
    assert main(["serve", *(word.format(**values) for word in words)]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1


def test_a_service_of_ones_own_says_why_it_does_not_start() -> None:
    with pytest.raises(HpcganError, match=r"^the service ended: pretrained:none: there is no such generator"):
        LocalService("pretrained:none")


def test_a_service_of_ones_own_ends_with_who_started_it(runs: dict[str, Path]) -> None:
    program = (
        "import sys, time\nfrom hpcgan.serve.local import LocalService\n"
        "service = LocalService(sys.argv[1])\nprint(service.pid, service.url, flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(runs["masses"])], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pid, url = starter.stdout.readline().decode().split()
        with contextlib.closing(Client(url)) as stranger, pytest.raises(ServiceError, match=r"^401: "):
            stranger.generate("masses", seed=1, mGlu=1500.0, mNeu=850.0)
        starter.kill()
    wait_for(lambda: not psutil.pid_exists(int(pid)))


def test_a_signal_ends_it_when_what_was_accepted_is_done(served: Served) -> None:
    """The last test of this service."""
    stop_process(served_worker(served))
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(served.client().generate("other", 1, 100)))
    asking.start()
    with grpc.insecure_channel(served.grpc) as channel:
        classes = rpc.messages()
        infer = channel.unary_unary(
            f"/{rpc.NAME}/ModelInfer",
            request_serializer=classes["ModelInferRequest"].SerializeToString,
            response_deserializer=classes["ModelInferResponse"].FromString,
        )
        seeds = {"name": "seed", "datatype": "INT64", "shape": [20], "contents": {"int64_contents": range(20)}}
        also = infer.future(
            classes["ModelInferRequest"](model_name="other", inputs=[seeds]),
            metadata=(("authorization", f"Bearer {TOKEN}"),),
            timeout=60,
        )
        wait_for(lambda: served.number("hpcgan_held_events") == 120)
        worker = served_worker(served)
        served.process.send_signal(signal.SIGTERM)
        wait_for(lambda: refused(served.port))
        os.kill(worker, signal.SIGCONT)
        asking.join(60)
        assert answers[0]["hist"].shape == (100, 64, 64)
        assert list(also.result().outputs[0].shape) == [20, 64, 64]
    assert served.process.wait(60) == 0, served.log.read_text()
    assert not served.address_file.exists()
    assert "error" not in served.log.read_text()


def refused(port: int) -> bool:
    """Whether nobody listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return False
    return True


@pytest.mark.faults
def test_a_worker_that_is_killed_is_replaced_and_its_requests_are_told(runs: dict[str, Path], tmp_path: Path) -> None:
    served = Served(tmp_path, str(runs["masses"]), f"other={runs['batches']}", "--timeout", "30")
    try:
        before = served.client().generate("other", 1, 4)["hist"]
        stop_process(served_worker(served))
        with ThreadPoolExecutor(1) as threads:
            failing = threads.submit(served.client().generate, "other", 1, 4)
            wait_for(lambda: served.number("hpcgan_held_events") == 4)
            time.sleep(0.2)  # into the worker
            os.kill(served_worker(served), signal.SIGKILL)
            with pytest.raises(ServiceError, match="was killed by SIGKILL while it made these events; ask again"):
                failing.result(30)
        np.testing.assert_array_equal(served.client().generate("other", 1, 4)["hist"], before)
        assert served.number("hpcgan_worker_restarts") == 1
        assert "a worker was killed by SIGKILL; another one is started" in served.log.read_text()
    finally:
        served.end()


@pytest.mark.faults
def test_a_worker_that_hangs_is_replaced(runs: dict[str, Path], tmp_path: Path) -> None:
    served = Served(tmp_path, f"other={runs['batches']}", "--timeout", "2")
    try:
        stop_process(served_worker(served))
        with pytest.raises(ServiceError) as caught:
            served.client().generate("other", 1, 4)
        assert caught.value.status in (503, 504)
        wait_for(lambda: served.ask("/v2/health/ready")[0] == 200 and served.number("hpcgan_worker_restarts") == 1)
        assert served.client().generate("other", 1, 4)["hist"].shape == (4, 64, 64)
    finally:
        served.end()


@pytest.mark.faults
def test_a_client_that_does_not_read_is_cut_off(runs: dict[str, Path], tmp_path: Path) -> None:
    served = Served(tmp_path, f"other={runs['batches']}", "--timeout", "6")
    try:
        body = json.dumps({"inputs": [{"name": "seed", "datatype": "INT64", "shape": [1], "data": [1]},
                                      {"name": "events", "datatype": "INT64", "shape": [1], "data": [1000]}],
                           "parameters": {"binary_data_output": True}})  # fmt: skip
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", served.port))
            lines = ["POST /v2/models/other/infer HTTP/1.1", "Host: a", f"Authorization: Bearer {TOKEN}"]
            connection.sendall("\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode())
            wait_for(lambda: served.number("hpcgan_held_events") == 1000, 5)
            wait_for(lambda: served.number("hpcgan_held_events") == 0, 20)
            assert served.number('hpcgan_requests_total{model="other",status="504"') == 1
            read = 0
            with contextlib.suppress(ConnectionError):
                while part := connection.recv(1 << 20):
                    read += len(part)
        assert read < 1000 * 64 * 64 * 4
        assert "Traceback" not in served.log.read_text()
        assert served.client().generate("other", 1)["hist"].shape == (1, 64, 64)
    finally:
        served.end()


@pytest.mark.faults
def test_a_ctrl_c_after_the_signal_ends_it_at_once(runs: dict[str, Path], tmp_path: Path) -> None:
    served = Served(tmp_path, f"other={runs['batches']}")
    worker = served_worker(served)
    try:
        stop_process(worker)
        with ThreadPoolExecutor(1) as threads:
            failing = threads.submit(served.client().generate, "other", 1, 100)
            wait_for(lambda: served.number("hpcgan_held_events") == 100)
            served.process.send_signal(signal.SIGTERM)
            wait_for(lambda: refused(served.port))
            time.sleep(0.5)
            assert served.process.poll() is None
            served.process.send_signal(signal.SIGINT)
            served.process.wait(20)
            with pytest.raises((OSError, ServiceError)):
                failing.result(30)
    finally:
        os.kill(worker, signal.SIGKILL)
        served.end()


@pytest.mark.faults
def test_a_worker_that_cannot_be_replaced_ends_the_service(runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["batches"], run)
    served = Served(tmp_path, str(run))
    try:
        before = served_worker(served)
        os.kill(before, signal.SIGKILL)  # with nothing to do: no request is lost
        wait_for(lambda: served.number("hpcgan_worker_restarts") == 1 and served.ask("/v2/health/ready")[0] == 200)
        assert served.client().generate("run", 1)["hist"].shape == (1, 64, 64)
        shutil.rmtree(run / "checkpoints")
        os.kill(served_worker(served), signal.SIGKILL)
        assert served.process.wait(60) == 1, served.log.read_text()
        assert served.log.read_text().splitlines()[-1].startswith(f"hpcgan: error: {run}")
        assert not served.address_file.exists()
    finally:
        served.end()
