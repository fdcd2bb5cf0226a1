"""The layout of a job, the choice of mpirun, its command line and its banners; nothing is started here.

Real jobs: tests/integration/test_jobs.py.
"""

import json
import os
import signal
import sys
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.comm.base import SerialComm
from hpcgan.comm.devices import configure_devices
from hpcgan.comm.select import make_comm, resolve_backend
from hpcgan.errors import EnvironmentFailure, HpcganError, InputError
from hpcgan.launch import launcher as start
from hpcgan.launch import process as job
from hpcgan.launch import srun, topology
from hpcgan.launch.launcher import Place, Watch, launch
from hpcgan.launch.mpirun import Mpirun, find_mpirun
from hpcgan.launch.mpirun_output import BannerFilter
from hpcgan.launch.outcome import launch_training, launch_writing
from hpcgan.launch.topology import (
    INTEL,
    MPICH,
    OPEN_MPI_4,
    OPEN_MPI_5,
    UNKNOWN,
    available_cores,
    mpi_flavour,
    plan,
    rank_environment,
    threads_from_env,
)
from hpcgan.runs.directory import RunDirectory

# --- layout -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranks", "cores", "nodes", "threads", "warns"),
    [
        (1, 2, 1, 2, False),
        (2, 2, 1, 1, False),
        (2, 64, 1, 32, False),
        (3, 8, 1, 2, False),
        (4, 2, 1, 1, True),
        (8, 4, 2, 1, False),
        (9, 4, 2, 1, True),
        (4, 4, 4, 4, False),
    ],
)
def test_cores_are_shared_out(ranks, cores, nodes, threads, warns):
    layout = plan(ranks, cores, nodes)
    assert layout.threads == threads
    assert bool(layout.warnings) == warns
    assert layout.env["OMP_NUM_THREADS"] == layout.env["HPCGAN_THREADS"] == str(threads)
    assert layout.env["TF_NUM_INTRAOP_THREADS"] == str(threads)
    assert layout.env["TF_NUM_INTEROP_THREADS"] == "1"


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 20))
def test_layout_never_starves_and_warns_exactly_when_it_oversubscribes(ranks, cores, nodes):
    layout = plan(ranks, cores, nodes)
    assert layout.threads >= 1
    assert layout.ranks_per_node * nodes >= ranks
    assert bool(layout.warnings) == (layout.ranks_per_node * layout.threads > cores)


@pytest.mark.parametrize(
    ("bad", "says"),
    [({"ranks": 0}, "ranks"), ({"ranks": 2, "cores": 0}, "cores"), ({"ranks": 1, "nodes": -1}, "nodes")],
)
def test_layout_of_nothing_is_refused(bad, says):
    with pytest.raises(InputError, match=f"{says} must be at least 1"):
        plan(**bad)


def test_idle_progress_threads_yield_and_nothing_is_bound():
    five, four = plan(2, 2, flavour=OPEN_MPI_5), plan(2, 2, flavour=OPEN_MPI_4)
    for layout in (five, four):
        assert layout.env["OMPI_MCA_mpi_yield_when_idle"] == "1"
        assert layout.mpirun_args[:2] == ("--bind-to", "none")
    assert five.mpirun_args[2:] == ("--map-by", ":OVERSUBSCRIBE")
    assert four.mpirun_args[2:] == ("--oversubscribe",)
    assert plan(2, 2, flavour=MPICH).mpirun_args == ("-bind-to", "none")
    assert plan(2, 2, flavour=INTEL).env["I_MPI_PIN"] == "0"
    assert plan(2, 2, flavour=UNKNOWN).mpirun_args == ()


def test_root_is_allowed_only_when_root():
    assert plan(2, 2, as_root=True).env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] == "1"
    assert not [name for name in plan(2, 2, as_root=False).env if "ROOT" in name]


def test_users_settings_for_mpi_and_horovod_win_but_not_stray_thread_counts():
    env = plan(2, 4).environment(
        {
            "OMPI_MCA_mpi_yield_when_idle": "0",
            "HOROVOD_STALL_CHECK_TIME_SECONDS": "7",
            "OMP_NUM_THREADS": "1",
            "A": "b",
        }
    )
    assert env["OMPI_MCA_mpi_yield_when_idle"] == "0"
    assert env["HOROVOD_STALL_CHECK_TIME_SECONDS"] == "7"
    assert env["OMP_NUM_THREADS"] == "2"
    assert env["A"] == "b"


