"""`hpcgan sweep` as users start it: real trainings, killed and stopped, pruned, on engines."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import jobs
import psutil
import pytest
import sweeps
import yaml
from recorded import recorded

from hpcgan.commands.cli import main
from hpcgan.errors import InputError
from hpcgan.interactive import Sweep
from hpcgan.runs import records
from hpcgan.runs.lease import attempt_state
from hpcgan.sweep.store import StudyDirectory

pytest.importorskip("horovod")
pytest.importorskip("optuna")

ROOT = Path(__file__).resolve().parents[2]
TRIALS = ("--trials", "2", "--concurrency", "2")
EPOCHS = 4
#: Learning rates: of a training, of one that ends at once, and of one that is worse than the first after two epochs.
RATES = [1e-3, 2e-3, 3e-2]
ENDLESS = "training.epochs=100000"


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = jobs.make_setting(tmp_path_factory.mktemp("sweep"), epochs=EPOCHS)
    jobs.make_sweep(folder)
    return folder


@pytest.fixture(scope="module")
def reference(setting, tmp_path_factory):
    """An undisturbed study, with the best trial repeated and scored on test events."""
    path = tmp_path_factory.mktemp("reference") / "study"
    code, output = jobs.Running(setting, jobs.sweep_command(path, *TRIALS, "--top", "1", "--repeats", "1")).finish()
    assert code == 0, output
    (path.parent / "output").write_text(output)
    return path


def searched(path):
    return [row for row in sweeps.table(path) if row[3] is None]


def test_every_trial_is_an_ordinary_run_with_a_result(reference, setting):
    study = StudyDirectory(reference)
    assert study.numbers() == [0, 1, 2]
    for number in study.numbers():
        result, run = study.result(number), study.trial(number)
        assert result.state == "complete", result
        config = yaml.safe_load(run.config_file.read_text())
        assert config["seed"] == result.seed
        assert config["model"]["filters"] == result.params["model.filters"]
        assert config["training"]["label_flip"] == result.params["training.label_flip"]
        epochs = recorded(run.metrics_file, "epoch")
        assert [e["epoch"] for e in epochs] == list(range(1, EPOCHS + 1))
        assert (result.score, result.epoch) == min((e["score"]["total"], e["epoch"]) for e in epochs)
        assert (result.epochs, result.attempts) == (EPOCHS, 1)
    output = (reference.parent / "output").read_text()
    assert "3 complete" not in output
    assert "2 complete" in output
    assert "winner: trial" in output


def test_the_repeated_winner_is_scored_on_test_events(reference):
    study = StudyDirectory(reference)
    best = min(searched(reference), key=lambda row: row[5])
    repeat = study.result(2)
    assert repeat.repeat_of == best[0]
    assert repeat.params == best[1]
    report = json.loads((study.trial(2).report / "report.json").read_text())
    assert (repeat.test_score, repeat.test_spread) == (report["score"]["mean"], report["score"]["std"])
    assert report["real"]["split"] == "test"


def test_run_again_it_trains_nothing(reference, setting):
    job = jobs.Running(setting, jobs.sweep_command(reference, *TRIALS, "--top", "1", "--repeats", "1"))
    code, output = job.finish()
    assert code == 0, output
    assert "2 of 2 trials have ended before" in output
    assert len(list((StudyDirectory(reference).runner(0).attempts).glob("*.json"))) == 1


def trainings(job):
    """Training processes of a sweep, and the processes that see to them, by trial."""
    found = {"train": {}, "trial": {}}
    for process in job.processes():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if "hpcgan.sweep.trial" in command:
            found["trial"][int(command[command.index("hpcgan.sweep.trial") + 2])] = process
        elif "hpcgan.launch.rank_shim" in command and "--run" in command:
            found["train"][int(Path(command[command.index("--run") + 1]).name)] = process
    return found


def wait_for_training(job, study, *numbers):
    """Until one of these trials has its first checkpoint."""
    paths = [study.trial(number).path for number in numbers]
    jobs.wait_for(lambda: job.process.poll() is not None or any(jobs.newest_step(path) >= 1 for path in paths))
    if job.process.poll() is not None:
        pytest.fail(job.finish()[1])


def test_killed_coordinators_and_workers_change_nothing(setting, reference, tmp_path):
    """The coordinator, a trial's process and a training are killed, each at another time."""
    study = StudyDirectory(tmp_path / "study")
    job = jobs.Running(setting, jobs.sweep_command(study.path, *TRIALS))
    wait_for_training(job, study, 0, 1)
    job.process.kill()
    jobs.wait_for(lambda: not job.processes(), message=lambda: str(job.processes()))
    job.process.wait()
    assert None in [study.result(number) for number in (0, 1)]  # the other trial's training may have ended meanwhile

    job = jobs.Running(setting, jobs.sweep_command(study.path, *TRIALS))
    jobs.wait_for(lambda: trainings(job)["train"])
    number, victim = next(iter(trainings(job)["train"].items()))
    victim.kill()
    jobs.wait_for(lambda: len(attempts(study, number)) > 2 or study.result(number) is not None)
    jobs.wait_for(lambda: trainings(job)["trial"] or job.process.poll() is not None)
    if found := trainings(job)["trial"]:
        next(iter(found.values())).kill()
    code, output = job.finish()
    assert code == 0, output
    assert "was lost" in output
    assert sweeps.table(study.path) == searched(reference)


