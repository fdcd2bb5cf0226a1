"""Scaling studies: their plan, what is kept, what measured times mean, the report. Nothing is started."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pages
import pytest
import tiny
from studies import SETTING, rank, result, study_in

from hpcgan import config
from hpcgan.commands import cli
from hpcgan.data.schema import TensorSpec
from hpcgan.data.source import SyntheticSource
from hpcgan.errors import InputError, Interrupted
from hpcgan.launch.process import JobTimeout
from hpcgan.methods.settings import GanSettings
from hpcgan.scaling import measure, report
from hpcgan.scaling.measure import Point, Resources, Study
from hpcgan.scaling.summary import Value, blocks, mean, ratio, split, summarise
from hpcgan.system import failure
from hpcgan.system.failure import Failure
from hpcgan.training.timing import block_length, period

# --- what is asked for ------------------------------------------------------------------------------


def asked(folder, *overrides):
    """The tiny training with a section `scaling:`."""
    return tiny.config(folder, *(item if "." in item.partition("=")[0] else f"scaling.{item}" for item in overrides))


@pytest.mark.parametrize(
    ("text", "ranks"), [("1,2,4", (1, 2, 4)), ("'4, 1,4'", (1, 4)), ("2", (2,)), ("[8, 2]", (2, 8))]
)
def test_ranks(tmp_path, text, ranks):
    assert asked(tmp_path, f"ranks={text}").scaling.ranks == ranks


@pytest.mark.parametrize("text", ["", "0", "1,-2", "1,two", "1,,2", "1.5"])
def test_bad_ranks_are_named(tmp_path, capsys, text):
    with pytest.raises(InputError, match=r"scaling\.ranks"):
        asked(tmp_path, f"ranks='{text}'")
    assert cli.main(["scaling", "tiny.yaml", f"--ranks={text}"]) == 2
    assert re.search(r"argument --ranks: .*(give at least 1|not a whole number)", capsys.readouterr().err)


def test_repeats_are_the_outer_loop_so_that_drift_hits_all_points_alike(tmp_path):
    config = asked(tmp_path, "ranks=1,2", "comm=horovod,mpi", "repeats=2", "isolated=true")
    keys = [point.key for point in measure.plan(config)]
    once = ["horovod-1", "mpi-1", "isolated-1", "horovod-2", "mpi-2", "isolated-2"]
    assert keys == [f"{key}-{repeat}" for repeat in (0, 1) for key in once]


def test_a_weak_study_keeps_the_batch_of_a_rank_a_strong_one_that_of_all(tmp_path):
    batch = "training.batch_size=12"
    assert measure.study_batch(asked(tmp_path, batch, "ranks=1,5")) == 12
    assert measure.study_batch(asked(tmp_path, batch, "ranks=1,2,6", "mode=strong")) == 12
    weak = SETTING.model_copy(update={"batch": 12})
    strong = SETTING.model_copy(update={"batch": 12, "mode": "strong"})
    for point, setting, batch, global_batch, backend in (
        (Point(2, "mpi", 0), weak, 12, None, "mpi"),
        (Point(3, "horovod", 0), strong, 12, 12, "horovod"),
        (Point(3, "isolated", 0), strong, 4, None, "serial"),
    ):
        changed = tiny.config(tmp_path, "training.batch_size=12", *measure.overrides(point, setting))
        assert (changed.training.batch_size, changed.training.global_batch_size) == (batch, global_batch)
        assert changed.comm.backend == backend


def test_ranks_that_do_not_share_a_batch_evenly_are_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"5, 8 ranks cannot share a global batch of 12 evenly; .*: 1, 2, 3, 4, 6, 12$"
    ):
        measure.study_batch(asked(tmp_path, "training.batch_size=12", "ranks=1,2,5,8", "mode=strong"))
    with pytest.raises(InputError, match=r"--mode weak .* training.global_batch_size"):
        measure.study_batch(asked(tmp_path, "training.global_batch_size=8", "ranks=1"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--ranks is missing"),
        (["--ranks", "0"], "--ranks: 0: give at least 1"),
        (
            ["--ranks", "1", "--comm", "carrier-pigeon"],
            "comm.backend: choose one of: auto, horovod, mpi, serial, or package.module:Class",
        ),
        (["--ranks", "1", "--repeats", "0"], "--repeats: 0: give at least 1"),
        (["--ranks", "1", "--warm-up", "1"], "--warm-up: 1: give at least 2"),
        (["--ranks", "1,3", "--mode", "strong"], "3 ranks cannot share a global batch of 4 evenly"),
        (["--ranks", "1"], "absent/train.h5: no such file"),
        (["--ranks", "1", "--interconnect", "Aries"], "there is no option '--interconnect'"),
        (["--ranks", "4", "--executor", "slurm", "--nodes", "3", "--synthetic-data"], "--ranks 4: more than --nodes 3"),
        (
            ["--ranks", "1", "--executor", "slurm", "--nodes", "1..4", "--synthetic-data"],
            "--nodes: '1..4' is not a whole number",
        ),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(tiny.config("absent").to_yaml())
    assert cli.main(["scaling", "tiny.yaml", *args]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_no_mpirun_is_one_line_exit_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPCGAN_MPIRUN", str(tmp_path / "none"))
    (tmp_path / "tiny.yaml").write_text(tiny.config("absent").to_yaml())
    assert cli.main(["scaling", "tiny.yaml", "--ranks", "1", "--synthetic-data"]) == 2
    said = capsys.readouterr().err
    assert "none cannot be run" in said
    assert len(said.splitlines()) == 1


def test_the_job_that_slurm_gets_runs_the_same_study(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(tiny.config("absent").to_yaml())
    command = "scaling tiny.yaml model.filters=3 --ranks 1,4 --executor slurm --nodes 2 --ranks-per-node 2 --print"
    command += " --synthetic-data --partition=debug --comm horovod,mpi --out study --time 10 --isolated --repeats 2"
    assert cli.main(command.split()) == 0
    script = capsys.readouterr().out
    assert "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=2\n#SBATCH --time=10\n#SBATCH --partition=debug\n" in script
    assert "--requeue" not in script
    last = script.splitlines()[-1]
    assert last.startswith("exec ")
    argv = shlex.split(last.split(" -m hpcgan ")[1])
    args = cli.parse(argv)
    scaling = config.load(args.config, args.overrides).scaling
    assert (
        scaling.executor,
        scaling.ranks,
        scaling.comm,
        scaling.repeats,
        scaling.isolated,
        scaling.synthetic_data,
    ) == (
        "local",
        (1, 4),
        ("horovod", "mpi"),
        2,
        True,
        True,
    )
    assert args.overrides[0] == "model.filters=3"
    assert args.out == tmp_path / "study"


def test_points_have_the_threads_of_the_fullest_one():
    assert measure.default_threads([1, 2, 4], Resources(), cores=8) == 2
    assert measure.default_threads([1, 2, 4], Resources(), cores=2) == 1
    cluster = Resources(nodes=4, ranks_per_node=2)
    assert [cluster.nodes_for(n) for n in (1, 2, 3, 8, 20)] == [1, 1, 2, 4, 4]
    assert measure.default_threads([1, 2, 8], cluster, cores=16) == 8


def test_every_block_has_as_many_penalties_as_any_other():
    assert block_length(100, 1) == 10
    assert block_length(100, 16) == 16
    assert block_length(100, 3) == 12
    assert block_length(5, 16) == 5


def test_every_block_has_as_many_updates_of_the_generator_as_any_other():
    """Turns of 3 with R1 in every second step come again after 6, so a block has 12 steps, 4 turns and 6 penalties."""
    assert period(GanSettings()) == 1
    assert period(GanSettings(critic_steps=5)) == 5
    assert period(GanSettings(r1={"weight": 0.0, "every": 16})) == 1
    both = GanSettings(critic_steps=3, r1={"weight": 0.1, "every": 2})
    assert period(both) == 6
    length = block_length(100, period(both))
    for first in range(0, 60, length):
        steps = range(first, first + length)
        assert sum(step % 3 == 2 for step in steps) == 4
        assert sum(step % 2 == 0 for step in steps) == 6


def test_synthetic_samples_follow_from_the_seed():
    schema = {"image": TensorSpec((3, 2), "MeV"), "mass": TensorSpec((), "GeV", "condition")}
    a, b, other = (SyntheticSource(schema, 1000, seed) for seed in (1, 1, 2))
    sample = a.read(np.array([3, 999, 3 + SyntheticSource.DISTINCT]))
    assert sample["image"].shape == (3, 3, 2)
    assert sample["mass"].shape == (3,)
    assert sample["image"].dtype == np.float32
    assert (sample["image"] >= 0).all()
    np.testing.assert_array_equal(sample["image"][0], sample["image"][2])
    np.testing.assert_array_equal(sample["image"], b.read(np.array([3, 999, 3]))["image"])
    assert not np.array_equal(sample["image"], other.read(np.array([3, 999, 3]))["image"])
    assert len(a) == 1000
    assert a.read(np.arange(256))["mass"].mean() == pytest.approx(1.0, abs=0.2)  # exponential of mean 1


# --- what is kept -----------------------------------------------------------------------------------


PRINTED = b"what the ranks have printed\n"


class Starter:
    """Stands in for the launcher: writes what ranks would, or fails."""

    def __init__(self, fails=(), code=1, reason=None):
        self.fails, self.code, self.reason = fails, code, reason
        self.started = []

    def __call__(self, argv, ranks, *, place, watch, **options):
        request = json.loads(Path(argv[0]).read_text())
        backend = next(o for o in request["overrides"] if o.startswith("comm.backend="))
        self.started.append((ranks, backend.removeprefix("comm.backend="), place.threads))
        if ranks in self.fails:
            watch.stdout.write(PRINTED)
            if self.reason is not None:
                failure.tell(self.reason, place.env)
            return self.code
        measured = [rank(r, [[0.1] * 2] * 2, [[0.05] * 2] * 2) for r in range(ranks)]
        with open(f"{request['folder']}/0.json", "w") as file:
            json.dump(measured, file)
        return 0


def test_a_failed_point_is_kept_with_its_reason_and_the_others_count(tmp_path):
    study, said = study_in(tmp_path / "study"), []
    points = measure.plan(asked(tmp_path, "ranks=1,2", "comm=horovod", "repeats=2"))
    starter = Starter(fails=[2], reason=Failure("environment", "MemoryError: no", 1))
    measure.measure(study, points, Resources(start=starter), said.append)
    assert starter.started == [(1, "horovod", 1), (2, "horovod", 1)] * 2
    found = {(r["ranks"], r["repeat"]): r.get("failure") for r in study.results()}
    reason = "rank 1: MemoryError: no"
    assert found == {(1, 0): None, (2, 0): reason, (1, 1): None, (2, 1): reason}
    assert any(reason in line for line in said)
    assert not (study.path / "work").exists()
    assert (study.path / "logs" / "horovod-2-0.log").read_bytes() == PRINTED
    assert not (study.path / "logs" / "horovod-1-0.log").exists()


def test_the_same_study_again_measures_what_is_missing(tmp_path):
    study = study_in(tmp_path / "study")
    points = measure.plan(asked(tmp_path, "ranks=1,2", "comm=horovod", "repeats=1"))
    measure.measure(study, points, Resources(start=Starter(fails=[2])), lambda line: None)
    (study.points / "horovod-9-0.json").write_text("{ torn")
    again = Starter()
    measure.measure(
        study,
        measure.plan(asked(tmp_path, "ranks=1,2,9", "comm=horovod", "repeats=1")),
        Resources(start=again),
        lambda line: None,
    )
    assert [ranks for ranks, _, _ in again.started] == [2, 9]
    assert not any("failure" in r for r in study.results())
    third = Starter()
    measure.measure(study, points, Resources(start=third), lambda line: None)
    assert third.started == []


def test_bare_collectives_are_timed_on_ranks_that_share_no_core(tmp_path):
    """Two cores, one thread a rank; where two ranks share one, on two: the fewest there are."""
    study, starter = study_in(tmp_path / "study"), Starter()
    assert (study.setting().cores, study.setting().threads) == (2, 1)
    for counts in ([1], [4, 1, 2, 8], [4, 1, 2], [3, 4]):
        config = asked(tmp_path, "comm=horovod,serial,mpi", f"ranks={counts}")
        measure.sweep(study, config, Resources(start=starter), lambda line: None)
    assert starter.started == [(2, "horovod", 1), (2, "mpi", 1), (3, "horovod", 1), (3, "mpi", 1)]
    assert [(s["comm"], s["ranks"], s["nodes"]) for s in study.allreduce()] == [
        *(("horovod", 2, 1), ("horovod", 3, 1), ("mpi", 2, 1), ("mpi", 3, 1))
    ]
    four = Resources(nodes=4, ranks_per_node=2, start=starter)  # of two cores each
    measure.sweep(study, asked(tmp_path, "comm=mpi", "ranks=1,2,8"), four, lambda line: None)
    assert starter.started[-1] == (8, "mpi", 1)


def test_a_stopped_study_keeps_its_points_and_goes_no_further(tmp_path):
    study = study_in(tmp_path / "study")
    starter = Starter(fails=[2], code=128 + 15)
    with pytest.raises(Interrupted, match="the same command measures what is missing"):
        measure.measure(
            study,
            measure.plan(asked(tmp_path, "ranks=1,2,4", "comm=horovod", "repeats=1")),
            Resources(start=starter),
            lambda line: None,
        )
    assert [r["ranks"] for r in study.results()] == [1]


def test_a_point_that_takes_too_long_has_failed(tmp_path):
    def slow(*args, **options):
        assert options["watch"].timeout == 5.0
        raise JobTimeout("the job was ended after 5 s: it had not finished")

    study = study_in(tmp_path / "study")
    measure.measure(study, [Point(1, "mpi", 0)], Resources(limit_s=5.0, start=slow), lambda line: None)
    assert study.results()[0]["failure"] == "the job was ended after 5 s: it had not finished"


def test_a_folder_of_another_study_or_of_a_training_is_refused(tmp_path):
    study_in(tmp_path / "study")
    config = tiny.config(tmp_path)
    for other, message in ((config, "with other data"), (tiny.config(tmp_path, "seed=2"), "of another configuration")):
        with pytest.raises(InputError, match=rf"holds a study {message} \(abc there, xyz now\)"):
            Study(tmp_path / "study").prepare(other, SETTING.model_copy(update={"identity": "xyz"}))
    with pytest.raises(InputError, match=r"other settings \(mode weak there, strong now; steps 20 there, 30 now\)"):
        Study(tmp_path / "study").prepare(config, SETTING.model_copy(update={"mode": "strong", "steps": 30}))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(config.to_yaml())
    with pytest.raises(InputError, match="holds a training"):
        Study(tmp_path / "run").prepare(config, SETTING)
    with pytest.raises(InputError, match="not a scaling study"):
        Study(tmp_path).setting()


# --- what times mean --------------------------------------------------------------------------------


def test_means_and_ratios_by_hand():
    assert mean([2.0]) == Value(2.0, None)
    found = mean([9.0, 11.0])  # standard deviation sqrt(2), over sqrt(2)
    assert (found.value, found.error) == (10.0, pytest.approx(1.0))
    found = ratio(Value(30.0, 3.0), Value(20.0, 1.0), 0.5)  # 0.75, relative errors 0.1 and 0.05
    assert (found.value, found.error) == (0.75, pytest.approx(0.75 * 0.0125**0.5))
    assert ratio(Value(1.0, None), Value(2.0, 0.1)).error is None


def test_the_parts_of_a_step_by_hand():
    """Rank 1 is slower on its own by 2 ms; real steps take 20 ms, of which 1 ms is waiting for input."""
    measured = [
        rank(0, [[0.019] * 2], [[0.010, 0.010]]),
        rank(1, [[0.019] * 2], [[0.012, 0.012]]),
    ]
    times = blocks(result(2, measured=measured))
    assert times.rate == pytest.approx(2 * 4 / 0.020)
    parts = split(times)
    assert parts == pytest.approx(
        {"step": 0.020, "compute": 0.011, "imbalance": 0.001, "input": 0.001, "communication": 0.007}
    )
    assert sum(v for k, v in parts.items() if k != "step") == pytest.approx(parts["step"])


def test_the_slowest_rank_makes_the_rate_and_a_disturbed_block_does_not():
    real = [[0.019] * 2, [0.019] * 2, [0.199] * 2]
    times = blocks(result(2, measured=[rank(0, real, real), rank(1, [[0.039] * 2] * 3, real)]))
    np.testing.assert_allclose(times.rates, [200.0, 200.0, 40.0])
    assert times.rate == pytest.approx(200.0)


def test_one_rank_without_collectives_has_no_communication():
    parts = split(blocks(result(1, measured=[rank(0, [[0.019] * 2], [])])))
    assert parts == pytest.approx({"step": 0.02, "compute": 0.019, "imbalance": 0, "communication": 0, "input": 0.001})


def test_rates_of_isolated_processes_add_up():
    measured = [rank(0, [[0.019] * 2], []), rank(1, [[0.039] * 2], [])]
    assert blocks(result(2, "isolated", measured=measured)).rate == pytest.approx(200.0 + 100.0)


def whole_study():
    """One rank at 200 and 220 samples/s, two at 315 and 378, two isolated at 400."""

    def steps(rate, ranks):
        return [[4 * ranks / rate - 0.001] * 2]

    found = [result(1, "auto", i, measured=[rank(0, steps(r, 1), [])]) for i, r in enumerate((200, 220))]
    for i, r in enumerate((315, 378)):
        found.append(result(2, "auto", i, measured=[rank(k, steps(r, 2), [[0.01] * 2]) for k in (0, 1)]))
    found.append(result(2, "isolated", measured=[rank(k, steps(200, 1), []) for k in (0, 1)]))
    found.append({"ranks": 2, "comm": "mpi", "repeat": 0, "nodes": 1, "failure": "no libmpi"})
    return found


def test_efficiency_and_its_error_by_hand():
    made = summarise(whole_study(), SETTING)
    one, two, isolated = made["points"]
    assert one["rate"] == pytest.approx({"value": 210.0, "error": 10.0})
    assert one["efficiency"] == {"value": 1.0, "error": 0.0}
    assert two["rate"] == pytest.approx({"value": 346.5, "error": 31.5})
    # 346.5 / (2 * 210); relative errors 31.5 / 346.5 and 10 / 210
    assert two["efficiency"]["value"] == pytest.approx(0.825)
    assert two["efficiency"]["error"] == pytest.approx(0.825 * ((31.5 / 346.5) ** 2 + (10 / 210) ** 2) ** 0.5)
    assert two["against_isolated"] == {"value": pytest.approx(346.5 / 400), "error": None}
    assert two["cost"]["value"] == pytest.approx(2000 / 346.5)  # core-seconds
    assert isolated["comm"] == "isolated"
    assert made["failures"] == [{"comm": "mpi", "ranks": 2, "repeat": 0, "reason": "no libmpi"}]


def test_a_backend_without_one_rank_has_no_efficiency():
    made = summarise([r for r in whole_study() if r["ranks"] == 2 and r["comm"] == "auto"], SETTING)
    assert made["points"][0]["efficiency"] is None


def test_the_report_has_the_numbers_everywhere(tmp_path):
    study = study_in(tmp_path / "study")
    for r in whole_study():
        (study.points / f"{Point(r['ranks'], r['comm'], r['repeat']).key}.json").write_text(json.dumps(r))
    made = report.build(study)
    files = {path.name: path for path in report.write(study, made)}
    assert set(files) == {"study.json", "points.csv", "scaling.png", "report.html"}
    assert json.loads(files["study.json"].read_text())["points"] == made["points"]
    lines = list(csv.DictReader(files["points.csv"].read_text().splitlines()))
    assert [(line["comm"], line["ranks"]) for line in lines] == [("auto", "1"), ("auto", "2"), ("isolated", "2")]
    assert float(lines[1]["efficiency"]) == pytest.approx(0.825)
    parts = sum(float(lines[1][f"{part}_s"]) for part in ("compute", "imbalance", "communication", "input"))
    assert parts == pytest.approx(float(lines[1]["step_s"]))
    assert files["scaling.png"].read_bytes().startswith(b"\x89PNG")
    page = files["report.html"].read_text()
    for text in (
        "0.825 ± 0.085",
        "failed: 2 ranks (mpi): no libmpi",
        "weak scaling, 4 samples a rank",
        "data:image/png",
    ):
        assert text in page
    assert "<script" not in page
    row = report.rows(made)[1]
    assert (row[0], row[1], row[3]) == ("2", "auto (horovod)", "0.825 ± 0.085")


def test_a_report_of_nothing_but_failures(tmp_path):
    study = study_in(tmp_path / "study")
    failed = {"ranks": 2, "comm": "mpi", "repeat": 0, "nodes": 1, "failure": "<no> libmpi"}
    (study.points / "mpi-2-0.json").write_text(json.dumps(failed))
    made = report.build(study)
    assert [path.name for path in report.write(study, made)] == ["study.json", "points.csv", "report.html"]
    assert "&lt;no&gt; libmpi" in (study.path / "report.html").read_text()
    pages.check_escaped(lambda data: report.page(data, None), made)
