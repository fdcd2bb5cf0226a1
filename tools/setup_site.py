"""What a site has of its own: asked of the site's Python by tools/setup.sh, with nothing but the standard library.

    PYTHON tools/setup_site.py FOLDER

The site's MPI, TensorFlow and Horovod are looked at and their versions checked. In FOLDER are then

- `constraints.txt`: the packages that they stand on, at the versions that the site has: pip may not choose others;
- `zz_hpcgan_site.pth`: what makes the site's packages seen from another environment, after its own;
- `site.json`: what there was, and the modules that were loaded, which `hpcgan doctor` compares with those that are;
- `build`: only where mpi4py has to be compiled.

Exit code 1 and one line on standard error with the remedies where something is missing or too old.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: The oldest versions that hpcgan runs with.
TENSORFLOW, HOROVOD, MPI4PY = (2, 15), (0, 28), (4, 0)
#: Names under which TensorFlow is packaged.
TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "intel-tensorflow", "tensorflow-rocm")

#: What packages are installed with, which each environment has of its own.
TOOLS = {"pip", "setuptools", "wheel"}

# Asked in processes of their own: a library that does not fit the processor ends its process.
ASK_TENSORFLOW = """
import importlib.util, json, tensorflow
print(json.dumps({"version": tensorflow.__version__, "path": importlib.util.find_spec("tensorflow").origin}))
"""
ASK_HOROVOD = """
import json, pathlib, horovod, horovod.tensorflow as hvd
built = pathlib.Path(horovod.__path__[0], "metadata.json")
print(json.dumps({"version": horovod.__version__, "path": horovod.__file__, "mpi": bool(hvd.mpi_built()),
                  "tensorflow": json.loads(built.read_text()).get("tensorflow") if built.is_file() else None}))
"""
ASK_MPI4PY = """
import json, mpi4py
from mpi4py import MPI
library = MPI.Get_library_version().split(",")[0]
print(json.dumps({"version": mpi4py.__version__, "path": mpi4py.__file__, "library": library}))
"""


def main(folder: Path) -> int:
    """Look, and write down what there is; the exit code."""
    check_python()
    missing: list[str] = []
    parts: dict[str, Any] = {"python": {"version": sys.version.split()[0], "path": sys.executable}}
    mpirun = shutil.which("mpirun")
    if mpirun is None:
        missing.append("mpirun (load the MPI's module: module avail openmpi; conda: conda install openmpi)")
    else:
        parts["mpi"] = {"version": first_line([mpirun, "--version"]), "path": mpirun}
    tensorflow = ask(ASK_TENSORFLOW)
    if "error" in tensorflow:
        missing.append(
            f"TensorFlow ({tensorflow['error']}: load its module and the Python that it is for, "
            "or set HPCGAN_PYTHON to the Python that has it)"
        )
    elif version(tensorflow) < TENSORFLOW:
        missing.append(
            f"TensorFlow {dotted(TENSORFLOW)} or newer ({tensorflow['version']} is loaded: load a newer one)"
        )
    else:
        parts["tensorflow"] = tensorflow
    horovod = ask(ASK_HOROVOD) if "tensorflow" in parts else {"error": "not looked for without TensorFlow"}
    if "error" in horovod:
        parts["horovod"] = {"missing": horovod["error"]}
    elif version(horovod) < HOROVOD:
        missing.append(f"Horovod {dotted(HOROVOD)} or newer ({horovod['version']} is loaded: load a newer one)")
    elif not horovod["mpi"]:
        missing.append("a Horovod with MPI (the one that is loaded was built without: load another, or unload it)")
    elif horovod["tensorflow"] not in (None, tensorflow["version"]):
        missing.append(
            f"a Horovod for TensorFlow {tensorflow['version']} (the one that is loaded was built for "
            f"{horovod['tensorflow']}: load those that belong together)"
        )
    else:
        parts["horovod"] = horovod
    mpi4py = ask(ASK_MPI4PY)
    if "error" not in mpi4py and version(mpi4py) >= MPI4PY:
        parts["mpi4py"] = mpi4py
    elif shutil.which(os.environ.get("MPICC", "mpicc")) is None:
        missing.append("mpicc, which mpi4py is compiled with (load the MPI's module for compiling, or set MPICC)")
    if missing:
        print(f"setup: the site lacks {'; and '.join(missing)}", file=sys.stderr)
        return 1
    write(folder, parts)
    for name, part in parts.items():
        print(f"  {name}: {describe(part)}")
    return 0


def check_python() -> None:
    """End where setup.py does not take this Python."""
    bounds = re.search(r'python_requires=">=3\.(\d+),<3\.(\d+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert bounds is not None
    oldest, beyond = int(bounds[1]), int(bounds[2])
    if not oldest <= sys.version_info[1] < beyond:
        sys.exit(
            f"setup: the site's Python ({sys.executable}) is {sys.version.split()[0]}, and 3.{oldest} to "
            f"3.{beyond - 1} is needed: load another module, or set HPCGAN_PYTHON"
        )


def ask(program: str) -> dict[str, Any]:
    """The answer of a program in this Python, or `error`."""
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        return {"error": f"its import ended by {signal.Signals(-done.returncode).name}"}
    if done.returncode > 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"error": "not installed" if last.startswith("ModuleNotFoundError") else last[:160]}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def first_line(command: list[str]) -> str:
    """What a program says first of itself."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return ((done.stdout + done.stderr).strip().splitlines() or ["says nothing of itself"])[0]


