"""Batch scripts and what is read from Slurm's commands; no Slurm needed (a fake one stands in for its programs)."""

import os
import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.allocation import CurrentJob, current_job, task_counts
from hpcgan.errors import EXIT_INTERRUPTED, HpcganError, InputError
from hpcgan.launch import slurm, supervise

EXPECTED = Path(__file__).parents[1] / "data" / "slurm"


@pytest.mark.parametrize(
    ("name", "fields", "site"),
    [
        ("smallest", {"name": "rpv"}, None),
        (
            "everything",
            {
                "name": "rpv-big",
                "nodes": 64,
                "ranks_per_node": 4,
                "threads": 8,
                "time": "1-12:30:00",
                "partition": "gpu,gpu-long",
                "account": "m1234",
                "qos": "regular",
                "reservation": "school_2",
                "constraint": "gpu&hbm80g",
                "gpus_per_node": 4,
                "mem": "200G",
                "nodelist": "nid[001-063],nid100",
                "exclude": "nid00[7-9]",
                "signal_s": 300,
                "requeues": 7,
                "retries": 1,
            },
            Path("/home/user/hpcgan/slurm/site.sh"),
        ),
    ],
)
def test_batch_script_is_the_recorded_one(name, fields, site):
    text = slurm.render(
        slurm.job_spec(**fields),
        ["train", "/home/user/hpcgan/configs/rpv.yaml", "training.epochs=3", "--run", "/scratch/runs/rpv"],
        python="/home/user/hpcgan/.venv/bin/python",
        folder=Path("/home/user/hpcgan"),
        site=site,
    )
    assert text == (EXPECTED / f"{name}.sh").read_text()
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


HOSTILE = [
    "a b",
    "a'b",
    'a"b',
    "$(touch pwned)",
    "`touch pwned`",
    "a\nb",
    "a;b",
    "a\\b",
    "a\n#SBATCH --x",
    "é",
    "",
    " ",
    "-x",
    "%j",
]
TEXT_FIELDS = ("name", "partition", "account", "qos", "reservation", "constraint", "mem", "nodelist", "exclude", "time")


@pytest.mark.parametrize("field", TEXT_FIELDS)
@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_fields_are_refused_by_name(field, value):
    with pytest.raises(InputError) as error:
        slurm.job_spec(**{"name": "rpv", field: value})
    assert f"--{field.replace('_', '-')}" in str(error.value)
    assert "\n" not in str(error.value)


@given(field=st.sampled_from(TEXT_FIELDS), value=st.text(max_size=40))
def test_whatever_a_field_holds_stays_on_its_line(field, value):
    try:
        spec = slurm.job_spec(**{"name": "rpv", field: value})
    except InputError:
        return
    text = slurm.render(spec, ["train", "c.yaml"], python="python", folder=Path("/x"))
    lines = text.splitlines()
    start = lines.index("set -euo pipefail")
    assert all(line.startswith("#") or not line for line in lines[:start])
    assert not set(value) & set(" \t\n'\"`$\\;<>")


@pytest.mark.parametrize(
    ("field", "value"),
    [("nodes", 0), ("nodes", "x"), ("ranks_per_node", -1), ("threads", 0), ("signal_s", 0), ("retries", -1),
     ("requeues", -2), ("gpus_per_node", 0), ("time", "0"), ("time", "1:2:3:4"),
     ("time", "soon"), ("mem", "12Q"), ("unknown", 1)],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(InputError, match=f"--{field.replace('_', '-')}"):
        slurm.job_spec(**{"name": "rpv", field: value})


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20), max_size=4))
def test_arguments_reach_the_command_as_they_are(tmp_path_factory, words):
    """The script is run by a real bash, with a Python that prints what it gets."""
    folder = tmp_path_factory.mktemp("run")
    text = slurm.render(slurm.job_spec(name="x"), ["train", *words], python="PYTHON", folder=folder)
    show = [sys.executable, "-c", "import sys; sys.stdout.buffer.write('\\0'.join(sys.argv[1:]).encode())"]
    text = text.replace("exec PYTHON", f"exec {shlex.join(show)}")
    done = subprocess.run(["bash"], input=text.encode(), capture_output=True, check=True)
    got = done.stdout.decode().split("\0")
    assert got[got.index("--") + 1 :] == ["train", *words]


def test_folders_are_quoted(tmp_path):
    folder = tmp_path / 'it\'s $(touch pwned) "here"'
    folder.mkdir()
    site = folder / "site file.sh"
    site.write_text("echo sourced\n")
    text = slurm.render(slurm.job_spec(name="x"), ["train"], python="echo", folder=folder, site=site)
    done = subprocess.run(["bash"], input=text, text=True, capture_output=True, check=True)
    assert done.stdout.startswith("sourced\n")
    assert os.listdir(folder) == ["site file.sh"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", 300),
        ("5:30", 330),
        ("1:00:00", 3600),
        ("1-0", 86400),
        ("2-12", 216000),
        ("1-2:3", 93780),
        ("1-2:3:4", 93784),
    ],
)
def test_time_limits(text, expected):
    assert slurm.seconds(text) == expected


