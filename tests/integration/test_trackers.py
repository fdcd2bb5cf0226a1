"""Real trackers: a server of MLflow on loopback, and the files of Weights & Biases.

Their packages need other versions than the rest: HPCGAN_TRACKING_PYTHON names a Python that has mlflow and wandb.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from trackers import BATCH, WrittenRun

PYTHON = os.environ.get("HPCGAN_TRACKING_PYTHON", sys.executable)
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.faults  # a server takes ten seconds to start


def has(package):
    test = f"import importlib.util, sys; sys.exit(importlib.util.find_spec('{package}') is None)"
    return subprocess.run([PYTHON, "-c", test], check=False).returncode == 0


needs_mlflow = pytest.mark.skipif(not has("mlflow"), reason=f"{PYTHON} has no mlflow: see HPCGAN_TRACKING_PYTHON")
needs_wandb = pytest.mark.skipif(not has("wandb"), reason=f"{PYTHON} has no wandb: see HPCGAN_TRACKING_PYTHON")


class Server:
    """MLflow's, with a database of its own."""

    def __init__(self, folder, port=0):
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))
            port = free.getsockname()[1]
        self.port, self.uri = port, f"http://127.0.0.1:{port}"
        self._log = open(folder / "server.log", "ab")  # noqa: SIM115 - as long as the server
        self._process = subprocess.Popen(
            [PYTHON, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
             "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/files"],
            stdout=self._log, stderr=self._log, cwd=folder, start_new_session=True,
        )  # fmt: skip
        looks = 2000  # not seconds, as the machine may be stopped meanwhile
        while not self._answers():
            looks -= 1
            if looks == 0 or self._process.poll() is not None:
                self.stop()
                pytest.fail((folder / "server.log").read_text())
            time.sleep(0.1)

    def _answers(self):
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=10).status == 200
        except OSError:
            return False

    def ask(self, path, **body):
        request = urllib.request.Request(f"{self.uri}/api/2.0/mlflow/{path}")
        if body:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def runs(self, project):
        experiment = self.ask(f"experiments/get-by-name?experiment_name={project}")["experiment"]["experiment_id"]
        return self.ask("runs/search", experiment_ids=[experiment]).get("runs", [])

    def history(self, run, curve):
        path = f"metrics/get-history?run_id={run['info']['run_id']}&metric_key={curve}"
        return [(int(m["step"]), m["value"], int(m["timestamp"])) for m in self.ask(path)["metrics"]]

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()
        self._log.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = Server(tmp_path_factory.mktemp("mlflow"))
    yield started
    started.stop()