def test_horovod_gives_up_later_than_it_warns():
    env = plan(2, 2).env
    warn, stop = (int(env[f"HOROVOD_STALL_{what}_TIME_SECONDS"]) for what in ("CHECK", "SHUTDOWN"))
    assert 0 < warn < stop


def test_a_rank_of_a_bare_mpirun_sets_what_the_launcher_would_have():
    missing = rank_environment({"HOROVOD_DISABLE_GROUP_FUSION": "0"})
    assert missing["OMPI_MCA_mpi_yield_when_idle"] == "1"
    assert "HOROVOD_DISABLE_GROUP_FUSION" not in missing
    assert rank_environment(plan(2, 2).environment({})) == {}


@pytest.mark.parametrize(
    ("env", "threads"),
    [
        ({}, 8),
        ({"HPCGAN_THREADS": "3"}, 3),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 4),
        ({"OMPI_COMM_WORLD_SIZE": "16", "OMPI_COMM_WORLD_RANK": "0"}, 1),
        (
            {
                "SLURM_STEP_ID": "0",
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_PROCID": "0",
                "SLURM_CPUS_PER_TASK": "6",
            },
            6,
        ),
    ],
)
def test_threads_of_a_rank(env, threads):
    assert threads_from_env(env, cores=8) == threads


@pytest.mark.parametrize("text", ["0", "-1", "two", ""])
def test_threads_that_are_no_number_are_refused(text):
    with pytest.raises(InputError, match="HPCGAN_THREADS"):
        threads_from_env({"HPCGAN_THREADS": text})


@pytest.mark.parametrize(
    ("text", "flavour"),
    [
        ("mpirun (Open MPI) 5.0.11\n\nReport bugs to ...", OPEN_MPI_5),
        ("mpirun (Open MPI) 4.1.4\n", OPEN_MPI_4),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.11 Build 20231005", INTEL),
        ("HYDRA build details:\n    Version:  4.0.2", MPICH),
        ("something else 1.0", UNKNOWN),
    ],
)
def test_mpi_flavour(text, flavour):
    assert mpi_flavour(text) == flavour