@pytest.mark.parametrize(("text", "counts"), [("4", [4]), ("2(x3),1", [2, 2, 2, 1]), ("1,2", [1, 2])])
def test_task_counts(text, counts):
    assert task_counts(text) == counts


@pytest.mark.parametrize("text", ["", "x", "2(x)", "2(3)", "-1"])
def test_task_counts_of_another_form(text):
    with pytest.raises(ValueError, match="not a list like"):
        task_counts(text)


def test_the_job_around_this_process():
    assert current_job({}) is None
    env = {
        "SLURM_JOB_ID": "12",
        "SLURM_RESTART_COUNT": "3",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_TASKS_PER_NODE": "2(x2)",
    }
    assert current_job(env) == CurrentJob("12", 3, 2, 4)
    assert current_job({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "5"}) == CurrentJob("1", 0, 1, 5)
    # The number of one element of an array is that of the array; scontrol takes it for all elements.
    element = {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3", "SLURM_NTASKS": "1"}
    assert current_job(element) == CurrentJob("12_3", 0, 1, 1)
    with pytest.raises(HpcganError, match="SLURM_NTASKS='many'"):
        current_job({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "many"})


# --- Slurm's programs, played ------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Make a program of Slurm that does what a shell script says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name, script):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return make


def test_submit(program, tmp_path):
    program("sbatch", f'printf "%s\\n" "$@" > {tmp_path}/args; cat > {tmp_path}/script; echo "17;cluster"')
    run = tmp_path / "50% of $HOME"
    run.mkdir()
    assert slurm.submit("#!/bin/bash\ntrue\n", run) == "17"
    assert (tmp_path / "script").read_text() == "#!/bin/bash\ntrue\n"
    assert (tmp_path / "args").read_text().splitlines() == [
        "--parsable",
        f"--output={tmp_path}/50%% of $HOME/slurm-%j.out",
    ]


@pytest.mark.parametrize("name", ["back\\slash", "two\nlines"])
def test_folders_that_sbatch_cannot_write_to(program, tmp_path, name):
    program("sbatch", "echo 1")
    with pytest.raises(InputError, match="sbatch cannot write its log there"):
        slurm.submit("", tmp_path / name)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1",
            "sbatch: invalid partition specified: nope",
        ),
        ("echo 'Submitted batch job'", "instead of a job number"),
        ("exit 3", "sbatch: exit code 3"),
        ("sleep 30", "sbatch did not answer within 1 s"),
    ],
)
def test_what_sbatch_refuses_is_said(program, tmp_path, monkeypatch, script, message):
    if "sleep" in script:
        monkeypatch.setattr(slurm, "TIMEOUT", 1.0)
    program("sbatch", script)
    with pytest.raises(HpcganError, match=message) as error:
        slurm.submit("", tmp_path)
    assert "\n" not in str(error.value)


def test_without_slurm(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HpcganError, match="no sbatch found"):
        slurm.submit("", tmp_path)
    with pytest.raises(HpcganError, match="no scontrol found"):
        slurm.job_state("1")


def test_queue(program):
    program(
        "squeue",
        'echo "7|RUNNING|1:00:05|n[1-2]"; echo "8|PENDING|2-00:00:00|(Resources)"; echo "9|RUNNING|INVALID|n3"',
    )
    assert slurm.queue(["8", "7", "11"]) == {
        "7": slurm.QueueEntry("7", "RUNNING", "n[1-2]", 3605.0),
        "8": slurm.QueueEntry("8", "PENDING", "(Resources)", 172800.0),
    }
    assert slurm.queue([]) == {}


