"""Clusters of engines that are MPI ranks on this machine, and trainings on them."""

import os
import pkgutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from pathlib import Path

import jobs
import pytest
import tiny
import yaml
from engines import ENDLESS, a_little_further, assert_same, command_line_run, engines_of, last_step, wait_until
from recorded import recorded

from hpcgan.errors import HpcganError, InputError

pytest.importorskip("horovod")
pytest.importorskip("ipyparallel")

from hpcgan.interactive import Cluster, Session, attach
from hpcgan.interactive import folder as folders
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import Lease
from hpcgan.system import liveness

#: Instead of none, as in `ENDLESS`: a score of the last epoch.
SCORED = ("scoring.every_epochs=100000",)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """Clusters of these tests are not the user's."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("clusters")
    patch.setenv("HPCGAN_CLUSTERS", str(folder))
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cluster(home):
    told = []
    with Cluster.start("mpi", 2, report=told.append) as made:
        assert told == [f"cluster {made.id}: 2 ranks on 1 node"]
        yield made
    assert engines_of(made.id) == []


@pytest.fixture
def session(cluster):
    return cluster.session()


def test_the_engines_are_the_ranks_of_one_world(cluster):
    assert [(row["rank"], row["size"], row["mean"]) for row in cluster.ranks] == [(0, 2, 0.5), (1, 2, 0.5)]
    assert len({row["pid"] for row in cluster.ranks}) == 2
    assert cluster.state == "ready"
    assert repr(cluster.ranks).splitlines()[0].split() == [
        "rank",
        "size",
        "host",
        "pid",
        "threads",
        "backend",
        "engine",
    ]
    assert cluster.ranks._repr_html_().count("<tr>") == 3


def test_only_its_user_can_read_the_keys_and_everything_is_encrypted(cluster):
    assert stat.S_IMODE(cluster.connection_file.stat().st_mode) == 0o600
    assert len(yaml.safe_load(cluster.connection_file.read_text())["curve_serverkey"]) == 40


def test_rates_set_on_the_way_give_the_bits_of_a_training_that_had_them_from_the_start(
    cluster, session, data, tmp_path
):
    """On engines that train twice, against a job of its own; a second training meanwhile is refused."""
    raw = tiny.config(data).dump()
    training = session.train(raw, ENDLESS, run=tmp_path / "steered")
    assert training.state in ("starting", "running")
    assert cluster.state == "busy"
    with pytest.raises(InputError, match=f"the ranks of cluster {cluster.id} are busy"):
        session.train(raw, run=tmp_path / "second")
    assert not (tmp_path / "second").exists()
    wait_until(lambda: training.state == "running")
    training.pause(wait=jobs.PATIENCE)  # its first step takes long
    assert training.state == "paused"
    training.set(lr=0.01)
    training.checkpoint()
    training.resume()
    training.stop()
    assert training.wait(jobs.PATIENCE) == "stopped"
    short = a_little_further(tmp_path / "steered")
    again = session.train(raw, [*SCORED, short], run=tmp_path / "steered")
    assert again.wait(jobs.PATIENCE) == "done"
    commands = training.metrics("command").set_index("name")
    assert list(commands.index) == ["pause", "set", "checkpoint", "resume", "stop"]
    assert commands.loc["set", "learning_rates"] == [{"generator": 0.01, "discriminator": 0.01}] * 2  # of both ranks
    step = int(commands.loc["set", "step"])
    change = f"training.schedule.changes=[{{step: {step}, rates: {{generator: 0.01, discriminator: 0.01}}}}]"
    command_line_run(data, tmp_path / "scheduled", *SCORED, short, change)
    assert_same(tmp_path / "steered", tmp_path / "scheduled")
    assert again.best is not None
    assert again.best == attach(tmp_path / "scheduled").best


def test_bad_input_is_refused_before_the_ranks_begin_and_by_them_in_one_line(session, data, tmp_path, capfd):
    with pytest.raises(InputError, match=r"training\.epochs"):
        session.train(tiny.config(data), ["training.epochs=none"])
    with pytest.raises(InputError, match="absent"):
        session.train(tiny.config(tmp_path / "absent"), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=r"^training\.accumulation: 3 parts of a rank's batch of 4"):
        session.train(tiny.config(data, "training.accumulation=3"), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    busy = RunDirectory(tmp_path / "busy")
    busy.create(tiny.config(data))
    lease = Lease(busy)
    try:
        training = session.train(tiny.config(data), run=busy.path)
        with pytest.raises(InputError, match="is at work in it"):
            training.wait(jobs.PATIENCE)
    finally:
        lease.release("interrupted")
    assert "is at work in it" in training.error
    assert session.cluster.state == "ready"


def test_an_interrupt_of_the_kernel_reaches_the_ranks(session, data, tmp_path):
    training = session.train(tiny.config(data, *ENDLESS), run=tmp_path / "run")
    wait_until(lambda: training.state == "running")
    over = training._over
    wait = over.wait

    def interrupted(timeout):
        over.wait = wait
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        return wait(timeout)

    over.wait = interrupted  # the interrupt comes while it waits, not before
    assert training.wait(jobs.PATIENCE) == "stopped"
    assert last_step(tmp_path / "run") > 0


def test_a_kernel_that_is_killed_finds_its_cluster_and_training_again(home, data, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny.config(data, *ENDLESS).dump()))
    kernel = """
        import os, time
        from hpcgan.interactive import Cluster
        cluster = Cluster.start("mpi", 1, idle=6)
        training = cluster.session().train("tiny.yaml", run="run")
        while training.state != "running":
            time.sleep(0.1)
        print(cluster.id, flush=True)
        os._exit(9)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(kernel)], cwd=tmp_path, timeout=jobs.PATIENCE,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 9, done.stderr
    name = done.stdout.split()[-1]
    cluster = Cluster.connect(name)
    assert cluster.state == "busy"
    training = Session.attach(tmp_path / "run")
    before = training.epoch
    wait_until(lambda: training.epoch > before)
    # Longer without a notebook than an unused cluster is kept: it trains, and so stays.
    cluster.close()
    time.sleep(8)
    assert training.state == "running"
    training.stop()
    assert training.wait(jobs.PATIENCE) == "stopped"
    wait_until(lambda: not engines_of(name))  # nobody has stopped the cluster
    assert not (home / name).exists()
    with pytest.raises(InputError, match=f"no cluster '{name}' runs"):
        Cluster.connect(name)


