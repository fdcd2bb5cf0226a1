"""tools/setup.sh: what it says when something is missing. Nothing is downloaded or built here.

Each test fakes a machine: a PATH with exactly the programs that it has. The set-up itself has been run
already, by whoever made the environment these tests run in.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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


FILES = (
    "tools/setup.sh",
    "tools/horovod-cmake.sh",
    "tools/horovod_wake.py",
    "setup.py",
    "constraints.txt",
    "pyproject.toml",
)


class Machine:
    """A copy of what the set-up needs, a PATH of our own, no network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.tree / "tools").mkdir(parents=True)
        for name in FILES:
            shutil.copy(ROOT / name, self.tree / name)
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
    *extras_require*) exec {sys.executable} "$@" ;;
    *importlib.metadata*) echo 2.15.1 ;;
    --version) echo Python {version}.0 ;;
    *) exit 1 ;;
esac""",
        )

    def compiler(self) -> None:
        # -o FILE: make FILE.
        self.add("g++", 'while [ $# -gt 0 ]; do [ "$1" = -o ] && touch "$2"; shift; done')

    def run(self, *extras: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "tools/setup.sh", *extras],
            cwd=self.tree,
            env={"PATH": str(self.bin), "HOME": str(self.folder), "LC_ALL": "C", **env},
            capture_output=True,
            text=True,
            timeout=60,
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
    machine.python("3.13")
    machine.add("python3.12", "exit 127  # a shim without a version behind it")
    message = machine.refuses()
    assert "no Python 3.10 to 3.12 found" in message
    assert "apt install python3.11" in message


def test_a_named_python_that_is_wrong(machine):
    machine.python("3.13")
    assert "3.10 to 3.12 is needed" in machine.refuses(HPCGAN_PYTHON="python3.13")
    assert "cannot be run" in machine.refuses(HPCGAN_PYTHON="/no/python")


def test_no_venv_module(machine):
    machine.python(venv="exit 1")
    assert "apt install python3.11-venv" in machine.refuses()


def test_no_compiler(machine):
    (machine.bin / "g++").unlink()
    assert "no C++ compiler (g++); install g++" in machine.refuses()
    # Without TensorFlow and Horovod there is nothing to compile.
    assert machine.run("dev").returncode == 0


def test_a_compiler_that_does_not_work(machine):
    machine.add("g++", "echo 'fatal error: optional: No such file or directory' >&2; exit 1")
    done = machine.run()
    assert done.returncode == 1
    assert "optional: No such file" in done.stderr
    assert "cannot build a C++17 program" in done.stderr


def test_no_disk_space(machine):
    machine.add("df", "echo h; echo '/dev/vda 100 90 12 99% /'")
    message = machine.refuses()
    assert "has 12 MB free" in message
    assert "HPCGAN_VENV" in message


def test_mpicc_that_is_not_there(machine):
    assert "MPICC=/no/mpicc is not an executable" in machine.refuses(MPICC="/no/mpicc")
    assert "no mpicc on PATH" in machine.refuses(HPCGAN_MPI="site")


def test_a_broken_site_mpi(machine):
    machine.add("mpicc", "[ \"$1\" = -show ] && echo gcc || { echo 'ld: cannot find -lmpi' >&2; exit 1; }")
    assert "has no mpicxx beside it" in machine.refuses()
    machine.add("mpicxx", "exit 0")
    assert "has no mpirun" in machine.refuses()
    machine.add("mpirun", "exit 0")
    done = machine.run()
    assert done.returncode == 1
    assert "ld: cannot find -lmpi" in done.stderr
    assert "HPCGAN_MPI=pypi" in done.stderr


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
    message = machine.refuses()
    assert "building horovod failed: error: ‘foo’ was not declared" in message
    assert Path(message.split("[log: ")[1].rstrip("]")).exists()
    cache = machine.folder / ".cache/hpcgan/wheels"
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
    assert "tensorflow-cpu==2.15.1; python_version < '3.12'" in needed
    calls = (machine.folder / "calls").read_text().splitlines()[1:]  # but for the tools
    ours = ["/needed.txt", "pip wheel", "-e .[dev,build]", "--force-reinstall"]
    found = [next(word for word in ours if word in call) for call in calls]
    assert found in (ours, [ours[0], ours[2], ours[1], ours[3]])  # those beside one another in any order


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
    assert f"building horovod failed: {says} [log: " in machine.refuses()


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


def test_horovod_is_configured_once_also_with_sources_of_an_unknown_form(tmp_path):
    """The stand-in for cmake adds its options to the configure call only, and changes what it knows."""
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