def attempts(study, number):
    folder = study.runner(number).attempts
    return list(folder.glob("*.json")) if folder.is_dir() else []


def test_a_stop_has_all_trials_write_checkpoints(setting, tmp_path):
    study = StudyDirectory(tmp_path / "study")
    job = jobs.Running(setting, jobs.sweep_command(study.path, ENDLESS, *TRIALS))
    wait_for_training(job, study, 0)
    wait_for_training(job, study, 1)
    job.process.send_signal(signal.SIGINT)
    code, output = job.finish()
    assert code == 75, output
    assert "run the same command to go on" in output
    assert "Traceback" not in output
    for trial in (0, 1):
        assert recorded(study.trial(trial).metrics_file, replaced=True)[-1]["outcome"] == "interrupted"


def test_a_trial_that_becomes_nan_has_failed_and_a_bad_one_is_pruned(setting, tmp_path):
    """Successive halving of 18 epochs: the first look is after epoch 2, when the better one goes on."""
    study = StudyDirectory(tmp_path / "study")
    raw = yaml.safe_load((setting / "sweep.yaml").read_text())
    raw["search"] = {
        "training.generator.learning_rate": {"choice": RATES},
        "training.r1.weight": {"choice": [1e300], "when": {"training.generator.learning_rate": RATES[1]}},
    }
    (setting / "rates.yaml").write_text(yaml.safe_dump(raw))
    options = ("training.epochs=18", "scoring.events=8", "--sampler", "grid", "--concurrency", "1")
    options += ("--pruner", "halving")
    code, output = jobs.Running(setting, jobs.sweep_command(study.path, *options, config="rates.yaml")).finish()
    assert code == 0, output
    complete, failed, pruned = (study.result(number) for number in range(3))
    assert [r.params["training.generator.learning_rate"] for r in (complete, failed, pruned)] == RATES
    assert (complete.state, complete.epochs) == ("complete", 18)
    assert (failed.state, failed.attempts) == ("failed", 1)
    assert "became non-finite at step" in failed.reason
    assert pruned.state == "pruned", output
    assert 2 <= pruned.epochs < 18
    assert pruned.reason.startswith("halving pruning after epoch ")
    assert recorded(study.trial(2).metrics_file, replaced=True)[-1]["outcome"] == "pruned"