def test_an_engine_that_dies_is_named_and_its_training_goes_on_elsewhere(session, data, tmp_path, capfd):
    config = tiny.config(data, *ENDLESS, "checkpoint.every_epochs=1")
    run = tmp_path / "run"
    with Cluster.start("mpi", 2) as cluster:
        training = cluster.session().train(config, run=run)
        wait_until(lambda: training.epoch >= 2)
        os.kill(cluster.ranks[1]["pid"], signal.SIGKILL)
        with pytest.raises(HpcganError, match=r"rank 1 on .*: killed by signal 9.*to go on from its last checkpoint"):
            training.wait(jobs.PATIENCE)
        assert training.state == "lost"
        assert "rank 1 on" in capfd.readouterr().err  # seen without asking
        assert cluster.state == "lost"
        with pytest.raises(InputError, match=f"cluster {cluster.id} is lost"):
            cluster.session().train(config, run=run)
    short = a_little_further(run)
    for path in (run, tmp_path / "whole"):
        assert session.train(config, [short], run=path).wait(jobs.PATIENCE) == "done"
    attempts = recorded(run / "metrics.jsonl", "start")
    assert attempts[-1]["step"] >= 7  # not from the beginning
    assert_same(run, tmp_path / "whole")


@pytest.mark.faults  # of what is done in a cluster when a process of it dies, there is one above
def test_a_training_ends_in_order_though_its_controller_is_killed(home, data, tmp_path):
    with Cluster.start("mpi", 1) as cluster:
        training = cluster.session().train(tiny.config(data, *ENDLESS), run=tmp_path / "run")
        wait_until(lambda: training.state == "running")
        for process in engines_of(cluster.id):
            if "hpcgan.interactive.controller" in process.cmdline():
                process.kill()
        training.stop()  # which needs no controller
        assert training.wait(jobs.PATIENCE) == "stopped"
        assert training.error is None
        with pytest.raises(InputError, match=f"cluster {cluster.id} is lost"):
            cluster.session().train(tiny.config(data), run=tmp_path / "other")
        with pytest.raises(InputError, match=f"no cluster '{cluster.id}' runs"):
            Cluster.connect(cluster.id)
    assert engines_of(cluster.id) == []