def version(part: dict[str, Any]) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", part["version"])[:2])


def dotted(numbers: Iterable[int]) -> str:
    """A version as people write it."""
    return ".".join(map(str, numbers))


def describe(part: dict[str, Any]) -> str:
    """A part in one line."""
    if "missing" in part:
        return (
            f"{part['missing']}: ranks average over mpi4py (comm.backend=mpi). For Horovod load the site's, or run "
            "make setup without SITE=1"
        )
    return f"{part['version']} ({part['path']})"


def write(folder: Path, parts: dict[str, Any]) -> None:
    """The files of the set-up."""
    pins = {name: metadata.version(name) for name in sorted(closure(parts) - TOOLS)}
    (folder / "constraints.txt").write_text("".join(f"{name}=={pin}\n" for name, pin in pins.items()))
    lines = [f"import site; site.addsitedir({path!r})\n" for path in package_folders()]
    (folder / "zz_hpcgan_site.pth").write_text("".join(lines))
    loaded = [name for name in os.environ.get("LOADEDMODULES", "").split(":") if name]
    site = {"modules": loaded, "conda": os.environ.get("CONDA_PREFIX"), **parts}
    (folder / "site.json").write_text(json.dumps(site, indent=2, sort_keys=True) + "\n")
    if "mpi4py" not in parts:
        (folder / "build").touch()


def closure(parts: dict[str, Any]) -> set[str]:
    """Names of the packages that are used as they are, and of all that they need and have."""
    names: set[str] = set()
    waiting = ["numpy", *(TENSORFLOWS if "tensorflow" in parts else ()), *(name for name in parts if name != "mpi")]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in names:
            continue
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        names.add(name)
        waiting += plain_names(needed)
    return names


def plain_names(requirements: Iterable[str]) -> Iterator[str]:
    """Names in requirements, without those of extras."""
    for requirement in requirements:
        named = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
        if named is not None and "extra ==" not in requirement:
            yield named[0]


def package_folders() -> list[str]:
    """Folders in which this Python looks for packages, in order, without those of its standard library."""
    own = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    own |= {os.path.join(path, "lib-dynload") for path in own} | {str(ROOT), str(ROOT / "tools")}
    return [path for path in sys.path if path and os.path.isdir(path) and os.path.realpath(path) not in own]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
