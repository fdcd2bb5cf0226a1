"""The recipes of containers/ and environment.yml: they say the same as one another and as the pins."""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import yaml
from roots import instructions

ROOT = Path(__file__).resolve().parents[2]
DEFINITION = (ROOT / "containers/hpcgan.def").read_text(encoding="utf-8")
SCRIPT = ROOT / "containers/build.sh"
PINS = dict(
    line.split("==")
    for name in ("constraints.txt", "constraints-tf2.21.0.txt")
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
    if "==" in line and not line.startswith("#")
)


def section(name: str) -> list[str]:
    """Lines of a section of the definition file."""
    (text,) = re.findall(rf"^%{name}$\n(.*?)(?=^%|\Z)", DEFINITION, re.MULTILINE | re.DOTALL)
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_both_recipes_start_from_the_same_image():
    assert instructions()[0] == ("FROM", [re.search(r"^From: (.*)$", DEFINITION, re.MULTILINE)[1]])


def test_both_recipes_run_the_same_steps_in_the_script_s_order():
    runs = [" ".join(words) for name, words in instructions() if name == "RUN"]
    assert runs == section("post")
    (steps,) = re.findall(r"^STEPS=\((.*)\)$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    assert [run.split() for run in runs] == [["/opt/hpcgan/source/containers/build.sh", step] for step in steps.split()]


def test_both_recipes_copy_the_same_files_to_the_same_places():
    copied = {}
    for name, words in instructions():
        if name == "COPY":
            for source in words[:-1]:
                copied[source] = f"{words[-1]}{source}" if words[-1].endswith("/") else words[-1]
    files = dict(line.split() for line in section("files"))
    files = {source: f"{target}{source}" if target.endswith("/") else target for source, target in files.items()}
    assert files == copied


def test_the_recipes_copy_what_the_set_up_reads():
    sources = [source for name, words in instructions() if name == "COPY" for source in words[:-1]]
    for path in ("setup.py", "pyproject.toml", "README.md", "constraints.txt", "constraints-tf2.21.0.txt", "hpcgan"):
        assert any(fnmatch(path, source) for source in sources), path
    for source in sources:
        assert list(ROOT.glob(source)), source


def test_both_recipes_start_processes_in_the_same_environment():
    assert ". /opt/hpcgan/source/containers/environment.sh" in section("environment")
    assert ". /opt/hpcgan/source/containers/environment.sh" in (ROOT / "containers/enter.sh").read_text()
    assert ("ENTRYPOINT", ["[/opt/hpcgan/source/containers/enter.sh]"]) in instructions()


def test_an_unknown_step_is_refused_before_anything_is_done(tmp_path):
    (tmp_path / "id").write_text("#!/bin/sh\necho 0\n")
    (tmp_path / "id").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run([SCRIPT, "sytem"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "containers/build.sh: unknown step sytem; the steps are system environment clean\n"


def environment(**variables: str) -> list[str]:
    """PATH and LD_LIBRARY_PATH of a process in the container, and what is complained of."""
    command = f'. {ROOT}/containers/environment.sh; echo "$PATH"; echo "$LD_LIBRARY_PATH"'
    clean = {"PATH": "/usr/bin:/bin", **variables}
    done = subprocess.run(["sh", "-c", command], env=clean, capture_output=True, text=True, check=True)
    return [*done.stdout.splitlines(), done.stderr]


def test_a_site_s_mpi_that_is_bound_in_goes_before_the_image_s(tmp_path):
    assert environment() == ["/opt/hpcgan/venv/bin:/usr/bin:/bin", "", ""]
    assert "has no libmpi.so.40 here: bind that folder" in environment(HPCGAN_SITE_MPI=str(tmp_path))[2]
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libmpi.so.40").touch()
    path, libraries, complaint = environment(HPCGAN_SITE_MPI=str(tmp_path), LD_LIBRARY_PATH="/before")
    assert path.startswith(f"{tmp_path}/bin:/opt/hpcgan/venv/bin")
    assert libraries == f"{tmp_path}/lib:{tmp_path}/lib64:/before"
    assert complaint == ""


def test_the_conda_environment_has_the_pinned_versions():
    described = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = [entry["pip"] for entry in described["dependencies"] if isinstance(entry, dict)]
    conda = dict(entry.split("=", 1) for entry in described["dependencies"] if isinstance(entry, str) and "=" in entry)
    assert conda["python"] == "3.11"  # which constraints.txt is for
    openmpi = {version for name, version in conda.items() if name.startswith("openmpi")}
    assert openmpi == {re.sub(r"\.\d+$", ".*", PINS["openmpi"])}
    pinned = dict(entry.split("==") for entry in pip if "==" in entry)
    assert pinned == {name: PINS[name] for name in ("mpi4py", "tensorflow-cpu")}
    for constraints in [entry.split()[1] for entry in pip if entry.startswith("--constraint")]:
        assert (ROOT / constraints).is_file()
    (project,) = [entry for entry in pip if entry.startswith("-e ")]
    extras = re.search(r"\[(.*)\]", project)[1].split(",")
    offered = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert all(f'"{extra}":' in offered for extra in extras)