def test_state_of_a_job(program):
    program(
        "scontrol", 'echo "JobId=3 JobName=x UserId=u(1) JobState=FAILED Reason=NonZeroExitCode ExitCode=2:0 Requeue=1"'
    )
    assert slurm.job_state("3") == slurm.JobState("FAILED", 2, "NonZeroExitCode")
    program("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert slurm.job_state("3") is None
    program("scontrol", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(HpcganError, match="Unable to contact"):
        slurm.job_state("3")


def test_waiting_lasts_through_requeues_and_a_silent_controller(program, tmp_path):
    states = tmp_path / "states"
    states.write_text("PENDING Priority\nRUNNING\nRUNNING\nX\nX\nCOMPLETING\nREQUEUED\nRUNNING\nCOMPLETED\n")
    program(
        "scontrol",
        f'read -r state reason < {states}; sed -i 1d {states}; [ "$state" != X ] || {{ echo silence >&2; exit 1; }}; '
        'echo "JobState=$state Reason=${reason:-None} ExitCode=0:0"',
    )
    told = []
    assert slurm.wait("3", told.append, every=0.01) == slurm.JobState("COMPLETED", 0, "")
    assert told == [
        "pending (Priority)", "running", "scontrol: silence", "completing", "requeued", "running", "completed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ("PENDING None\nPENDING PartitionNodeLimit\n", "PartitionNodeLimit"),
        ("PENDING None\nPENDING Resources\n", ""),
        ("PENDING JobArrayTaskLimit\n", ""),
        ("PENDING None\nRUNNING None\n", ""),
        ("PENDING None\n" * 1000, ""),
        ("", ""),
    ],
    ids=["never", "its turn", "array", "runs", "nothing said", "no answer"],
)
def test_why_a_job_will_not_start(program, tmp_path, answers, said):
    states = tmp_path / "states"
    states.write_text(answers)
    program("scontrol", f'read -r s r < {states} || exit 1; sed -i 1d {states}; echo "JobState=$s Reason=$r"')
    within = 0.2 if len(answers) > 1000 else 60.0
    assert slurm.obstacle("3", within=within, every=0.01) == said


def supervisor(job, told, **changes):
    """One whose ranks stop with a checkpoint at once."""
    return supervise.Supervisor(lambda requests: EXIT_INTERRUPTED, lambda: 1, job=job, report=told.append, **changes)


def test_a_job_goes_back_into_the_queue_once_the_controller_answers(program, tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "REQUEUE_TIMEOUT", 0.0)
    program(
        "scontrol",
        f'echo "$@" >> {tmp_path}/asked; [ "$(wc -l < {tmp_path}/asked)" -gt 2 ] || {{ echo silence >&2; exit 1; }}; '
        'echo "JobState=RUNNING Reason=None ExitCode=0:0"',
    )
    told = []
    assert supervisor(CurrentJob("12_3", 0, 1, 1), told, patience=3.0).run() == EXIT_INTERRUPTED
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["show job --oneliner 12_3"] * 3 + ["requeue 12_3"]
    assert told == ["checkpoint written; job 12_3 is back in the queue"]


def test_a_run_that_a_command_has_stopped_does_not_go_back_into_the_queue(program, tmp_path):
    program("scontrol", f"touch {tmp_path}/asked; echo JobState=RUNNING")
    told = []
    job = CurrentJob("12_3", 0, 1, 1)
    assert supervisor(job, told, stopped=lambda: True).run() == EXIT_INTERRUPTED
    assert not told
    assert not (tmp_path / "asked").exists()


def test_ranks_that_slurm_ended_because_one_was_lost_are_started_again():
    """srun then says that a rank was terminated (143), as if somebody had wished the end of the job."""
    codes, told = iter([143, 143, 0]), []
    it = supervise.Supervisor(lambda requests: next(codes), lambda: 1, retries=3, report=told.append, backoff=0.0)
    assert it.run() == 0
    assert [line.split(";")[0] for line in told] == ["the ranks failed with exit code 143"] * 2


@pytest.mark.parametrize(
    ("code", "hurry", "state", "ends"),
    [(143, False, "RUNNING", "requeue"), (137, False, "RUNNING", "requeue"), (130, True, "RUNNING", 130)],
)
def test_a_request_that_came_while_the_ranks_failed_is_not_forgotten(
    program, tmp_path, monkeypatch, code, hurry, state, ends
):
    monkeypatch.setattr(supervise, "REQUEUE_TIMEOUT", 0.0)
    program("scontrol", f'echo "$1" >> {tmp_path}/asked; echo JobState=RUNNING')

    def start(requests):
        requests.ask(signal.SIGUSR1, None)
        requests.hurry = hurry
        return code

    it = supervise.Supervisor(start, lambda: 1, job=CurrentJob("7", 0, 1, 1), report=lambda line: None)
    if ends == "requeue":
        assert it.run() == EXIT_INTERRUPTED
        assert (tmp_path / "asked").read_text().split() == ["show", "requeue"]
    else:
        assert it.run() == ends


@pytest.mark.parametrize(
    ("answer", "restarts", "said"),
    [
        ("echo JobState=CANCELLED", 0, []),
        ("echo 'Invalid job id specified' >&2; exit 1", 0, []),
        ("exit 1", 0, ["error: cannot queue again (scontrol: exit code 1); submit again to go on"]),
        ("echo JobState=RUNNING", 5, ["job 7 was queued 5 times (--requeues 5): stopping here, submit again to go on"]),
    ],
    ids=["cancelled", "forgotten", "no controller", "often enough"],
)
def test_a_job_that_does_not_go_back_into_the_queue(program, answer, restarts, said):
    program("scontrol", f'[ "$1" = show ] || exit 9; {answer}')
    told = []
    job = CurrentJob("7", restarts, 1, 1)
    assert supervisor(job, told, patience=0.0, requeues=5).run() == EXIT_INTERRUPTED
    assert told == said


def test_mpi_types(program):
    answer = (
        "MPI plugin types are...\\n\\tpmix\\n\\tnone\\n\\tpmi2\\nspecific pmix plugin versions available: pmix_v4\\n"
    )
    program("srun", f'printf "{answer}"')
    assert slurm.srun_mpi_types() == ["pmix", "none", "pmi2"]