@pytest.mark.parametrize(("change", "said"), [
    ({"engines": "pbs"}, "engines 'pbs': choose one of mpi, slurm"),
    ({"n": 0}, "n=0: give at least 1 engine"),
    ({"nodes": 2}, "nodes=2: only for engines='slurm'"),
    ({"partition": "gpu"}, "partition: only for engines='slurm'"),
    ({"threads": 0}, "job.threads=0: input should be greater than or equal to 1"),
    ({"idle": 0}, "idle=0: give seconds above 0"),
    ({"engines": "slurm", "n": 3, "nodes": 2}, "n=3, nodes=2: the engines must be spread evenly"),
    ({"engines": "slurm", "time": "soon"}, "job.time='soon': write it as minutes"),
    ({"engines": "slurm", "partition": "a;b"}, "job.partition='a;b': not a name that Slurm knows"),
    ({"engines": "slurm", "colour": "red"}, "unknown option 'colour'; the options here are: engines, n, job"),
    ({"engines": "slurm", "job": {"qos": "a b"}}, "job.qos='a b': not a name that Slurm knows"),
    ({"engines": "slurm", "n": 4, "nodes": 2, "ranks_per_node": 1}, "ranks_per_node=1: is not n=4 over nodes=2"),
    ({"engines": "slurm", "retries": 2}, "retries: a job of engines has no such option"),
    ({"theads": 2}, r"unknown option 'theads'; did you mean 'threads'\?"),
    ({"engines": "slurm", "partitoin": "gpu"}, r"unknown option 'partitoin'; did you mean 'partition'\?"),
    ({"n": "two"}, "n='two': give at least 1 engine"),
    ({"n": True}, "n=True: give at least 1 engine"),
    ({"timeout": 0}, "timeout=0: give seconds above 0"),
    ({"idle": float("nan")}, "idle=nan: give seconds above 0"),
    ({"engines": "slurm", "site": "absent.sh"}, "absent.sh: no such file"),
])  # fmt: skip
def test_options_that_make_no_cluster_are_refused(home, change, said):
    before = set(home.iterdir())
    with pytest.raises(InputError, match=said):
        Cluster.start(**{"n": 2, **change})
    assert set(home.iterdir()) == before


@pytest.fixture
def alone(home, monkeypatch, tmp_path):
    """Nothing is left of the clusters of a test: no folder, and, once they have had time, no process."""
    monkeypatch.setenv("HPCGAN_CLUSTERS", str(tmp_path / "clusters"))
    yield tmp_path / "clusters"
    assert list((tmp_path / "clusters").iterdir()) == []
    wait_until(lambda: not engines_of(str(tmp_path / "clusters")))


def test_engines_that_do_not_start_leave_nothing_behind(alone, monkeypatch):
    monkeypatch.setenv("HPCGAN_MPIRUN", "/bin/false")
    with pytest.raises(HpcganError, match=r"the engines ended at once: .*false --version failed"):
        Cluster.start("mpi", 2)


def test_engines_that_die_on_import_are_one_line_with_what_they_said_in_the_traceback(alone, monkeypatch, tmp_path):
    broken = tmp_path / "broken/mpi4py/__init__.py"
    broken.parent.mkdir(parents=True)
    broken.write_text("raise ImportError('libmpi.so.40: cannot open shared object file')")
    path = os.pathsep.join([str(broken.parents[1]), *sys.path])
    monkeypatch.setenv("PYTHONPATH", path)
    with pytest.raises(HpcganError, match=r"ended at once: ImportError: libmpi\.so\.40: cannot open") as caught:
        Cluster.start("mpi", 1)
    assert "Traceback (most recent call last):" in "".join(traceback.format_exception(caught.value))


def test_more_engines_than_cores_are_warned_of_and_named_when_they_do_not_come(alone, monkeypatch):
    monkeypatch.setattr("hpcgan.launch.topology.available_cores", lambda: 1)
    told = []
    with pytest.raises(HpcganError, match=r"0 of 2 engines came within 0\.01 s; give a longer timeout= or start "
                                          r"fewer: this machine has 1 core for 2 engines"):  # fmt: skip
        Cluster.start("mpi", 2, timeout=0.01, report=told.append)
    assert told == ["warning: 2 ranks x 1 thread share 1 core: this works, but slower than one rank a core"]


#: Where a start is interrupted, as the object and the name of what it does then.
MOMENTS = {
    "the folder is made": "hpcgan.interactive.folder.write",
    "the controller starts": "hpcgan.interactive.processes.start",
    "it is connected to": "hpcgan.interactive.cluster.connect_client",
    "the engines start": "hpcgan.interactive.cluster.Cluster._start_engines",
    "engines are waited for": "hpcgan.interactive.cluster.Cluster._check_parts",
    "the ranks are checked": "hpcgan.interactive.cluster.Cluster._answers",
}


@pytest.mark.parametrize("again", [False, pytest.param(True, marks=pytest.mark.faults)])
@pytest.mark.parametrize("moment", [
    "the folder is made", "the engines start", "engines are waited for",
    *(pytest.param(name, marks=pytest.mark.faults) for name in
      ("the controller starts", "it is connected to", "the ranks are checked")),
])  # fmt: skip
def test_a_start_that_is_interrupted_leaves_nothing_behind(alone, monkeypatch, moment, again):
    """Ctrl-C as a terminal or a notebook sends it; `again`: once more while that is cleaned up."""
    target, _, name = MOMENTS[moment].rpartition(".")
    owner = pkgutil.resolve_name(target)
    function = getattr(owner, name)
    sent = []

    def interrupted(*args, **kwargs):
        if not sent:
            sent.append(moment)
            signal.raise_signal(signal.SIGINT)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, interrupted)
    if again:
        end_engines = folders.end_engines
        monkeypatch.setattr(
            folders, "end_engines", lambda *args: (signal.raise_signal(signal.SIGINT), end_engines(*args))
        )
    with pytest.raises(KeyboardInterrupt):
        Cluster.start("mpi", 1)
    assert sent == [moment]


