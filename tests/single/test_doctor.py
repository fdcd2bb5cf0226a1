"""`hpcgan doctor`: its verdicts, from descriptions of good and bad installations. A real run is an integration test."""

import json
import sys
from types import SimpleNamespace

import pytest

from hpcgan.commands import doctor
from hpcgan.commands.doctor import FAIL, OK, WARN, Check
from hpcgan.errors import HpcganError
from hpcgan.launch.mpirun import Mpirun
from hpcgan.launch.process import JobTimeout

GOOD = {
    "tensorflow": {"version": "2.15.1", "gpus": [], "cuda": False},
    "horovod": {
        "version": "0.28.1",
        "built_with": {"mpi": True, "gloo": False, "nccl": False, "cuda": False},
        "tensorflow": "2.15.1",
        "mpi_library": "/venv/lib/libmpi.so.40",
        "mpi_version": "Open MPI v5.0.11",
    },
    "mpi": {"version": "4.1.2", "mpi_library": "/venv/lib/libmpi.so.40", "mpi_version": "Open MPI v5.0.11"},
}
NONE = {"error": "not installed"}


def changed(**changes):
    """GOOD with `tensorflow_gpus=[...]` and the like."""
    result = json.loads(json.dumps(GOOD))
    for name, value in changes.items():
        part, _, key = name.partition("_")
        result[part][key] = value
    return result


def test_a_good_installation():
    checks = doctor.check_training(GOOD)
    names = ("TensorFlow", "GPU", "Horovod", "mpi4py")
    assert [(c.name, c.status) for c in checks] == [(name, OK) for name in names]
    built = "0.28.1, built with MPI for TensorFlow 2.15.1"
    assert checks[2].detail == f"{built}; on CPUs comm.backend=mpi is as fast, within 6%"
    on_gpus = doctor.check_training(changed(horovod_built_with={"mpi": True, "nccl": True}))
    assert on_gpus[2].detail == built.replace("MPI", "MPI, NCCL")


@pytest.mark.parametrize(
    ("described", "name", "status", "says"),
    [
        (
            {"tensorflow": {"error": "not installed"}},
            "TensorFlow",
            FAIL,
            "make setup",
        ),
        ({"tensorflow": {"error": "import ended by SIGILL", "signal": "SIGILL"}}, "TensorFlow", FAIL, "AVX"),
        ({"tensorflow": {"error": "import ended by SIGILL", "signal": "SIGILL"}}, "Horovod", FAIL, "make setup"),
        ({**GOOD, "horovod": {"error": "ImportError: undefined symbol: _ZN10"}}, "Horovod", FAIL, "make setup"),
        (changed(horovod_tensorflow="2.18.1"), "Horovod", FAIL, "TensorFlow is 2.15.1"),
        (changed(horovod_built_with={"mpi": False, "gloo": True}), "Horovod", FAIL, "cannot use MPI"),
        (changed(horovod_wakes=False), "Horovod", WARN, "comm.backend=mpi, or the Horovod that `make setup` builds"),
        ({**GOOD, "horovod": NONE}, "Horovod", WARN, "make setup"),
        ({**GOOD, "horovod": NONE, "mpi": NONE}, "Horovod", FAIL, "make setup"),
        ({**GOOD, "mpi": NONE}, "mpi4py", WARN, "comm.backend: mpi"),
        (changed(tensorflow_version="2.14.1"), "TensorFlow", FAIL, "needs 2.15 or newer"),
        (changed(tensorflow_version="2.22.0-dev20270101"), "TensorFlow", WARN, "newer than 2.21"),
        (changed(tensorflow_gpus=["GPU:0"], tensorflow_cuda=True), "GPU", WARN, "GPU=1"),
    ],
)
def test_bad_installations_and_their_remedies(described, name, status, says):
    (check,) = [c for c in doctor.check_training(described) if c.name == name]
    assert check.status == status
    assert says in check.remedy


@pytest.mark.parametrize(("version", "status"), [((3, 11), OK), ((3, 13), WARN), ((3, 9), FAIL), ((3, 14), FAIL)])
def test_python(version, status):
    assert doctor.check_python(version).status == status