def test_cores_are_those_of_affinity_and_control_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert available_cores(tmp_path) == 8
    (tmp_path / "proc/self").mkdir(parents=True)
    group = tmp_path / "sys/fs/cgroup/user/job"
    group.mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/user/job\n")
    for text, cores in (("max 100000", 8), ("350000 100000", 3), ("50000 100000", 1), ("nonsense", 8)):
        (group / "cpu.max").write_text(text + "\n")
        assert available_cores(tmp_path) == cores
    (group / "cpu.max").write_text("400000 100000\n")
    (group.parent / "cpu.max").write_text("200000 100000\n")
    assert available_cores(tmp_path) == 2  # the parent's quota holds, too
    (tmp_path / "proc/self/cgroup").write_text("5:cpu,cpuacct:/box\n3:memory:/box\n")
    old = tmp_path / "sys/fs/cgroup/cpu,cpuacct/box"
    old.mkdir(parents=True)
    (old / "cpu.cfs_quota_us").write_text("600000\n")
    (old / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cores(tmp_path) == 6
    (old / "cpu.cfs_quota_us").write_text("-1\n")
    assert available_cores(tmp_path) == 8


# --- mpirun -----------------------------------------------------------------------------------------------


def fake_mpirun(folder, text="mpirun (Open MPI) 4.1.4", code=0):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mpirun"
    path.write_text(f"#!/bin/sh\necho '{text}'\nexit {code}\n")
    path.chmod(0o755)
    return path


def test_mpirun_beside_python_comes_before_the_path(tmp_path, monkeypatch):
    env = {"PATH": f"{tmp_path / 'site'}:/usr/bin:/bin"}
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    site = fake_mpirun(tmp_path / "site")
    assert find_mpirun(env) == Mpirun(str(site), OPEN_MPI_4, "mpirun (Open MPI) 4.1.4")
    own = fake_mpirun(tmp_path / "venv/bin", "mpirun (Open MPI) 5.0.11")
    assert find_mpirun(env).path == str(own)
    assert find_mpirun({**env, "HPCGAN_MPIRUN": str(site)}).path == str(site)


def test_no_or_broken_mpirun_is_an_error_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(HpcganError, match="no mpirun found: run `make setup`"):
        find_mpirun({"PATH": str(tmp_path / "nothing")})
    with pytest.raises(HpcganError, match="cannot be run"):
        find_mpirun({"HPCGAN_MPIRUN": str(tmp_path / "absent")})
    broken = fake_mpirun(tmp_path / "site", "error while loading shared libraries: libopen-rte.so.40", 127)
    with pytest.raises(HpcganError, match="libopen-rte"):
        find_mpirun({"PATH": f"{broken.parent}:/usr/bin:/bin"})


def test_command_line():
    args = Mpirun("/m/mpirun", OPEN_MPI_5, "").command(plan(3, 4), ["train", "a b.yaml", "x=1"], "hpcgan")
    begin = args.index("/m/mpirun")
    assert args[begin:][:7] == ["/m/mpirun", "-np", "3", "--bind-to", "none", "--map-by", ":OVERSUBSCRIBE"]
    assert args[begin - 2 : begin][0].endswith('exec "$@"')  # see test_jobs.py
    assert args[-7:] == [sys.executable, "-m", "hpcgan.launch.rank_shim", "hpcgan", "train", "a b.yaml", "x=1"]


def test_ranks_on_other_nodes_get_the_variables():
    topology = plan(4, 2, nodes=2)
    args = Mpirun("mpirun", OPEN_MPI_5, "").command(topology, ["train"], "hpcgan")
    named = [args[i + 1] for i, arg in enumerate(args) if arg == "-x"]
    assert named == sorted(topology.env)
    assert "-x" not in Mpirun("mpirun", OPEN_MPI_5, "").command(plan(4, 2), ["train"], "hpcgan")


@pytest.mark.parametrize("ranks", [0, -2])
def test_no_ranks_are_bad_input(ranks):
    with pytest.raises(InputError, match="--ranks must be at least 1"):
        launch(["train"], ranks)


def test_a_rank_starts_no_ranks():
    env = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
    with pytest.raises(InputError, match="already is rank 1 of 2 under mpirun"):
        launch(["train"], 2, place=Place(env=env))


BANNER = """--------------------------------------------------------------------------
prterun detected that one or more processes exited with non-zero status,
thus causing the job to be terminated. The first process to do so was:

   Process name: [prterun-vm-4019@1,0]
   Exit code:    {}
--------------------------------------------------------------------------
"""
OLD_BANNER = """--------------------------------------------------------------------------
Primary job  terminated normally, but 1 process returned
a non-zero exit code. Per user-direction, the job has been aborted.
--------------------------------------------------------------------------
"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\nb"),
        (f"before\n{BANNER.format(75)}after\n", "before\nafter\n"),
        (f"{BANNER.format(2)}", ""),
        (f"{BANNER.format(1)}", BANNER.format(1)),
        (f"{OLD_BANNER}{BANNER.format(75)}", ""),
        ("-----------------------------\nno end", "-----------------------------\nno end"),
        ("-" * 30 + "\n" + "x\n" * 50, "-" * 30 + "\n" + "x\n" * 50),
        ("- item\n--option\n", "- item\n--option\n"),
    ],
)
def test_banner_filter(text, shown):
    data = text.encode()
    for size in (1, 7, 1000):
        banner = BannerFilter()
        out = b"".join(banner.feed(data[i : i + size]) for i in range(0, len(data), size)) + banner.finish()
        assert out.decode() == shown


def test_progress_without_a_newline_is_not_held_back():
    assert BannerFilter().feed(b"epoch 1/3 \xe2\x96\x88") == b"epoch 1/3 \xe2\x96\x88"


def test_descendants_are_found():
    import subprocess

    process = subprocess.Popen(["sh", "-c", "sleep 30 & wait"], start_new_session=True)
    try:
        while not (found := job.descendants(process.pid)):
            pass
        assert process.pid in job.descendants(os.getpid())
        assert found[0] in job.descendants(os.getpid())
    finally:
        os.killpg(process.pid, 9)
        process.wait()


# --- choice of communicator, devices ----------------------------------------------------------------------

TWO = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}
ONE = {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}


@pytest.mark.parametrize(
    ("backend", "env", "chosen"),
    [
        ("auto", {}, "serial"),
        ("auto", ONE, "serial"),
        ("auto", TWO, "horovod"),
        ("serial", {}, "serial"),
        ("serial", ONE, "serial"),
        ("horovod", {}, "horovod"),
        ("mpi", TWO, "mpi"),
    ],
)
def test_backend(backend, env, chosen):
    assert resolve_backend(backend, env) == chosen


def test_several_ranks_without_horovod_take_mpi4py(monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod", None)
    assert resolve_backend("auto", TWO) == "mpi"
    assert resolve_backend("auto", ONE) == "serial"
    assert resolve_backend("horovod", TWO) == "horovod"  # which is then said not to be there


def test_backends_that_cannot_be_are_refused():
    with pytest.raises(InputError, match=r"comm\.backend: serial, but mpirun started 2 ranks"):
        resolve_backend("serial", TWO)
    with pytest.raises(InputError, match=r"comm\.backend 'gloo' does not exist; choose one of: horovod, mpi, serial"):
        make_comm("gloo")


def test_without_horovod_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod", None)
    monkeypatch.setitem(sys.modules, "horovod.tensorflow", None)
    for name in topology.plan(1, 1).env:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(HpcganError, match=r"make setup.*hpcgan\[train\]"):
        make_comm("horovod")


def test_a_disk_that_is_full_while_horovod_is_loaded_is_no_missing_horovod(monkeypatch):
    """Found by a campaign of faults: sweeps did not try again what would have succeeded."""

    class Finder:
        def find_spec(self, name, path, target=None):
            if name == "horovod":
                raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.delitem(sys.modules, "horovod", raising=False)
    monkeypatch.delitem(sys.modules, "horovod.tensorflow", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    for name in topology.plan(1, 1).env:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EnvironmentFailure, match=r"^Horovod cannot be loaded: No usable temporary directory"):
        make_comm("horovod")


class FakeTensorFlow:
    """Records what is set in `tf.config`."""

    def __init__(self, gpus, started=False):
        self.set = {}
        devices = [SimpleNamespace(name=f"/physical_device:GPU:{i}") for i in range(gpus)]

        def record(name):
            def setter(*args):
                if started:
                    raise RuntimeError("cannot be modified after initialization")
                self.set[name] = args

            return setter

        self.config = SimpleNamespace(
            threading=SimpleNamespace(
                set_inter_op_parallelism_threads=record("inter"),
                set_intra_op_parallelism_threads=record("intra"),
            ),
            list_physical_devices=lambda kind: devices if kind == "GPU" else [],
            set_visible_devices=record("visible"),
            experimental=SimpleNamespace(set_memory_growth=record("growth")),
        )
        self.devices = devices


def rank(rank, size, local_rank=None, local_size=None):
    comm = SerialComm()
    comm.rank, comm.size = rank, size
    comm.local_rank = rank if local_rank is None else local_rank
    comm.local_size = size if local_size is None else local_size
    return comm


@pytest.fixture
def no_slurm(monkeypatch):
    for name in ("SLURM_GPUS_PER_TASK", "SLURM_GPU_BIND"):
        monkeypatch.delenv(name, raising=False)


def test_threads_without_gpus():
    tf = FakeTensorFlow(0)
    assert configure_devices(rank(0, 2), 3, tf) == []
    assert tf.set == {"inter": (1,), "intra": (3,)}


@pytest.mark.usefixtures("no_slurm")
def test_a_rank_gets_the_gpu_of_its_local_rank_and_lets_memory_grow():
    tf = FakeTensorFlow(4)
    assert configure_devices(rank(6, 8, local_rank=2, local_size=4), 5, tf) == ["/physical_device:GPU:2"]
    assert tf.set["visible"] == (tf.devices[2], "GPU")
    assert tf.set["growth"] == (tf.devices[2], True)


@pytest.mark.usefixtures("no_slurm")
def test_more_ranks_than_gpus_are_refused():
    with pytest.raises(HpcganError, match="rank 3 is number 3 of 4 on its node, which has 2 GPUs"):
        configure_devices(rank(3, 4), 1, FakeTensorFlow(2))
    with pytest.raises(HpcganError, match="has 1 GPU:"):
        configure_devices(rank(1, 2), 1, FakeTensorFlow(1))


def test_a_scheduler_may_show_each_rank_its_own_gpu_only(monkeypatch):
    monkeypatch.setenv("SLURM_GPUS_PER_TASK", "1")
    tf = FakeTensorFlow(1)
    assert configure_devices(rank(1, 2), 1, tf) == ["/physical_device:GPU:0"]


def test_devices_after_the_start_are_an_error():
    with pytest.raises(HpcganError, match="before TensorFlow is used"):
        configure_devices(rank(0, 1), 1, FakeTensorFlow(0, started=True))


# --- what counts is the job's own record ------------------------------------------------------------------


class Says:
    """A launcher that does what a shell script says."""

    name = "mpirun"
    flavour = UNKNOWN

    def __init__(self, script):
        self.script = script

    def command(self, topology, argv, module):
        return ["sh", "-c", self.script, "sh", *argv]


def end(run, outcome, attempt=2):
    record = json.dumps({"kind": "end", "attempt": attempt, "step": 9, "outcome": outcome})
    return f"echo '{record}' >> '{run.metrics_file}'; "


@pytest.mark.parametrize(
    ("outcome", "code", "expected"),
    [
        ("done", 0, 0),
        ("pruned", 0, 0),
        (None, 0, 1),  # mpirun when its allocation is taken away
        ("failed", 0, 1),
        ("interrupted", 0, 75),
        ("interrupted", 143, 75),
        ("stopped", 137, 75),
        ("interrupted", 2, 2),  # another attempt has taken the run over, and this record may be its
        (None, 75, 75),
        (None, 143, 143),
        ("failed", 1, 1),
        ("done", 1, 1),
    ],
)
def test_a_launcher_is_believed_as_far_as_the_run_says_the_same(tmp_path, monkeypatch, outcome, code, expected):
    monkeypatch.setattr(start, "PATIENCE", 0.2)
    run = RunDirectory(tmp_path / "a run")
    run.attempts.mkdir(parents=True)
    (run.attempts / "0001.json").write_text("{}")
    earlier = {"kind": "end", "attempt": 1, "step": 3, "outcome": "done"}
    run.metrics_file.write_text(json.dumps(earlier) + "\n")
    script = (end(run, outcome) if outcome else "") + f"exit {code}"
    told = []
    assert launch_training(["train"], run, 2, place=Place(Says(script)), watch=Watch(report=told.append)) == expected
    errors = [line for line in told if "error" in line]
    if expected == 1 and code == 0:
        (line,) = errors
        assert "mpirun ended with exit code 0, but" in line
        assert str(run.path) in line
        assert "the same command goes on from the last checkpoint" in line
        assert "\n" not in line
    else:
        assert not errors


def test_a_record_that_comes_late_counts(tmp_path):
    """Shared file systems show what another node wrote some seconds later."""
    run = RunDirectory(tmp_path)
    launcher = Says(f"(sleep 0.5; {end(run, 'done')}) >/dev/null 2>&1 &")
    assert launch_training(["train"], run, 2, place=Place(launcher), watch=Watch(report=lambda line: None)) == 0


@pytest.mark.parametrize(("script", "expected"), [("true", 1), ("echo new > '{}'", 0), ("exit 3", 3)])
@pytest.mark.parametrize("there", [False, True])
def test_a_file_that_was_not_written_is_no_success(tmp_path, monkeypatch, script, expected, there):
    monkeypatch.setattr(start, "PATIENCE", 0.2)
    file = tmp_path / "x.h5"
    if there:
        file.write_text("of another time")
    told = []
    code = launch_writing(
        ["generate"], file, 2, place=Place(Says(script.format(file))), watch=Watch(report=told.append)
    )
    assert code == expected
    assert [line for line in told if "error" in line] == (
        [f"hpcgan: error: mpirun ended with exit code 0, but {file} was not written"] if expected == 1 else []
    )


# --- the launcher inside an allocation --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "ranks", "name", "nodes"),
    [
        ({}, 2, "mpirun", 1),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_JOB_NUM_NODES": "2"}, 4, "srun", 2),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_JOB_NUM_NODES": "4"}, 2, "srun", 2),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "HPCGAN_LAUNCHER": "mpirun"}, 4, "mpirun", 1),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2"}, 4, "mpirun", 1),  # srun has no task for two of them
        (
            {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1",
             "SLURM_PROCID": "0"},
            2, "mpirun", 1,
        ),
    ],
)  # fmt: skip
def test_the_launcher_of_ranks_here(tmp_path, monkeypatch, env, ranks, name, nodes):
    path = fake_mpirun(tmp_path, "mpirun (Open MPI) 5.0.11")
    (tmp_path / "srun").write_text("#!/bin/sh\necho pmix\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    env = {**env, "PATH": os.environ["PATH"], "HPCGAN_MPIRUN": str(path)}
    launcher, width = srun.here(env, ranks)
    assert (launcher.name, width) == (name, min(nodes, ranks))


def test_a_death_is_read_from_the_log_of_this_job_only(tmp_path):
    said = "prterun noticed that process rank {} with PID 7 on node n1 exited on signal 9 (Killed)."
    log = tmp_path / "log"
    log.write_text(said.format(5) + "\n")  # by an earlier job
    with open(log, "ab") as stream:
        running = job.Job(["sh", "-c", f"echo '{said.format(1)}' >&2; exit 137"], dict(os.environ), stream, stream)
        try:
            assert running.wait(job.Requests(print), 0.0, 60.0) == 137
            assert running.death() == running.death() == "rank 1 on n1: killed by signal 9 (Killed)"
        finally:
            running.end()


@pytest.mark.parametrize("where", ["pipe", "log"])
def test_an_srun_that_goes_on_after_a_rank_has_failed_is_ended(tmp_path, monkeypatch, where):
    """As it does when the slurmd of another rank's node was away while srun tried to end that rank."""
    monkeypatch.setattr(job, "STRICKEN", 1.0)
    monkeypatch.setattr(job, "LOOK", 0.2)
    told = []
    said = "srun: error: n1: task 0: Exited with exit code 1"
    with open(tmp_path / "log", "wb") as log:
        stream = None if where == "pipe" else log
        running = job.Job(["sh", "-c", f"echo '{said}' >&2; exec sleep 1000"], dict(os.environ), stream, stream)
        started = time.monotonic()
        assert running.wait(job.Requests(told.append), 0.0, 60.0) == 128 + signal.SIGTERM
        assert time.monotonic() - started >= 1.0
    assert told == ["hpcgan: the launcher did not end with its ranks: ending it"]
    assert running.death() == "rank 0 on n1: Exited with exit code 1"
    warning = "slurmstepd-n1: error: something that a healthy job survives"
    healthy = job.Job(["sh", "-c", f"echo '{warning}' >&2; sleep 2.5"], dict(os.environ), None, None)
    assert healthy.wait(job.Requests(told.append), 0.0, 60.0) == 0
    assert len(told) == 1


def test_a_launcher_that_outlives_its_ranks_is_ended(monkeypatch):
    """mpirun of Open MPI 5 may hang when a rank ends while it connects."""
    monkeypatch.setattr(job, "DESERTED", 0.5)
    told = []
    program = "import subprocess, time; subprocess.run(['true']); subprocess.Popen(['true']); time.sleep(1000)"
    program = program.replace("'true'", "'sleep', '0.3'")  # the second one stays a zombie
    running = job.Job([sys.executable, "-c", program], dict(os.environ), None, None, ranks_below=True)
    assert running.wait(job.Requests(told.append), 0.0, 60.0) == 128 + signal.SIGTERM
    assert told == ["hpcgan: the launcher did not end with its ranks: ending it"]
    patient = job.Job([sys.executable, "-c", "import time; time.sleep(2)"], dict(os.environ), None, None, True)
    assert patient.wait(job.Requests(told.append), 0.0, 60.0) == 0  # nothing was below it yet
    assert len(told) == 1