@pytest.mark.faults  # for its time; of ranks and of trials by themselves there are other tests
def test_a_trial_can_have_two_ranks(setting, tmp_path):
    study = StudyDirectory(tmp_path / "study")
    options = ("training.epochs=1", "--trials", "1", "--ranks", "2")
    code, output = jobs.Running(setting, jobs.sweep_command(study.path, *options)).finish()
    assert code == 0, output
    assert study.result(0).state == "complete"
    (entry,) = records.read_lines(study.trial(0).provenance_file)
    assert entry["ranks"] == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--trials is missing"),
        (["--trials", "2", "--sampler", "tpr"], "--sampler tpr: choose one of random, grid, "),
        (["--trials", "2", "search.model.filtres={choice: [1]}"], "search.model.filtres: unknown key; did you mean"),
        (["--trials", "2", "search.model.latent_dim={int: [3, 3]}"], "range from 3 to 3 is empty"),
        (["--trials", "2", "search.model.filters=3"], "write it as search.key="),
        (["--trials", "2", "training.epoch=3"], "unknown key 'training.epoch'; did you mean 'epochs'"),
        (["--trials", "2", "data.path=absent"], "absent/train.h5: no such file"),
        (["--sampler", "grid"], "training.generator.learning_rate: a grid needs 'points'"),
        (["--trials", "2", "--executor", "ipyparallel", "--cluster", "absent.json"], "absent.json: no such file"),
        (["--trials", "2", "--executor", "slurm", "--partition", "a;b"], "argument --partition: 'a;b': not a name"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(setting, tmp_path, monkeypatch, capfd, args, message):
    monkeypatch.chdir(setting)
    command = jobs.sweep_command(tmp_path / "study", *args)
    assert main(command[command.index("sweep") :]) == 2
    out, err = capfd.readouterr()
    assert message in err
    assert len((out + err).strip().splitlines()) == 1
    assert not (tmp_path / "study").exists()


def test_the_process_says_the_same(setting, tmp_path):
    code, output = jobs.Running(
        setting, jobs.sweep_command(tmp_path / "study", "--sampler", "tpr", "--trials", "2")
    ).finish()
    assert code == 2, output
    assert "--sampler tpr: choose one of" in output
    assert len(output.strip().splitlines()) == 1
    assert not (tmp_path / "study").exists()


def test_a_dry_run_prints_the_trials(setting, reference):
    command = jobs.sweep_command(Path("none"), "--trials", "2", "--dry-run")
    code, output = jobs.Running(setting, command).finish()
    assert code == 0, output
    printed = [yaml.safe_load(line.split(": ", 1)[1]) for line in output.splitlines()]
    assert printed == [row[1] for row in searched(reference)]


# --- from Python ----------------------------------------------------------------------------------


@pytest.mark.faults  # test_notebooks.py starts one from Python, test_sweep_interactive.py prunes by hand
def test_started_from_python_it_is_pruned_by_hand_stopped_and_goes_on(setting, reference, tmp_path, monkeypatch):
    """Two trials are held in their first epoch, so that none ends before it is pruned, or stopped."""
    mark = secrets.token_hex(8)
    monkeypatch.setenv(jobs.MARK, mark)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = tmp_path / "study"

    def start():
        return Sweep.start(setting / "sweep.yaml", trials=2, concurrency=2, job={"threads": 1}, out=path)

    try:
        sweep = start()
        assert sweep.state == "running"
        with pytest.raises(InputError, match="another sweep is at work on this study"):
            start()
        jobs.wait_for(lambda: len(sweep.table()) == 2)
        for number in (0, 1):
            sweep.trial(number).pause(wait=0)
        jobs.wait_for(lambda: {sweep.trial(n).state for n in (0, 1)} == {"paused"}, message=sweep.log.read_text)
        sweep.prune(1)
        sweep.trial(1).resume()
        jobs.wait_for(lambda: sweep.table()["state"][1] == "pruned", message=sweep.log.read_text)
        sweep.stop()
        assert sweep.state == "stopped"
        assert sweep.table()["state"][0] == "queued"
        assert StudyDirectory(path).result(0) is None
        sweep.trial(0).resume(wait=0)  # obeyed when it goes on
        sweep = start()
        assert sweep.wait(jobs.PATIENCE) == "done", sweep.log.read_text()
    finally:
        for process in jobs.marked(mark):
            process.kill()
    assert "Traceback" not in sweep.log.read_text()
    found, undisturbed = sweeps.table(path), searched(reference)
    assert found[0] == undisturbed[0]
    assert found[1][:4] == undisturbed[1][:4]
    first = recorded(StudyDirectory(reference).trial(1).metrics_file, "epoch")[0]
    assert found[1][4:] == ("pruned", first["score"]["total"], 1, 1)
    assert StudyDirectory(path).result(1).reason == "pruned by hand after epoch 0"
    assert sweep.best["score"] == found[0][5]


# --- engines --------------------------------------------------------------------------------------


@pytest.fixture
def engines(setting, tmp_path):
    """A controller and two engines, which take themselves for ranks of something."""
    pytest.importorskip("ipyparallel")
    folder = tmp_path / "ipython"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder)}
    ranks = {"OMPI_COMM_WORLD_SIZE": "7", "OMPI_COMM_WORLD_RANK": "3", "PMIX_RANK": "3", "SLURM_JOB_ID": "1"}
    options = {"cwd": setting, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL,
               "start_new_session": True}  # fmt: skip
    controller = [sys.executable, "-m", "ipyparallel.controller", f"--profile-dir={folder}", "--ip=127.0.0.1"]
    processes = [subprocess.Popen(controller, env=env, **options)]
    file = folder / "security" / "ipcontroller-client.json"
    try:
        jobs.wait_for(lambda: file.is_file() and file.with_name("ipcontroller-engine.json").is_file())
        engine = [sys.executable, "-m", "ipyparallel.engine", f"--file={file.with_name('ipcontroller-engine.json')}"]
        processes += [subprocess.Popen(engine, env={**env, **ranks}, **options) for _ in range(2)]
        import ipyparallel

        with ipyparallel.Client(connection_info=str(file), timeout=60) as client:
            client.wait_for_engines(2, timeout=60)
        yield file, processes
    finally:
        for process in processes[::-1]:
            process.terminate()
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            with contextlib.suppress(ProcessLookupError):  # schedulers, nannies
                os.killpg(process.pid, signal.SIGKILL)


