"""What is a site's own among the libraries of a training, and whether it is what the environment was set up with."""

from __future__ import annotations

import json
import sys

import pytest

from hpcgan.commands import doctor
from hpcgan.system import site


@pytest.fixture
def world(tmp_path, monkeypatch):
    """An environment, and a site with packages that Python finds first."""
    for name in ("tensorflow", "horovod", "mpi4py"):
        folder = tmp_path / "apps" / name / "2.0" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(folder.parent))
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "venv").mkdir()
    return tmp_path


def recorded(world, **changes):
    """As `make setup SITE=1` writes it."""
    apps = world / "apps"
    content = {
        "modules": ["tensorflow/2.0", "openmpi/5"],
        "conda": None,
        "mpi": {"path": str(apps / "openmpi/bin/mpirun")},
        **{name: {"path": str(apps / name / "2.0" / name / "__init__.py")} for name in ("tensorflow", "horovod")},
        **changes,
    }
    path = world / "venv" / site.SITE_FILE
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def report(world, modules="tensorflow/2.0:openmpi/5", **environ):
    mpirun = str(world / "apps/openmpi/bin/mpirun")
    return site.report(mpirun, {"LOADEDMODULES": modules, **environ}, str(world / "venv"))


def test_nothing_is_said_where_all_is_of_this_environment(world):
    assert site.report(str(world / "bin/mpirun"), {}, str(world)) is None


def test_each_library_has_the_module_that_it_is_of(world):
    detail = report(world).detail
    assert f"MPI of module openmpi/5 ({world}/apps/openmpi/bin/mpirun)" in detail
    assert f"TensorFlow of module tensorflow/2.0 ({world}/apps/tensorflow/2.0/tensorflow)" in detail
    assert f"Horovod at {world}/apps/horovod/2.0/horovod" in detail


def test_a_conda_environment_is_named(world):
    assert f"TensorFlow of the conda environment {world}/apps" in report(world, "", CONDA_PREFIX=f"{world}/apps").detail


def test_all_is_well_where_it_is_what_the_set_up_used(world):
    recorded(world)
    assert report(world).remedy == ""


@pytest.mark.parametrize(
    ("changes", "modules", "says"),
    [
        ({}, "tensorflow/2.0", "module load openmpi/5 (loaded when this environment was set up"),
        ({"conda": "/opt/conda"}, "tensorflow/2.0:openmpi/5", "conda activate /opt/conda"),
        ({"horovod": {"path": "/other/horovod.py"}}, "tensorflow/2.0:openmpi/5", "Horovod was /other/horovod.py when"),
    ],
)
def test_what_has_changed_since_the_set_up_is_said_with_the_remedy(world, changes, modules, says):
    recorded(world, **changes)
    assert says in report(world, modules).remedy


def test_doctor_has_a_line_for_the_site(monkeypatch):
    monkeypatch.setattr(site, "report", lambda mpirun: site.SiteReport("TensorFlow at /apps", "module load openmpi/5"))
    (check,) = doctor.check_site()
    assert (check.name, check.status, check.remedy) == ("site", doctor.WARN, "module load openmpi/5")
    monkeypatch.setattr(site, "report", lambda mpirun: None)
    assert doctor.check_site() == []
