"""Settings measured on a machine: the file, what the launcher makes of it, how they are chosen."""

from __future__ import annotations

import json
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.commands import doctor
from hpcgan.errors import HpcganError, InputError
from hpcgan.launch import tuned
from hpcgan.launch.topology import INTEL, OPEN_MPI_5, plan
from hpcgan.launch.tuned import Tuned
from hpcgan.scaling import tune

FOUND = Tuned({"HOROVOD_CYCLE_TIME": "0.3", "OMPI_MCA_mpi_yield_when_idle": "0"}, "core", 2, 1, {"date": "today"})


def test_the_file_is_the_users_and_can_be_named_or_left_out():
    assert str(tuned.location({"HOME": "/home/me"})) == "/home/me/.config/hpcgan/tuned.json"
    assert str(tuned.location({"HOME": "/home/me", "XDG_CONFIG_HOME": "/etc/me"})) == "/etc/me/hpcgan/tuned.json"
    assert str(tuned.location({"HOME": "/home/me", "HPCGAN_TUNED": "/x.json"})) == "/x.json"
    assert tuned.location({"HOME": "/home/me", "HPCGAN_TUNED": "off"}) is None
    assert tuned.location({}) is None
    assert tuned.load({}, "anything") is None


def test_an_entry_a_kind_of_node(tmp_path):
    file = tmp_path / "deep" / "tuned.json"
    env = {"HPCGAN_TUNED": str(file)}
    assert tuned.load(env, "a") is None
    tuned.save(file, "a", FOUND)
    tuned.save(file, "b", Tuned(ranks=4, threads=2))
    assert tuned.load(env, "a") == FOUND
    assert tuned.load(env, "b") == Tuned(ranks=4, threads=2)
    assert tuned.load(env, "c") is None


