"""The data of a run are known by their content: where they are looked for, what is refused, what a run is called."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import sweeps
import tiny
from studies import SETTING

from hpcgan import api
from hpcgan import config as configuration
from hpcgan.commands.cli import main
from hpcgan.config import Config
from hpcgan.data import storage
from hpcgan.data.generators import make_data_set
from hpcgan.data.storage import Target
from hpcgan.errors import HpcganError, InputError
from hpcgan.evaluation import conditions, epoch_samples, report
from hpcgan.interactive.training import Training
from hpcgan.launch.process import Requests
from hpcgan.overlay import study as overlay
from hpcgan.physics.calorimeter import Grid, Segmentation
from hpcgan.problems import run_data
from hpcgan.problems.base import problem_class
from hpcgan.problems.calorimeter import generate as calo_generate
from hpcgan.problems.detector_images import files as hdf5
from hpcgan.runs.directory import RunDirectory
from hpcgan.scaling import measure
from hpcgan.sweep import study as studies
from hpcgan.sweep.store import Assignment, StudyDirectory
from hpcgan.sweep.trial import Trial


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with data in it."""
    tiny.write_data(tmp_path / "data", 20)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(path: Path | str, *overrides: str) -> Config:
    return tiny.config(Path(path), *overrides)


def begun(folder: Path, settings: Config) -> RunDirectory:
    """A run as an attempt leaves it before its first step."""
    run = RunDirectory(folder)
    run.create(settings)
    run_data.write(run, run_data.identify(settings))
    return run


def others(folder: Path, n: int = 20, seed: int = 9) -> Path:
    """Other events in the place of those that are there."""
    shutil.rmtree(folder, ignore_errors=True)
    with hdf5.Writer(Target(folder, storage.split_sizes(n), {"settings": "{}"})) as writer:
        writer.append(tiny.images(n, seed), 1.0, 1.0, 1400.0, 850.0)
    return folder


def contents(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(p), p.stat().st_mtime_ns) for p in folder.rglob("*"))


# --- what a run is called ------------------------------------------------------------------------------------------


def test_the_default_directory_is_that_of_the_content(place: Path) -> None:
    first = api.default_directory(config("data"))
    (place / "link").symlink_to("data")
    shutil.copytree("data", place / "staged" / "copy")
    for path in (place / "data", "./data", "link", "staged/copy"):
        assert api.default_directory(config(path)) == first
    others(place / "other")
    assert api.default_directory(config("other")) != first
    others(place / "data")
    assert api.default_directory(config("data")) == api.default_directory(config("other"))
    assert api.default_directory(config("other", "seed=2")) != api.default_directory(config("other"))
    # Of data that are not there nothing is known, which whoever wants to read them says.
    assert api.default_directory(config("gone")) == api.default_directory(config("gone as well"))


# --- going on ------------------------------------------------------------------------------------------------------


def test_preflight_takes_the_same_data_from_anywhere(place: Path) -> None:
    run = begun(place / "run", config("data"))
    (place / "link").symlink_to("data")
    shutil.copytree("data", place / "staged")
    for path in (place / "data", "link", "staged"):
        api.preflight(config(path), run, 1)
    shutil.rmtree("data")
    api.preflight(config(place / "staged"), run, 1)


BACKENDS = """
import os
import hpcgan.comm.base
class Whole(hpcgan.comm.base.SerialComm): ...
class Other: ...
"""


