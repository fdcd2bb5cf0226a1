"""`hpcgan doctor`: what is installed, how it was built, what would run here, and a real job of two ranks."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import hpcgan
from hpcgan.commands import arguments
from hpcgan.errors import EXIT_DONE, EXIT_FAILED, HpcganError
from hpcgan.system.failure import in_one_line

OK, WARN, FAIL = "OK", "WARN", "FAIL"
INSTALL_TRAIN = "run `make setup`, or pip install 'hpcgan[train]'"


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    status: str
    detail: str
    remedy: str = ""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "doctor",
        description="Report what is installed and how it was built, then run a real allreduce over MPI. "
        "Exit code 0 if nothing has failed.",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--ranks", type=arguments.processes, default=2, metavar="N", help="ranks of the test job (default: 2)"
    )
    parser.add_argument(
        "--timeout", type=arguments.seconds, default=180.0, metavar="S", help="seconds for the test job (default: 180)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the checks, printing each as it comes."""
    checks: list[Check] = []
    for check in _checks(args):
        checks.append(check)
        if not args.json:
            print(line(check), flush=True)
    failed = [check for check in checks if check.status == FAIL]
    if args.json:
        print(json.dumps({"ok": not failed, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        print("all is well" if not failed else f"{len(failed)} of {len(checks)} checks failed")
    return EXIT_FAILED if failed else EXIT_DONE


def _checks(args: argparse.Namespace) -> Iterator[Check]:
    yield from (check_python(), check_hpcgan(), check_cores(args.ranks))
    yield check_fastjet()
    yield check_pythia()
    described = describe_training()
    training = check_training(described)
    yield from training
    mpirun = check_mpirun(next((d for d in map(described.get, ("horovod", "mpi")) if d and "error" not in d), {}))
    yield mpirun
    yield from check_site()
    if any(check.status == FAIL for check in (*training, mpirun) if check.name in ("TensorFlow", "Horovod", "MPI")):
        yield Check("allreduce", FAIL, "not tried: it needs TensorFlow, Horovod or mpi4py, and mpirun", "see above")
    else:
        yield check_allreduce(args.ranks, args.timeout)


def line(check: Check) -> str:
    """A check as the user reads it."""
    text = f"{check.status:<5}{check.name:<12}{check.detail}"
    return f"{text}\n{'':17}-> {check.remedy}" if check.remedy else text


# --- the checks ----------------------------------------------------------------------------------------


def check_python(info: tuple[int, int] | None = None) -> Check:
    """The Python version and where it is."""
    major, minor = info or sys.version_info[:2]
    detail = f"{platform.python_version() if info is None else f'{major}.{minor}'} ({sys.executable})"
    if not (3, 10) <= (major, minor) <= (3, 13):
        return Check("Python", FAIL, detail, "hpcgan needs Python 3.10 to 3.13: install 3.11")
    if (major, minor) != (3, 11):
        return Check("Python", WARN, detail, "the pinned and tested set of packages is for Python 3.11")
    return Check("Python", OK, detail)


def check_hpcgan() -> Check:
    """This package."""
    return Check("hpcgan", OK, f"{hpcgan.__version__} ({Path(hpcgan.__file__).parent})")


def check_cores(ranks: int) -> Check:
    """Cores, and how ranks and threads would share them."""
    from hpcgan.launch.topology import available_cores, plan

    cores = available_cores()
    layouts = [f"{n} x {plan(n, cores).threads}" for n in sorted({1, ranks, cores})]
    detail = f"{cores} usable; ranks x threads: {', '.join(layouts)}"
    if ranks > cores:
        return Check("cores", WARN, detail, "more ranks than cores: this works, but slowly")
    return Check("cores", OK, f"{detail}; fastest: --ranks {cores}")


def check_fastjet() -> Check:
    """Cluster three particles, two of them side by side."""

    def cluster() -> str:
        import awkward as ak
        import fastjet
        import numpy as np

        px, py, pz = np.array([[50.0, 30.0, -80.0], [0.0, 3.0, -3.0], [0.0, 0.0, 0.0]])
        particles = ak.Array({"px": px, "py": py, "pz": pz, "E": np.sqrt(px**2 + py**2 + pz**2)})
        definition = fastjet.JetDefinition(fastjet.antikt_algorithm, 1.0)
        with _silence():  # FastJet prints a banner with its first jets
            jets = fastjet.ClusterSequence(particles, definition).inclusive_jets()
        energies = sorted(ak.to_numpy(jets.E))
        if len(energies) != 2 or abs(sum(energies) - particles.E.to_numpy().sum()) > 1e-9:
            raise HpcganError(f"three particles gave jets of {energies}")
        return f"{version('fastjet')}, clusters"

    return _guarded("FastJet", cluster, "pip install --force-reinstall fastjet (or run `make setup`)")


def check_pythia() -> Check:
    """Generate one event."""

    def generate() -> str:
        import pythia8mc

        pythia = pythia8mc.Pythia("", False)
        for setting in ("Print:quiet = on", "HardQCD:all = on", "PhaseSpace:pTHatMin = 100.", "PartonLevel:MPI = off"):
            pythia.readString(setting)
        if not (pythia.init() and any(pythia.next() for _ in range(10))):
            raise HpcganError("PYTHIA could not generate an event")
        final = sum(particle.isFinal() for particle in pythia.event)
        return f"{version('pythia8mc')}, generates ({final} final particles)"

    return _guarded("PYTHIA", generate, "pip install --force-reinstall pythia8mc (or run `make setup`)")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Nothing that C or C++ code prints gets through."""
    sys.stdout.flush()
    stdout = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
        ctypes.CDLL(None).fflush(None)
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(null)


def _guarded(name: str, do: Callable[[], str], remedy: str) -> Check:
    try:
        return Check(name, OK, do())
    except PackageNotFoundError:
        return Check(name, FAIL, "not installed", remedy)
    except Exception as error:
        return Check(name, FAIL, in_one_line(error), remedy)


def describe_training() -> dict[str, Any]:
    """What TensorFlow, Horovod and mpi4py say of themselves, asked in a process of its own.

    A TensorFlow that does not fit the processor ends its process instead of raising.
    """
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "hpcgan.comm.selftest", "--describe"]
    try:
        process = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False
        )
    except subprocess.TimeoutExpired:
        return {"tensorflow": {"error": "import did not end within 300 s"}}
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        return {"tensorflow": {"error": f"import ended by {name}", "signal": name}}
    try:
        described: dict[str, Any] = json.loads(process.stdout.decode().splitlines()[-1])
    except (ValueError, IndexError):
        last = (process.stderr.decode(errors="replace").strip().splitlines() or ["no output"])[-1]
        return {"tensorflow": {"error": last}}
    return described


def check_training(described: dict[str, Any]) -> list[Check]:
    """TensorFlow, GPUs, and what the ranks average with."""
    tensorflow = described.get("tensorflow", {"error": "not installed"})
    if "error" in tensorflow:
        lacks_avx = tensorflow.get("signal") == "SIGILL"
        remedy = "this processor lacks what TensorFlow needs (AVX)" if lacks_avx else INSTALL_TRAIN
        return [
            Check("TensorFlow", FAIL, tensorflow["error"], remedy),
            Check("Horovod", FAIL, "not tried: it needs TensorFlow", INSTALL_TRAIN),
        ]
    horovod, mpi4py = (described.get(name, {"error": "not installed"}) for name in ("horovod", "mpi"))
    return [
        _check_tensorflow(tensorflow),
        _check_gpus(tensorflow["gpus"], nccl=horovod.get("built_with", {}).get("nccl", False)),
        _check_horovod(horovod, tensorflow["version"], instead="error" not in mpi4py),
        _check_mpi4py(mpi4py),
    ]


def _check_tensorflow(tensorflow: dict[str, Any]) -> Check:
    from hpcgan.comm import import_tensorflow

    oldest, newest = map(import_tensorflow.release_text, (import_tensorflow.OLDEST, import_tensorflow.NEWEST))
    detail = f"{tensorflow['version']} ({'CUDA' if tensorflow['cuda'] else 'CPU'} build)"
    age = import_tensorflow.age(tensorflow["version"])
    if age == "older":
        return Check("TensorFlow", FAIL, detail, f"hpcgan needs {oldest} or newer: {INSTALL_TRAIN}")
    if age == "newer":
        return Check("TensorFlow", WARN, detail, f"newer than {newest}, the newest that hpcgan was tested with")
    return Check("TensorFlow", OK, detail)


def _check_gpus(gpus: list[str], nccl: bool) -> Check:
    remedy = "make setup GPU=1 (untested)"
    if gpus and not nccl:
        return Check("GPU", WARN, f"{len(gpus)} seen, but Horovod has no NCCL", remedy)
    if not gpus and shutil.which("nvidia-smi"):
        return Check("GPU", WARN, "nvidia-smi is here, but TensorFlow sees no GPU", remedy)
    return Check("GPU", OK, f"{len(gpus)} seen (one rank a GPU; untested)" if gpus else "none: ranks use cores")


def _check_horovod(horovod: dict[str, Any], tensorflow: str, instead: bool) -> Check:
    """What it was built with and for; without it all is well where mpi4py is there instead."""
    if horovod.get("error") == "not installed" and instead:
        remedy = "`make setup` builds it where there is a compiler"
        return Check("Horovod", WARN, "not installed: the ranks average over mpi4py", remedy)
    if "error" in horovod:
        return Check("Horovod", FAIL, horovod["error"], INSTALL_TRAIN)
    built = horovod["built_with"]
    parts = ", ".join(name.upper() for name, is_built in built.items() if is_built)
    detail = f"{horovod['version']}, built with {parts or 'nothing'} for TensorFlow {horovod['tensorflow'] or '?'}"
    if not built.get("mpi"):
        return Check("Horovod", FAIL, detail, "it cannot use MPI: run `make setup`")
    if horovod["tensorflow"] not in (None, tensorflow):
        return Check("Horovod", FAIL, detail, f"TensorFlow is {tensorflow}: run `make setup`")
    if built.get("nccl"):
        return Check("Horovod", OK, detail)
    from hpcgan.comm.horovod import AS_FAST, POLLS

    if not horovod.get("wakes", True):
        return Check("Horovod", WARN, detail, POLLS)
    return Check("Horovod", OK, f"{detail}; {AS_FAST}")


def _check_mpi4py(mpi4py: dict[str, Any]) -> Check:
    if "error" in mpi4py:
        return Check("mpi4py", WARN, mpi4py["error"], f"only comm.backend: mpi needs it: {INSTALL_TRAIN}")
    return Check("mpi4py", OK, mpi4py["version"])


def check_mpirun(user: dict[str, Any]) -> Check:
    """The launcher, and whether it belongs to the MPI library that Horovod, or mpi4py without it, has loaded."""
    from hpcgan.launch.mpirun import find_mpirun
    from hpcgan.launch.topology import mpi_flavour

    try:
        mpirun = find_mpirun()
    except HpcganError as error:
        return Check("MPI", FAIL, str(error), INSTALL_TRAIN)
    library = user.get("mpi_version") or "library unknown"
    detail = f"{mpirun.version} ({mpirun.path}); library: {library}"
    if user.get("mpi_library"):
        detail += f" ({user['mpi_library']})"
    flavour = mpi_flavour(library.replace("Open MPI v", "Open MPI) "))
    if user.get("mpi_version") and flavour != mpirun.flavour:
        remedy = "mpirun and the MPI library differ: set HPCGAN_MPIRUN, or run `make setup` with one MPI on PATH"
        return Check("MPI", WARN, detail, remedy)
    return Check("MPI", OK, detail)


def check_site() -> list[Check]:
    """Libraries of the site (modules, conda), where there are any."""
    from hpcgan.launch.mpirun import find_mpirun
    from hpcgan.system import site

    try:
        mpirun = find_mpirun().path
    except HpcganError:
        mpirun = None
    report = site.report(mpirun)
    if report is None:
        return []
    return [Check("site", WARN if report.remedy else OK, report.detail, report.remedy)]


def check_allreduce(ranks: int, timeout: float) -> Check:
    """A real job through the launcher: every rank checks what the collectives gave it."""
    from hpcgan.launch.launcher import Watch, launch
    from hpcgan.launch.process import JobTimeout

    name = "allreduce"
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            watch = Watch(0.0, timeout, out, err, report=lambda text: None)
            code = launch([], ranks, module="hpcgan.comm.selftest", watch=watch)
        except JobTimeout:
            remedy = "overloaded, or a firewall between the ranks? try --timeout 600, `mpirun -np 2 hostname`"
            return Check(name, FAIL, f"no answer from {ranks} ranks within {timeout:.0f} s", remedy)
        except HpcganError as error:
            return Check(name, FAIL, str(error), "see above")
        out.seek(0)
        err.seek(0)
        output, errors = out.read().decode(errors="replace"), err.read().decode(errors="replace")
    try:
        answer = json.loads(next(text for text in output.splitlines() if text.startswith("{")))
    except (StopIteration, ValueError):
        answer = None
    if code != 0 or answer is None:
        lines = [text for text in errors.splitlines() if text.startswith("hpcgan:")] or errors.strip().splitlines()
        return Check(name, FAIL, f"exit code {code}: {lines[0] if lines else 'no output'}", "run `make setup`")
    mean = (ranks - 1) / 2
    if answer["ranks"] != ranks or answer["allreduce"] != [mean, 2.0]:
        return Check(name, FAIL, f"{ranks} ranks gave {answer}", "run `make setup`")
    threads = answer["threads"]
    return Check(
        name,
        OK,
        f"{ranks} ranks x {threads} thread{'s' if threads > 1 else ''} ({answer['backend']}): "
        f"the mean of the ranks is {mean}",
    )