def track(run, *options):
    command = [sys.executable, "-m", "hpcgan", "track", str(run), "--python", PYTHON, *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def three_requeues(run, after):
    run.attempt(0, [10, 20, 30], checkpoints=[20])  # killed: step 30 is done again
    after()
    run.attempt(20, [30, 40], checkpoints=[40], end="interrupted")
    after()
    run.attempt(40, [50, 60], checkpoints=[50], end="failed")
    after()
    run.attempt(50, [60, 70], checkpoints=[70], end="done")
    after()
    return [(10, 1.01), (20, 1.02), (30, 2.03), (40, 2.04), (50, 3.05), (60, 4.06), (70, 4.07)]


@needs_mlflow
def test_three_requeues_are_one_run_of_mlflow(server, tmp_path):
    run = WrittenRun(tmp_path)
    run.directory.samples.mkdir()
    (run.directory.samples / "epoch-0001.h5").write_bytes(b"events")
    path = run.directory.path

    def after():
        done = track(path, "--to", "mlflow", "--uri", server.uri, "--project", "requeues")
        assert done.returncode == 0, done.stderr

    curve = three_requeues(run, after)
    (tracked,) = server.runs("requeues")
    history = server.history(tracked, "step/d")
    assert [(step // BATCH, value) for step, value, _ in history] == curve
    assert history[0][2] == 1002 * 1000  # when it was recorded, not when it was told
    assert tracked["info"]["status"] == "FINISHED"
    assert tracked["info"]["run_name"] == "run-1a2b"
    assert {p["key"]: p["value"] for p in tracked["data"]["params"]} == {"name": "run", "model.filters": "2"}
    tags = {tag["key"]: tag["value"] for tag in tracked["data"]["tags"]}
    assert (tags["hpcgan.attempt"], tags["hpcgan.host"]) == ("4", "node7")
    files = server.ask(f"artifacts/list?run_id={tracked['info']['run_id']}&path=samples")["files"]
    assert [(file["path"], int(file["file_size"])) for file in files] == [("samples/epoch-0001.h5", 6)]
    # A parameter that a later attempt changes, which MLflow itself refuses.
    run.directory.config_file.write_text("name: run\nmodel: {filters: 4}\n")
    after()
    tags = {tag["key"]: tag["value"] for tag in server.runs("requeues")[0]["data"]["tags"]}
    assert tags["now.model.filters"] == "4"
    # Deleted by somebody: made again.
    run.directory.config_file.write_text("name: run\nmodel: {filters: 2}\n")
    server.ask("runs/delete", run_id=tracked["info"]["run_id"])
    after()
    (again,) = server.runs("requeues")
    assert again["info"]["run_id"] != tracked["info"]["run_id"]
    assert [(step // BATCH, value) for step, value, _ in server.history(again, "step/d")] == curve
    # The first value again: no tag says otherwise.
    run.directory.config_file.write_text("name: run\nmodel: {filters: 4}\n")
    after()
    run.directory.config_file.write_text("name: run\nmodel: {filters: 2}\n")
    after()
    assert not [tag for tag in server.runs("requeues")[0]["data"]["tags"] if tag["key"].startswith("now.")]
    # With --anew, the last one is put aside.
    done = track(path, "--to", "mlflow", "--uri", server.uri, "--project", "requeues", "--anew")
    assert done.returncode == 0, done.stderr
    assert len(server.runs("requeues")) == 1


@needs_mlflow
def test_a_training_is_tracked_through_interruptions_and_a_server_that_is_away(tmp_path, capfd):
    pytest.importorskip("tensorflow")
    import tiny
    from one_rank import eagerly

    from hpcgan.errors import Interrupted
    from hpcgan.runs.records import Epoch, read

    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder)
    data = tiny.write_data(tmp_path / "data")
    tracking = ["tracking.to=mlflow", f"tracking.python={PYTHON}", "tracking.project=trainings", "tracking.wait_s=60"]
    settings = tiny.config(data, *tracking, f"tracking.uri={server.uri}")
    with eagerly():
        for step in (9, 9):
            with pytest.raises(Interrupted):
                tiny.train(settings, tmp_path / "run", tiny.StopAt(step))
        assert "warning" not in capfd.readouterr().err
        server.stop()
        run = tiny.train(settings, tmp_path / "run")
    warnings = [line for line in capfd.readouterr().err.splitlines() if "tracking" in line or "tracked" in line]
    assert len(warnings) == 2, warnings  # once in the training, and once at its end
    assert "'hpcgan track" in warnings[0]
    server = Server(folder, server.port)
    try:
        done = track(run.path)
        assert done.returncode == 0, done.stderr
        (tracked,) = server.runs("trainings")
        epochs = read(run.metrics_file, Epoch)
        assert [step for step, _, _ in server.history(tracked, "score/total")] == [epoch.samples for epoch in epochs]
        assert tracked["info"]["status"] == "FINISHED"
    finally:
        server.stop()


@needs_mlflow
def test_a_database_is_enough(tmp_path):
    run = WrittenRun(tmp_path)
    run.attempt(0, [10], checkpoints=[10], end="done")
    done = track(run.directory.path, "--to", "mlflow", "--uri", f"sqlite:///{tmp_path}/own.db")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"mlflow: 1 points of {run.directory.path} are tracked: sqlite:///{tmp_path}/own.db")
    assert list((tmp_path / "mlartifacts").glob("*/artifacts/config.yaml"))


#: The records of a file of Weights & Biases, which are those of a LevelDB log.
READER = """
import json, struct, sys
from wandb.proto import wandb_internal_pb2 as pb
data, at, whole = open(sys.argv[1], "rb").read(), 7, b""
while at + 7 <= len(data):
    if (left := 32768 - at % 32768) < 7:
        at += left
        continue
    _, size, kind = struct.unpack("<IHB", data[at:at + 7])
    if kind == 0:
        break
    whole, at = whole + data[at + 7:at + 7 + size], at + 7 + size
    if kind in (1, 4):
        record, whole = pb.Record.FromString(whole), b""
        what = record.WhichOneof("record_type")
        if what == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            print(json.dumps(["history", row]))
        elif what == "run":
            print(json.dumps(["run", record.run.run_id]))
        elif what == "config":
            print(json.dumps(["config", {i.key or "/".join(i.nested_key): i.value_json for i in record.config.update}]))
        elif what == "exit":
            print(json.dumps(["exit", record.exit.exit_code]))
"""


@needs_wandb
def test_three_requeues_are_one_run_of_wandb(tmp_path):
    run = WrittenRun(tmp_path)

    def after():
        done = track(run.directory.path, "--to", "wandb")
        assert (done.returncode, done.stderr) == (0, "")

    curve = three_requeues(run, after)
    after()  # nothing new: no folder
    folders = sorted((run.directory.path / "wandb").glob("offline-run-*"))
    assert len(folders) == 4
    names = [folder.name for folder in folders]
    (key,) = {name.rpartition("-")[2] for name in names}
    told = []
    for folder in folders:
        command = [PYTHON, "-c", READER, str(folder / f"run-{key}.wandb")]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        told.append([json.loads(line) for line in lines])
    rows = [row for lines in told for kind, row in lines if kind == "history"]
    assert [(row["samples"] // BATCH, row["step/d"]) for row in rows if "step/d" in row] == curve
    assert next(row for row in rows if "step/d" in row)["_timestamp"] == 1002  # when it was recorded
    assert {row for lines in told for kind, row in lines if kind == "run"} == {key}
    assert [row for lines in told for kind, row in lines if kind == "exit"] == [1, 0, 1, 0]
    config = folders[0] / "files" / "run-1a2b" / "config.yaml"
    assert config.read_text() == run.directory.config_file.read_text()
    assert not config.is_symlink()  # nor would it be read through a link that a moved run has broken
    done = track(run.directory.path, "--to", "wandb", "--anew")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(folder.name for folder in (run.directory.path / "wandb" / "replaced").iterdir()) == names
    (anew,) = (run.directory.path / "wandb").glob("offline-run-*")
    assert not anew.name.endswith(key)