def test_preflight_refuses_a_backend_that_no_rank_could_load_and_imports_none(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "site_comm.py").write_text(BACKENDS)
    (place / "dying_comm.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.setenv("PYTHONPATH", f"{place}:{os.environ.get('PYTHONPATH', '')}")
    run = RunDirectory(place / "run")
    for name, message in (
        ("site_comm:Other", r"comm.backend 'site_comm:Other': is no class of a comm.backend"),
        ("site_comm:Lost", r"comm.backend 'site_comm:Lost': module site_comm has no 'Lost'"),
        ("no_comm:Lost", r"comm.backend 'no_comm:Lost': there is no module 'no_comm' on Python's path"),
        ("dying_comm:Lost", r"comm.backend 'dying_comm:Lost': its import ended Python: exit code 7"),
    ):
        with pytest.raises(InputError, match=message) as error:
            api.preflight(config("data", f"comm.backend={name}"), run, 2)
        assert "\n" not in str(error.value)
    api.preflight(config("data", "comm.backend=site_comm:Whole"), run, 2)
    assert not {"site_comm", "dying_comm"} & set(sys.modules)


@pytest.mark.parametrize("split", ["train", "val"])
def test_other_data_under_the_same_path_are_refused_and_nothing_is_written(place: Path, split: str) -> None:
    run = begun(place / "run", config("data"))
    before = contents(run.path)
    with h5py.File(f"data/{split}.h5", "r+") as file:
        file["all_events/hist"][0, 3, 3] = 12.0
    with pytest.raises(InputError) as error:
        api.preflight(config("data"), run, 1)
    assert str(error.value) == (
        f"data/{split}.h5: holds other data than the run {run.path} was trained with (other values of "
        "all_events/hist); give the data that it was trained with (data.path=...), or another directory with --run"
    )
    assert contents(run.path) == before
    others(place / "data", 30)
    with pytest.raises(InputError, match=r"data/train.h5: .*\(12 events there, 18 here\)"):
        api.preflight(config("data"), run, 1)


def test_another_test_split_is_warned_of_and_remembered_as_it_was(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun(place / "run", config("data"))
    known = run_data.read(run)
    with h5py.File("data/test.h5", "r+") as file:
        file["all_events/y"][0] = 0.0
    found = run_data.identify(config("data"))
    warning = run_data.check(run, config("data"), found)
    assert warning is not None
    assert warning.startswith("data/test.h5: holds other data than when the run began (other values of all_events/y)")
    assert api.preflight(config("data"), run, 1) == warning
    assert "holds other data" not in capsys.readouterr().err  # rank 0 is going to print it
    Path("data/test.h5").unlink()
    missing = run_data.identify(config("data"))
    assert list(missing.files) == ["train", "val"]
    assert run_data.check(run, config("data"), missing) is None
    run_data.write(run, missing)
    assert known is not None
    assert run_data.read(run).files == known.files  # type: ignore[union-attr]


def test_a_test_split_that_comes_later_is_remembered_from_then_on(place: Path) -> None:
    Path("data/test.h5").rename("later.h5")
    run = begun(place / "run", config("data"))
    Path("later.h5").rename("data/test.h5")
    run_data.write(run, run_data.identify(config("data")))
    others(place / "data")
    with pytest.raises(InputError, match=r"data/test.h5: holds other data"):
        run_data.load(run).data.require("test")


def test_the_particles_of_a_folder_are_known_each(tmp_path: Path) -> None:
    cells = Segmentation((Grid(3, 12), Grid(6, 6), Grid(6, 3)))
    for seed, particle in enumerate(("gamma", "eplus")):
        make_data_set(
            calo_generate.ShowerSet(calo_generate.Beam(particle, (2.0, 20.0), cells), 20, seed),
            tmp_path / "data" / particle,
        )
    raw = {
        "problem": "calogan",
        "data": {"path": str(tmp_path / "data")},
        "model": {"particles": ["gamma", "eplus"], "segmentation": str(cells)},
    }
    settings = configuration.load(raw)
    run = begun(tmp_path / "run", settings)
    assert sorted(run_data.read(run).files["train"]) == ["eplus", "gamma"]  # type: ignore[union-attr]
    make_data_set(
        calo_generate.ShowerSet(calo_generate.Beam("eplus", (2.0, 20.0), cells), 20, 7),
        tmp_path / "data" / "eplus",
        force=True,
    )
    with pytest.raises(InputError, match=r"data/eplus/train.h5: holds other data .*\(seed: 1 there, 7 here\)"):
        run_data.check(run, settings, run_data.identify(settings))


def test_a_rank_with_other_files_is_told_what_differs(place: Path) -> None:
    first = run_data.identify(config("data")).plain()
    run_data.check_same(run_data.identify(config(place / "data")), json.loads(json.dumps(first)), config("data"), "n1")
    with h5py.File("data/val.h5", "r+") as file:
        file["all_events/hist"].attrs["units"] = "GeV"
    with pytest.raises(InputError, match=r'data/val.h5 on n2: holds other data than rank 0 reads .*units: "MeV" there'):
        run_data.check_same(run_data.identify(config("data")), first, config("data"), "n2")


@pytest.mark.parametrize("broken", ["", "[]", '{"files": {"train": {"": {}}}, "places": []}', '{"files": 3}'])
def test_a_broken_record_is_named(place: Path, broken: str) -> None:
    run = begun(place / "run", config("data"))
    run.data_file.write_text(broken)
    for use in (lambda: run_data.load(run), lambda: api.preflight(config("data"), run, 1)):
        with pytest.raises(InputError, match=r"run/data.json: cannot be read: ") as error:
            use()
        assert "\n" not in str(error.value)


def test_a_record_that_cannot_be_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    run = begun(place / "run", config("data"))
    shutil.copytree("data", place / "elsewhere")
    monkeypatch.setattr(run_data, "write_atomic", full)
    run_data.write(run, run_data.identify(config("data")))  # nothing new
    with pytest.raises(HpcganError, match=r"data.json: cannot write: No space left on device"):
        run_data.write(run, run_data.identify(config("elsewhere")))


def test_only_so_many_places_are_remembered(place: Path) -> None:
    run = begun(place / "run", config("data"))
    for job in range(30):
        (place / f"job{job}").symlink_to("data")
        run_data.write(run, run_data.identify(config(f"job{job}")))
    found = run_data.read(run)
    assert found is not None
    assert len(found.places) == run_data.PLACES
    assert found.places[0] == str(place / "job29")


# --- the weights of another run ------------------------------------------------------------------------------------


def test_a_run_whose_weights_are_taken_is_known_by_what_it_is(place: Path) -> None:
    begun(place / "first", config("data"))
    begun(place / "second", config("data", "seed=2"))
    settings = config("data", "training.start_from=first")
    run = begun(place / "run", settings)
    directory = api.default_directory(settings)
    assert directory != api.default_directory(config("data"))
    assert api.default_directory(config("data", f"training.start_from={place}/first")) == directory
    assert api.default_directory(config("data", "training.start_from=second")) != directory
    shutil.move("first", "moved")
    moved = config("data", "training.start_from=moved")
    assert api.default_directory(moved) == directory
    run.check_config(moved, run.load_config())
    for same in (moved, settings):  # the latter is not there any more, but nobody needs it
        assert run_data.check(run, same, run_data.identify(same)) is None
    for start in ("second", "nowhere"):
        other = config("data", f"training.start_from={start}")
        with pytest.raises(InputError, match=f"run: the run there did not begin with the weights of {start} "):
            run_data.check(run, other, run_data.identify(other))
    with pytest.raises(InputError, match="another configuration"):
        run.check_config(config("data"), run.load_config())


# --- finding the data of a run -------------------------------------------------------------------------------------


def test_the_data_of_a_run_are_found_from_any_working_directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(place / "work" / "run", config("data"))
    assert run_data.load(run).data.path == Path("data")  # as it is written, where that leads there
    monkeypatch.chdir("/")
    assert run_data.load(run).data.path == place / "data"
    assert Training(run).config.data.path == place / "data"
    # Other data of the same name where the command is given are not taken for them.
    others(place / "here" / "data")
    monkeypatch.chdir(place / "here")
    assert run_data.load(run).data.path == place / "data"
    # The whole project is moved.
    (place / "project").mkdir()
    for name in ("work", "data"):
        shutil.move(place / name, place / "project" / name)
    moved = RunDirectory(place / "project" / "work" / "run")
    assert run_data.load(moved).data.path == place / "project" / "data"
    assert run_data.load(moved).dump() == {
        **run_dump(moved), "data": {**run_dump(moved)["data"], "path": str(place / "project" / "data")}
    }  # fmt: skip


def run_dump(run: RunDirectory) -> dict[str, object]:
    return run.load_config().dump()


def test_a_run_without_a_record_reads_what_its_configuration_says(place: Path) -> None:
    run = RunDirectory(place / "run")
    run.create(config("data"))
    found = run_data.load(run)
    assert found.data.path == Path("data")
    found.data.require("test")


def test_data_that_are_gone_or_others_are_refused_where_they_are_needed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(place / "run", config("data"))
    problem = problem_class("rpv")(config("data").model)
    others(place / "data")
    monkeypatch.chdir("/")
    refused = run_data.load(run)
    for split in ("train", "val", "test"):
        with pytest.raises(InputError, match=rf"{place}/data/{split}.h5: holds other data than the run .*/run was"):
            refused.data.require(split)
    with pytest.raises(InputError, match=r"train.h5: holds other data"):
        conditions.training_conditions(problem, refused)
    with pytest.raises(
        InputError, match=r"test.h5: holds other data .*; --data DIR says where they are, or takes others on purpose$"
    ):
        report.evaluate_run(run.path)
    shutil.rmtree(place / "data")
    with pytest.raises(InputError, match=rf"test.h5: no such file \(data of the run .*, which lay in {place}/data\)"):
        report.evaluate_run(run.path)
    assert main(["evaluate", str(run.path)]) == 2


def test_other_data_can_be_chosen_and_the_report_will_say_so(place: Path) -> None:
    run = begun(place / "run", config("data"))
    shutil.copytree("data", "copy")
    written = run.load_config()
    chosen, notice = run_data.with_other_data(written, run, Path("copy"))
    assert (chosen.data.path, notice) == (Path("copy"), None)
    chosen, notice = run_data.with_other_data(written, run, others(place / "other"))
    assert notice == f"The events of {place}/other are not the run's own (train, val, test): chosen with --data."
    chosen.data.require("test")


def test_pictures_show_the_real_events_of_the_run_only(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(place / "run", config("data"))
    with hdf5.Writer(Target(run.samples, {"epoch-0001": 4}, {"settings": "{}"})) as writer:
        writer.append(tiny.images(4), 1.0, 1.0, 0.0, 0.0)
    monkeypatch.chdir("/")
    drawn = epoch_samples.figure(run, 1)
    assert drawn is not None
    assert "not shown" not in drawn[0]
    others(place / "data")
    drawn = epoch_samples.figure(run, 1)
    assert drawn is not None
    assert "Real events are not shown" in drawn[0]


def test_overlays_refuse_pools_that_are_not_the_runs(place: Path) -> None:
    import pools

    pools.write_pool(place / "pool", 400, mu=3)
    raw = {"problem": "pileup", "data": {"path": "pool"}, "model": {"mu": 3, "filters": 2, "latent_dim": 3}}
    run = begun(place / "run", configuration.load(raw))
    shutil.rmtree("pool")
    pools.write_pool(place / "pool", 400, mu=3, seed=5)
    with pytest.raises(InputError, match=r"pool/test.h5: holds other data than the run"):
        overlay.overlay(run.path, place / "data" / "test.h5", 3, place / "out")


# --- studies -------------------------------------------------------------------------------------------------------


def test_a_sweep_goes_on_with_the_same_data_elsewhere_and_with_no_others(place: Path) -> None:
    def described(path: str) -> tuple[studies.Description, Config]:
        search = sweeps.space(sweeps.SEARCH, f"data.path={path}")
        return sweeps.describe(search), search.base

    study = StudyDirectory(place / "study")
    before = studies.default_directory(described("data")[0])
    with studies.opened(study, *described("data"), print):
        pass
    shutil.move("data", "moved")
    assert studies.default_directory(described("moved")[0]) == before
    with studies.opened(study, *described("moved"), print):
        assert RunDirectory(study.path).read_config()["data"]["path"] == "moved"
    trial = Trial(study, 0, Requests(print))  # one that was begun before goes on with the data where they are now
    assert trial._place_of_data(Assignment(number=0, params={}, seed=1, index=0)) == ['data.path="moved"']
    assert trial._place_of_data(Assignment(number=0, params={"data.path": "a"}, seed=1, index=0)) == []
    others(place / "moved", 30)
    assert studies.default_directory(described("moved")[0]) != before
    with pytest.raises(InputError) as error:
        studies.check(study, *described("moved"))
    assert str(error.value) == (
        f"moved/train.h5: holds other data than the study {study.path} was trained with (12 events there, 18 here); "
        "give the data that it was trained with (data.path=...), or another directory with --out"
    )
    with pytest.raises(InputError, match=r"data/train.h5: no such file"):
        studies.check(study, *described("data"))


def test_a_scaling_study_is_known_by_its_data_unless_it_reads_none(place: Path) -> None:
    def directories(path: str) -> list[Path]:
        kinds = (config(path, f"scaling.synthetic_data={synthetic}") for synthetic in ("true", "false"))
        return [measure.default_directory(kind) for kind in kinds]

    settings = config("data")
    before = directories("data")
    shutil.copytree("data", "copy")
    assert directories("copy") == before
    others(place / "data")
    after = directories("data")
    assert after[0] == before[0]
    assert after[1] != before[1]
    study = measure.Study(place / "study")
    study.prepare(settings, SETTING)
    study.prepare(config("copy"), SETTING)  # what is equal is told by the setting; points read the newer path
    assert study.config().data.path == Path("copy")


def test_columns_of_two_dimensions_are_data_too(place: Path) -> None:
    """(N, 1) instead of (N,) is another file, and said as what it is."""
    run = begun(place / "run", config("data"))
    with h5py.File("data/train.h5", "r+") as file:
        values = np.asarray(file["all_events/y"])
        del file["all_events/y"]
        file["all_events/y"] = values[:, None]
    with pytest.raises(InputError, match=r"all_events/y has shape \(12,\) there, \(12, 1\) here"):
        api.preflight(config("data"), run, 1)