def test_the_kind_of_node_is_processor_cores_and_mpi(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: Fast  CPU 9\nflags\t: fpu\nmodel name\t: x\n")
    assert tuned.machine(8, OPEN_MPI_5, tmp_path) == "Fast CPU 9, 8 cores, Open MPI 5"
    assert tuned.machine(1, INTEL, tmp_path / "nothing").endswith(", 1 core, Intel MPI")


@pytest.mark.parametrize(
    "entry",
    [
        {"env": {"PATH": "/tmp"}},
        {"env": {"HOROVOD_CYCLE_TIME": "fast"}},
        {"env": {"OMPI_MCA_mpi_yield_when_idle": 1}},
        {"binding": "socket"},
        {"unknown": 1},
        [],
        3,
    ],
)
def test_what_no_measurement_wrote_is_refused(tmp_path, entry):
    """The file decides on environment variables of every job: nothing but what is known gets through."""
    file = tmp_path / "tuned.json"
    file.write_text(json.dumps({"version": 1, "machines": {"a": entry}}))
    with pytest.raises(InputError, match=f"{file}: the entry for 'a' is broken; run 'hpcgan doctor --tune' again"):
        tuned.load({"HPCGAN_TUNED": str(file)}, "a")
    assert tuned.load({"HPCGAN_TUNED": str(file)}, "b") is None


@given(content=st.binary(max_size=200))
def test_any_file_is_read_or_refused_in_one_line(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("tuned") / "tuned.json"
    file.write_bytes(content)
    with pytest.raises(InputError) as error:
        tuned.load({"HPCGAN_TUNED": str(file)}, "a")
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="name another file in HPCGAN_TUNED"):
        tuned.save(tmp_path / "file" / "tuned.json", "a", FOUND)


def test_the_launcher_uses_what_was_measured_and_the_user_has_the_last_word():
    made = plan(2, 2, flavour=OPEN_MPI_5, tuned=FOUND)
    assert made.mpirun_args[:2] == ("--bind-to", "core")
    env = made.environment({"HOROVOD_CYCLE_TIME": "7"})
    assert env["OMPI_MCA_mpi_yield_when_idle"] == "0"
    assert env["HOROVOD_CYCLE_TIME"] == "7"
    assert plan(2, 2, flavour=OPEN_MPI_5).mpirun_args[:2] == ("--bind-to", "none")


def test_more_threads_than_cores_get_the_defaults():
    made = plan(4, 2, flavour=OPEN_MPI_5, tuned=FOUND)
    assert made == plan(4, 2, flavour=OPEN_MPI_5)
    assert plan(2, 4, flavour=OPEN_MPI_5, tuned=FOUND).mpirun_args[1] == "none"  # ranks of two threads are not bound


# --- choosing --------------------------------------------------------------------------------------------------------


def test_layouts_fill_the_node():
    assert [(c.ranks, c.threads) for c in tune.layouts(8)] == [(8, 1), (4, 2), (2, 4), (1, 8)]
    assert [(c.ranks, c.threads) for c in tune.layouts(1)] == [(1, 1)]
    assert all(c.ranks * c.threads == 96 for c in tune.layouts(96))


def fake(speeds, drift=0.0, noise=0.0):
    """Measures candidates by name and settings; the machine gets slower by `drift` a call."""
    calls, dice = [], random.Random(1)

    def measure(candidate):
        calls.append(candidate)
        rate = 100.0 * candidate.ranks
        for key, factor in speeds.items():
            if key in candidate.settings.env.items() or key == candidate.settings.binding:
                if factor is None:
                    raise HpcganError("no such option")
                rate *= factor
        return rate * (1 - drift) ** len(calls) * (1 + noise * dice.gauss(0, 1))

    return measure, calls


YIELD, CYCLE = ("OMPI_MCA_mpi_yield_when_idle", "0"), ("HOROVOD_CYCLE_TIME", "0.3")


def test_settings_that_gain_are_taken_together():
    measure, calls = fake({YIELD: 1.2, CYCLE: 1.1, "core": 0.5})
    found = tune.choose(2, OPEN_MPI_5, 3, measure, lambda line: None)
    assert (found.ranks, found.threads) == (2, 1)
    assert found.env == {"OMPI_MCA_mpi_yield_when_idle": "0", "HOROVOD_CYCLE_TIME": "0.3"}
    assert found.binding == "none"
    assert found.measured["gains"]["--bind-to core"][0] == pytest.approx(-0.5)
    assert sum(c.name == "defaults" for c in calls) == 3  # one a round


def test_noise_and_drift_take_nothing():
    lines = []
    for measure, _ in (fake({}, noise=0.03), fake({CYCLE: 1.004}), fake({}, drift=0.001)):
        found = tune.choose(2, OPEN_MPI_5, 4, measure, lines.append)
        assert found.env == {}
        assert found.binding == "none"
    assert any("left as it is" in line for line in lines)


def test_settings_that_spoil_each_other_are_not_combined():
    def measure(candidate):
        both = len(candidate.settings.env) == 2
        return 100.0 * candidate.ranks * (1.0 if both else 1.0 + 0.1 * len(candidate.settings.env))

    found = tune.choose(2, OPEN_MPI_5, 2, measure, lambda line: None)
    assert len(found.env) == 1


def test_a_candidate_that_fails_is_said_and_the_rest_counts():
    lines = []
    measure, calls = fake({"core": None, YIELD: 1.3})
    found = tune.choose(2, OPEN_MPI_5, 2, measure, lines.append)
    assert "--bind-to core: failed: no such option" in lines
    assert found.env == dict([YIELD])
    assert sum(c.settings.binding == "core" for c in calls) == 1

    def nothing(candidate):
        raise HpcganError("broken")

    with pytest.raises(HpcganError, match="no layout could be measured"):
        tune.choose(2, OPEN_MPI_5, 2, nothing, lines.append)


def test_one_core_has_nothing_to_set():
    measure, _ = fake({})
    found = tune.choose(1, OPEN_MPI_5, 2, measure, lambda line: None)
    assert (found.ranks, found.env) == (1, {})


def test_a_rate_is_that_of_the_slowest_rank():
    def rank(*seconds):
        return {"batch_size": 4, "block_steps": 10, "blocks": {"real": [{"seconds": s} for s in seconds]}}

    assert tune.rate([rank(1.0, 2.0, 9.0), rank(4.0, 2.0, 1.0)]) == pytest.approx(80 / 4.0)


# --- the command -----------------------------------------------------------------------------------------------------


def test_doctor_says_what_was_measured(tmp_path):
    file = tmp_path / "tuned.json"
    env = {**os.environ, "HPCGAN_TUNED": str(file)}
    assert "--tune" in doctor.check_tuned(env).detail
    from hpcgan.launch.mpirun import find_mpirun
    from hpcgan.launch.topology import available_cores

    tuned.save(file, tuned.machine(available_cores(), find_mpirun(env).flavour), FOUND)
    said = doctor.check_tuned(env)
    assert said.status == doctor.OK
    assert "HOROVOD_CYCLE_TIME=0.3, OMPI_MCA_mpi_yield_when_idle=0, --bind-to core; fastest: --ranks 2" in said.detail
    file.write_text("{")
    assert doctor.check_tuned(env).status == doctor.FAIL