def test_mpirun_of_another_mpi_is_noticed(monkeypatch):
    found = {"now": Mpirun("/site/mpirun", "Open MPI 5", "mpirun (Open MPI) 5.0.11")}
    monkeypatch.setattr("hpcgan.launch.mpirun.find_mpirun", lambda: found["now"])
    assert doctor.check_mpirun(GOOD["horovod"]).status == OK
    found["now"] = Mpirun("/site/mpirun", "Open MPI 4", "mpirun (Open MPI) 4.1.4")
    assert doctor.check_mpirun(GOOD["horovod"]).status == WARN
    found["now"] = Mpirun("/site/mpirun", "MPICH", "HYDRA")
    assert doctor.check_mpirun(GOOD["horovod"]).status == WARN
    assert doctor.check_mpirun({}).status == OK

    def none():
        raise HpcganError("no mpirun found")

    monkeypatch.setattr("hpcgan.launch.mpirun.find_mpirun", none)
    assert doctor.check_mpirun({}).status == FAIL


def job(monkeypatch, out="", err="", code=0, error=None):
    def launch(argv, ranks, *, watch, **options):
        watch.stdout.write(out.encode())
        watch.stderr.write(err.encode())
        if error is not None:
            raise error
        return code

    monkeypatch.setattr("hpcgan.launch.launcher.launch", launch)


def test_the_job_is_judged_by_what_the_ranks_computed(monkeypatch):
    right = {"ranks": 2, "backend": "horovod", "threads": 1, "allreduce": [0.5, 2.0]}
    job(monkeypatch, out=f"noise\n{json.dumps(right)}\n")
    assert doctor.check_allreduce(2, 9).status == OK
    for wrong in ({"ranks": 1}, {"allreduce": [0.0, 2.0]}):
        job(monkeypatch, out=json.dumps({**right, **wrong}))
        assert doctor.check_allreduce(2, 9).status == FAIL
    job(monkeypatch, out=json.dumps(right), code=1)
    assert doctor.check_allreduce(2, 9).status == FAIL
    job(monkeypatch, err="noise\nhpcgan: mpirun started 2 ranks, but MPI reports a world of 1; ...\n", code=1)
    assert "a world of 1" in doctor.check_allreduce(2, 9).detail
    job(monkeypatch)
    assert doctor.check_allreduce(2, 9).status == FAIL
    job(monkeypatch, error=JobTimeout("too long"))
    assert "no answer from 2 ranks within 9 s" in doctor.check_allreduce(2, 9).detail


def test_exit_code_json_and_text(monkeypatch, capsys):
    good = Check("x", OK, "fine")
    for name in ("check_python", "check_hpcgan", "check_fastjet", "check_pythia"):
        monkeypatch.setattr(doctor, name, lambda: good)
    monkeypatch.setattr(doctor, "describe_training", lambda: GOOD)
    monkeypatch.setattr(doctor, "check_mpirun", lambda user: Check("MPI", OK, "there"))
    monkeypatch.setattr(doctor, "check_allreduce", lambda ranks, timeout: Check("allreduce", OK, f"{ranks} ranks"))
    args = SimpleNamespace(json=False, ranks=2, timeout=9.0)
    assert doctor.run(args) == 0
    assert capsys.readouterr().out.endswith("all is well\n")
    monkeypatch.setattr(doctor, "check_mpirun", lambda user: Check("MPI", FAIL, "absent", "install it"))
    args.json = True
    assert doctor.run(args) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    failed = {check["name"]: check["remedy"] for check in report["checks"] if check["status"] == FAIL}
    assert failed == {"MPI": "install it", "allreduce": "see above"}


def test_a_tensorflow_that_kills_its_process_is_an_answer(monkeypatch, tmp_path):
    def python(text):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    python("kill -ILL $$")
    assert doctor.describe_training() == {"tensorflow": {"error": "import ended by SIGILL", "signal": "SIGILL"}}
    python("echo 'No module named hpcgan' >&2; exit 1")
    assert doctor.describe_training() == {"tensorflow": {"error": "No module named hpcgan"}}
    python(f"echo noise; echo '{json.dumps(GOOD)}'")
    assert doctor.describe_training() == GOOD


def test_real_checks_of_the_physics_libraries(capfd):
    pytest.importorskip("fastjet")
    pytest.importorskip("pythia8mc")
    assert doctor.check_fastjet().status == OK
    assert doctor.check_pythia().status == OK
    assert capfd.readouterr().out == ""  # no banners between the lines of the report, or in its JSON


def test_a_missing_library_is_a_failure_with_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastjet", None)
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    for check in (doctor.check_fastjet(), doctor.check_pythia()):
        assert check.status == FAIL
        assert "pip install" in check.remedy