def test_engines_give_the_same_table_though_one_is_killed(setting, reference, engines, tmp_path):
    file, processes = engines
    study = StudyDirectory(tmp_path / "study")
    command = jobs.sweep_command(study.path, *TRIALS, "--executor", "ipyparallel", "--cluster", str(file))
    job = jobs.Running(setting, command)
    wait_for_training(job, study, 0)
    processes[1].kill()
    code, output = job.finish()
    assert code == 0, output
    assert sweeps.table(study.path) == searched(reference)


@pytest.mark.faults  # for its time; of ranks and of engines by themselves there are other tests
def test_a_trial_on_an_engine_can_have_two_ranks(setting, engines, tmp_path):
    file, _ = engines
    study = StudyDirectory(tmp_path / "study")
    options = ("--executor", "ipyparallel", "--cluster", str(file), "--ranks", "2")
    code, output = jobs.Running(setting, jobs.sweep_command(study.path, "--trials", "1", *options)).finish()
    assert code == 0, output
    (entry,) = records.read_lines(study.trial(0).provenance_file)
    assert entry["ranks"] == 2


@pytest.mark.faults
def test_a_controller_that_is_gone_ends_the_sweep_with_one_line(setting, engines, tmp_path):
    file, processes = engines
    study = StudyDirectory(tmp_path / "study")
    options = ("--executor", "ipyparallel", "--cluster", str(file), "training.epochs=100000")
    job = jobs.Running(setting, jobs.sweep_command(study.path, "--trials", "1", *options))
    wait_for_training(job, study, 0)
    os.killpg(processes[0].pid, signal.SIGKILL)  # with its schedulers
    code = job.process.wait(90)
    output = job.output()
    assert code == 1, output
    assert "the IPython controller does not answer any more" in output.splitlines()[-1]
    study.stop_file.touch()  # what its engine still runs stops in order
    jobs.wait_for(lambda: attempt_state(study.runner(0)) == "interrupted")