def test_a_cluster_whose_controller_was_killed_is_said_to_be_lost_and_nothing_is_left_of_it(alone):
    """Stopped inside `with` besides, and twice."""
    with Cluster.start("mpi", 1) as cluster:
        (row,) = Cluster.list()
        assert (row["id"], row["where"], row["kind"], row["ranks"]) == (cluster.id, os.uname().nodename, "mpi", 1)
        os.kill(cluster._about["controller"]["pid"], signal.SIGKILL)
        wait_until(lambda: cluster.state == "lost")
        assert [row["state"] for row in Cluster.list()] == ["lost"]
        with pytest.raises(InputError, match=f"no cluster '{cluster.id}' runs: its controller has ended"):
            Cluster.connect(cluster.id)
        with pytest.raises(InputError, match="no cluster of yours runs"):
            Cluster.connect()
        cluster.stop()
        assert cluster.state == "stopped"
        assert "stopped>" in repr(cluster)
        cluster.stop()
    assert engines_of(cluster.id) == []
    assert repr(Cluster.list()) == "no cluster of yours runs; Cluster.start() makes one"


@pytest.mark.faults  # a minute: the engines have to miss the controller's heartbeat
def test_engines_end_after_a_controller_that_was_killed_and_the_next_who_looks_removes_the_folder(alone):
    cluster = Cluster.start("mpi", 1)
    os.kill(cluster._about["controller"]["pid"], signal.SIGKILL)
    wait_until(lambda: folders.life(cluster._about) == "dead")
    assert engines_of(cluster.id) == []
    with pytest.raises(InputError, match=f"no cluster '{cluster.id}' runs: it has ended, and what was left of it is r"):
        Cluster.connect(cluster.id)


def test_a_cluster_that_cannot_be_reached_from_here_ends_when_it_is_asked_to(alone, monkeypatch):
    """As from another login node: its processes are not looked for among those of this one."""
    cluster = Cluster.start("mpi", 1)
    monkeypatch.setattr(liveness, "_boot", lambda: "of another node")
    monkeypatch.setattr(liveness.socket, "gethostname", lambda: "elsewhere")
    sent = []
    monkeypatch.setattr(folders, "_send", lambda *args: sent.append(args))
    assert [row["state"] for row in Cluster.list()] == ["unknown"]
    cluster.stop()
    assert sent == []


def test_there_is_a_line_for_a_notebook_without_a_cluster(home, monkeypatch, tmp_path):
    monkeypatch.setenv("HPCGAN_CLUSTERS", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"no cluster of yours runs; Cluster\.start\(\) makes one"):
        Cluster.connect()


def test_the_magic_does_what_the_classes_do(home, data, tmp_path, capsys, monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(yaml.safe_dump(tiny.config(data).dump()))
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "hpcgan.interactive")

    def magic(line):
        value = shell.run_line_magic("hpcgan", line)
        return value, capsys.readouterr()

    assert "no cluster in this notebook" in magic("train tiny.yaml")[1].err
    cluster, _ = magic("start -n 1")
    assert shell.user_ns["cluster"] is cluster
    assert "%hpcgan stop first" in magic("start -n 1")[1].err
    training, _ = magic("train tiny.yaml training.epochs=1 --run run")
    assert training.wait(jobs.PATIENCE) == "done"
    assert "<Training run: done, epoch 1 of 1>" in magic("status")[1].out
    assert magic("attach run")[0].best == training.best
    assert "did you mean 'start'?" in magic("strat")[1].err
    assert "did you mean '--engines'?" in magic("start --enginse mpi")[1].err
    assert "No closing quotation" in magic("start '")[1].err
    assert cluster.id in [row["id"] for row in magic("list")[0]]
    assert "InputError: %hpcgan: No closing" in magic("traceback")[1].out
    assert magic("")[1].out == magic("--help")[1].out
    assert "training.epochs" in magic("train tiny.yaml training.epochs=x")[1].err
    assert "where the last error came from" in magic("--help")[1].out
    # The end of the cluster is one that a training survives.
    training, _ = magic("train tiny.yaml training.epochs=100000 checkpoint.every_epochs=100000 --run stopped")
    wait_until(lambda: training.epoch >= 1)
    magic("stop")
    assert training.wait(jobs.PATIENCE) == "interrupted"
    assert last_step(tmp_path / "stopped") > 0
    assert cluster.state == "stopped"
    assert engines_of(cluster.id) == []
    assert "is stopped" in magic("train tiny.yaml")[1].err
