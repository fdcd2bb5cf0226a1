"""Batch scripts and what is read from Slurm's commands; no Slurm needed (a fake one stands in for its programs)."""

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from hpcgan import yamlio
from hpcgan.commands import cli
from hpcgan.config import JobSection, flags
from hpcgan.config.job import seconds
from hpcgan.errors import EXIT_FAILED, EXIT_INTERRUPTED, HpcganError, InputError
from hpcgan.launch import slurm, supervise
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import Lease
from hpcgan.system.allocation import CurrentJob, current_job, task_counts

EXPECTED = Path(__file__).parents[1] / "data" / "slurm"


def job(**keys):
    """A section `job:`."""
    return flags.section("job", JobSection, keys)


def script(fields, argv=("train",), *, python="python", folder=Path("/x"), **options):
    """The batch script of a job with a name."""
    keys = {"name": "x", **fields}
    name = keys.pop("name")
    return slurm.render(job(**keys), name, slurm.Program(argv, python=python, folder=folder), **options)


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
    argv = ["train", "/home/user/hpcgan/configs/rpv.yaml", "training.epochs=3", "--run", "/scratch/runs/rpv"]
    home = Path("/home/user/hpcgan")
    text = script(fields, argv, python="/home/user/hpcgan/.venv/bin/python", folder=home, site=site)
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
        script({field: value})
    assert f"job.{field}=" in str(error.value) or (field == "name" and str(error.value).startswith("name "))
    assert "\n" not in str(error.value)


@given(field=st.sampled_from(TEXT_FIELDS), value=st.text(max_size=40))
def test_whatever_a_field_holds_stays_on_its_line(field, value):
    try:
        text = script({field: value}, ["train", "c.yaml"])
    except InputError:
        return
    lines = text.splitlines()
    start = lines.index("set -euo pipefail")
    assert all(line.startswith("#") or not line for line in lines[:start])
    assert not set(value) & set(" \t\n'\"`$\\;<>")


@pytest.mark.parametrize(
    ("field", "value"),
    [("nodes", 0), ("nodes", "x"), ("ranks_per_node", -1), ("threads", 0), ("signal_s", 0), ("retries", -1),
     ("requeues", -2), ("gpus_per_node", 0), ("time", "0"), ("time", "1:2:3:4"),
     ("time", "soon"), ("mem", "12Q")],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(capsys, field, value):
    with pytest.raises(InputError, match=rf"^job\.{field}="):
        job(**{field: value})
    with pytest.raises(InputError, match=rf"job\.{field}: "):
        tiny.config("absent", f"job.{field}={json.dumps(value)}")
    flag = {"signal_s": "signal", "gpus_per_node": "gpus"}.get(field, field.replace("_", "-"))
    assert cli.main(["submit", "c.yaml", f"--{flag}={value}"]) == 2
    said = capsys.readouterr().err
    assert f"hpcgan submit: error: argument --{flag}: " in said
    assert len(said.splitlines()) == 1


def test_keys_that_there_are_not_are_refused_with_what_was_meant():
    with pytest.raises(InputError, match=r"^unknown option 'partitoin'; did you mean 'partition'\?"):
        job(partitoin="x")
    with pytest.raises(InputError, match=r"unknown key 'job\.partitoin'; did you mean 'partition'\?"):
        tiny.config("absent", "job.partitoin=x")


def test_flag_override_and_file_say_the_same_and_the_flag_counts_most(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = tiny.config("absent").dump()
    whole["job"] = {"nodes": 2, "time": 30, "account": "m1", "sbatch": "--hold"}
    (tmp_path / "c.yaml").write_text(yamlio.dump(whole))
    command = ["submit", "c.yaml", "job.account=m2", "job.qos=a", "--qos", "b", "--print", "--time=40"]
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    lines = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert lines[1:7] == ["--nodes=2", "--ntasks-per-node=1", "--time=40", "--account=m2", "--qos=b", "--hold"]
    assert "job." not in text  # what the job runs is the training, however it was started


def test_how_a_training_is_started_is_no_part_of_it(tmp_path, capsys):
    plain = tiny.config("absent")
    other = tiny.config("absent", "job.nodes=4", "sweep.trials=3", "scaling.ranks=1,2")
    assert other.identity_hash() == plain.identity_hash()
    assert other.dump() == plain.dump()
    (tmp_path / "c.yaml").write_text(plain.to_yaml())
    assert cli.main(["train", str(tmp_path / "c.yaml"), "job.nodes=4", "--dry-run"]) == 0
    shown = yamlio.load(capsys.readouterr().out)
    assert shown == tiny.config("absent", "job.nodes=4").dump("job", "sweep", "scaling")
    assert shown["job"]["nodes"] == 4


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20), max_size=4))
def test_arguments_reach_the_command_as_they_are(tmp_path_factory, words):
    """The script is run by a real bash, with a Python that prints what it gets."""
    folder = tmp_path_factory.mktemp("run")
    text = script({}, ["train", *words], python="PYTHON", folder=folder)
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
    text = script({}, python="echo", folder=folder, site=site)
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
    assert seconds(text) == expected


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


@pytest.mark.parametrize(
    "said",
    [
        "scancel: error: Kill job error on job id 7: Invalid job id specified",
        "scancel: error: Kill job error on job id 7: Job/step already completing or completed",
        "Job has already finished for job 7",
        "Invalid job id specified for job 7",
    ],
)
def test_a_job_that_ends_before_it_is_told_to_is_no_failure(program, said):
    for tool in ("scancel", "scontrol"):
        program(tool, f"printf '%s\\n' {shlex.quote(said)} >&2; exit 1")
    assert slurm.ask_to_stop("7") is False
    assert slurm.forbid_requeue("7") is False
    slurm.cancel(["7", "8"])


@pytest.mark.parametrize(
    "said",
    ["", "x: Access/permission denied", "7: Invalid job id specified\nUnable to contact slurm controller"],
)
def test_other_refusals_to_end_a_job_are_failures(program, said):
    for tool in ("scancel", "scontrol"):
        program(tool, f"printf '%s\\n' {shlex.quote(said)} >&2; exit 1")
    for tell in (slurm.ask_to_stop, slurm.forbid_requeue, lambda job: slurm.cancel([job, "8"])):
        with pytest.raises(HpcganError, match=said.splitlines()[-1] if said else "exit code 1"):
            tell("7")


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


# --- what is asked for is what runs -------------------------------------------------------------------------


def test_options_of_the_script_are_on_the_command_line_too(program, tmp_path):
    """Variables of the environment win over #SBATCH lines, and lose to the command line."""
    program("sbatch", f'printf "%s\\n" "$@" > {tmp_path}/args; echo 17')
    fields = {"nodes": 2, "mem": "1G", "partition": "a,b", "sbatch": ["--nice=5 --hold"]}
    text = script(fields, ["train", "--x"], folder=tmp_path, array="0-3%2")
    slurm.submit(text, tmp_path, after=["11", "12_3"])
    args = (tmp_path / "args").read_text().splitlines()
    said = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert args == ["--parsable", *said, "--dependency=afterany:11:12_3", f"--output={tmp_path}/slurm-%j.out"]
    assert {"--nodes=2", "--mem=1G", "--partition=a,b", "--array=0-3%2", "--requeue", "--nice=5", "--hold",
            "--signal=B:USR1@120", "--open-mode=append", "--time=1:00:00"} <= set(said)  # fmt: skip


def sbatch_environment(program, monkeypatch, tmp_path, variables, **fields):
    """Those of some variables that sbatch sees."""
    program("sbatch", f"env > {tmp_path}/env; echo 17")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    slurm.submit(script(fields, folder=tmp_path), tmp_path)
    seen = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line)
    return {name for name in variables if name in seen}


def test_sbatch_sees_nothing_of_the_job_around_it(program, monkeypatch, tmp_path):
    inside = {
        "SLURM_JOB_ID": "7", "SLURM_MEM_PER_CPU": "200", "SLURM_MEM_PER_NODE": "1", "SLURM_NTASKS": "1",
        "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_EXPORT_ENV": "NONE", "SLURM_CPU_BIND": "none",
        "SLURM_RESTART_COUNT": "3", "SLURM_ARRAY_TASK_ID": "1", "PMIX_RANK": "0", "PMI_RANK": "0",
        "OMPI_COMM_WORLD_RANK": "0", "SRUN_DEBUG": "3", "SLURMD_NODENAME": "n1",
    }  # fmt: skip
    kept = {"SLURM_CONF": "/etc/slurm.conf", "OMPI_MCA_btl": "tcp", "HPCGAN_LAUNCHER": "srun", "LD_LIBRARY_PATH": "/x"}
    assert sbatch_environment(program, monkeypatch, tmp_path, {**inside, **kept}) == set(kept)


OF_SITE = {"SBATCH_ACCOUNT": "a", "SBATCH_PARTITION": "p", "SBATCH_QOS": "q", "SBATCH_GRES": "g",
           "SBATCH_MEM_PER_CPU": "1",
           "SBATCH_RESERVATION": "r", "SBATCH_CONSTRAINT": "c", "SBATCH_GPUS": "1"}  # fmt: skip
NEVER = {"SBATCH_TIMELIMIT": "1", "SBATCH_ARRAY_INX": "0-3", "SBATCH_REQUEUE": "1", "SBATCH_NO_REQUEUE": "1",
         "SBATCH_WAIT": "1",
         "SBATCH_SIGNAL": "INT@3", "SBATCH_OUTPUT": "o", "SBATCH_OPEN_MODE": "truncate",
         "SBATCH_JOB_NAME": "n"}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "unheard"),
    [
        ({}, set()),
        ({"partition": "x"}, {"SBATCH_PARTITION"}),
        ({"mem": "1G"}, {"SBATCH_MEM_PER_CPU"}),
        ({"gpus_per_node": 1}, {"SBATCH_GPUS", "SBATCH_GRES"}),
        ({"account": "b", "qos": "c"}, {"SBATCH_ACCOUNT", "SBATCH_QOS"}),
        ({"sbatch": ["--gres=gpu:1"]}, {"SBATCH_GRES", "SBATCH_GPUS"}),
        ({"sbatch": ["--mem-per-cpu=1G"]}, {"SBATCH_MEM_PER_CPU"}),
    ],
)
def test_variables_of_sbatch_count_where_nothing_else_was_asked_for(program, monkeypatch, tmp_path, fields, unheard):
    seen = sbatch_environment(program, monkeypatch, tmp_path, {**OF_SITE, **NEVER}, **fields)
    assert seen == set(OF_SITE) - unheard


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--mail-type=END"], ("--mail-type=END",)),
        (["--mail-type=END,FAIL --mail-user me@x.org", "--exclusive"],
         ("--mail-type=END,FAIL", "--mail-user=me@x.org", "--exclusive")),
        (["--licenses='a:2'"], ("--licenses=a:2",)),
        ("--nice=5", ("--nice=5",)),
        ([], ()),
    ],
)  # fmt: skip
def test_further_options_of_sbatch(words, options):
    assert job(sbatch=words).sbatch == options


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--output=x", "--output is hpcgan's own: the log goes into the run directory"),
        ("--time=5", "--time is hpcgan's own: use --time"),
        ("--ntasks=5", "use --nodes and --ranks-per-node"),
        ("--requeue", "use --requeues"),
        ("--wrap=ls", "the script is hpcgan's"),
        ("--array=0-3", "submits arrays"),
        ("--signal=USR2", "use --signal"),
        ("--job-name=x", "the name of the configuration"),
        ("--outp=x", "no option of sbatch that hpcgan hands through"),
        ("--chdir=/", "where it is submitted"),
        ("-p main", "long form"),
        ("-Jx", "long form"),
        ("--comment='a b'", "letters, digits"),
        ("--comment=$(touch pwned)", "long form|letters, digits"),
        ("--comment='a\nb'", "letters, digits"),
        ("--comment=`x`", "letters, digits"),
        ("--comment='a;b'", "letters, digits"),
        ("--comment=a\\\\b", "letters, digits"),
        ("--comment=é", "letters, digits"),
        ("--comment='", "cannot be read"),
        ("script.sh", "long form"),
        ("--exclusive=user script.sh", "long form"),
        ("  ", "is empty"),
    ],
)
def test_options_of_sbatch_that_are_refused(words, said):
    with pytest.raises(InputError, match=said) as error:
        job(sbatch=[words])
    assert str(error.value).startswith("job.sbatch=")
    assert "\n" not in str(error.value)


@given(st.text(max_size=30))
def test_whatever_is_handed_through_stays_on_its_line(text):
    try:
        options = job(sbatch=[f"--comment={text}"]).sbatch
    except InputError:
        return
    whole = script({"sbatch": options})
    assert whole.splitlines()[: 5 + len(options)][-1] == f"#SBATCH {options[-1]}"
    assert slurm.options_of(whole)[4 : 4 + len(options)] == list(options)


def test_the_command_line_takes_options_of_sbatch_as_they_are_written():
    args = cli.parse(
        ["submit", "c.yaml", "--sbatch", "--mail-type=END", "--sbatch", "--hold --nice=1", "training.epochs=2"]
    )
    assert args.overrides == ["training.epochs=2", 'job.sbatch=["--mail-type=END", "--hold", "--nice=1"]']


# --- time limits against the signal ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "lead", "startup", "outcome"),
    [
        ("0:01:00", 120, None, "refused"),
        ("1", 20, None, "refused"),  # Slurm may be a minute early
        ("3", 120, None, "refused"),
        ("0:03:01", 120, None, None),  # Slurm makes 4 minutes of it
        ("4", 120, None, None),
        ("2", 10, None, None),
        ("1:00:00", 3600, None, "refused"),
        ("1:00:00", 120, 300.0, None),
        ("10", 120, 500.0, "refused"),
        ("10", 120, 300.0, "warned"),
        ("10", 120, 60.0, None),
        ("4", 120, 10.0, None),
    ],
)
def test_a_limit_must_leave_room_before_the_signal(time, lead, startup, outcome):
    spec = job(time=time, signal_s=lead)
    if outcome != "refused":
        warning = slurm.check_room(spec, startup)
        assert (warning is not None) == (outcome == "warned")
        assert warning is None or f"{startup:.0f} s to start" in warning
        return
    with pytest.raises(
        InputError, match=rf"--time {time}: .*--signal.* ask for --time \d+ \(minutes\) or more"
    ) as error:
        slurm.check_room(spec, startup)
    assert "\n" not in str(error.value)
    enough = re.search(r"ask for --time (\d+)", str(error.value))[1]
    assert slurm.check_room(job(time=enough, signal_s=lead), startup) is None


def test_only_scripts_that_are_warned_need_the_room():
    with pytest.raises(InputError, match="--time 1"):
        script({"time": "1"})
    assert "--signal" not in script({"time": "1"}, ["scaling"], ending="plain")


def test_a_chain_whose_starts_are_good_for_nothing_ends(program, tmp_path, monkeypatch):
    program("scontrol", f'echo "$1" >> {tmp_path}/asked; echo JobState=RUNNING Requeue=1')
    told = []
    reason = "3 starts of job 7 in a row trained 1 s of 30 s"
    monkeypatch.setattr(supervise.Shares, "hopeless", lambda self: reason)
    assert supervisor(CurrentJob("7", 2, 1, 1), told).supervise() == EXIT_FAILED
    assert told == ["error: 3 starts of job 7 in a row trained 1 s of 30 s"]
    assert (tmp_path / "asked").read_text().split() == ["show"]


def test_a_preempted_start_is_not_held_against_the_chain(program, tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "REQUEUE_TIMEOUT", 0.0)
    program("scontrol", "echo JobState=PREEMPTED Requeue=1")
    told = []
    monkeypatch.setattr(supervise.Shares, "hopeless", lambda self: "no")
    assert supervisor(CurrentJob("7", 2, 1, 1), told).supervise() == EXIT_INTERRUPTED
    assert told == ["checkpoint written; job 7 goes back into the queue"]


def test_a_job_that_may_not_queue_again_ends_with_its_checkpoint(program, tmp_path):
    program("scontrol", f'echo "$1" >> {tmp_path}/asked; echo JobState=RUNNING Requeue=0')
    told = []
    assert supervisor(CurrentJob("7", 0, 1, 1), told).supervise() == EXIT_INTERRUPTED
    assert told == ["checkpoint written; job 7 ends here, as it was asked to"]
    assert (tmp_path / "asked").read_text().split() == ["show"]


#: A run without checkpoints.
NO_RUN = RunDirectory(Path("there is none"))


def supervisor(job, told, run=NO_RUN, **limits):
    """One whose ranks stop with a checkpoint at once."""
    return supervise.Supervisor(lambda requests: EXIT_INTERRUPTED, run, JobSection(**limits), job, told.append)


def test_a_job_goes_back_into_the_queue_once_the_controller_answers(program, tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "REQUEUE_TIMEOUT", 0.0)
    program(
        "scontrol",
        f'echo "$@" >> {tmp_path}/asked; [ "$(wc -l < {tmp_path}/asked)" -gt 2 ] || {{ echo silence >&2; exit 1; }}; '
        'echo "JobState=RUNNING Reason=None ExitCode=0:0"',
    )
    told = []
    monkeypatch.setattr(supervise, "PATIENCE", 3.0)
    assert supervisor(CurrentJob("12_3", 0, 1, 1), told).supervise() == EXIT_INTERRUPTED
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["show job --oneliner 12_3"] * 3 + ["requeue 12_3"]
    assert told == ["checkpoint written; job 12_3 goes back into the queue"]


def test_a_run_that_a_command_has_stopped_does_not_go_back_into_the_queue(program, tmp_path):
    program("scontrol", f"touch {tmp_path}/asked; echo JobState=RUNNING")
    told = []
    run = RunDirectory(tmp_path / "run")
    Lease(run).release("stopped")
    assert supervisor(CurrentJob("12_3", 0, 1, 1), told, run).supervise() == EXIT_INTERRUPTED
    assert not told
    assert not (tmp_path / "asked").exists()


def test_ranks_that_slurm_ended_because_one_was_lost_are_started_again(monkeypatch):
    """srun then says that a rank was terminated (143), as if somebody had wished the end of the job."""
    codes, told = iter([143, 143, 0]), []
    monkeypatch.setattr(supervise, "BACKOFF", 0.0)
    it = supervise.Supervisor(lambda requests: next(codes), NO_RUN, JobSection(), report=told.append)
    assert it.supervise() == 0
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

    it = supervise.Supervisor(start, NO_RUN, JobSection(), job=CurrentJob("7", 0, 1, 1), report=lambda line: None)
    if ends == "requeue":
        assert it.supervise() == EXIT_INTERRUPTED
        assert (tmp_path / "asked").read_text().split() == ["show", "requeue"]
    else:
        assert it.supervise() == ends


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
def test_a_job_that_does_not_go_back_into_the_queue(program, monkeypatch, answer, restarts, said):
    program("scontrol", f'[ "$1" = show ] || exit 9; {answer}')
    told = []
    job = CurrentJob("7", restarts, 1, 1)
    monkeypatch.setattr(supervise, "PATIENCE", 0.0)
    assert supervisor(job, told, requeues=5).supervise() == EXIT_INTERRUPTED
    assert told == said


def test_mpi_types(program):
    answer = (
        "MPI plugin types are...\\n\\tpmix\\n\\tnone\\n\\tpmi2\\nspecific pmix plugin versions available: pmix_v4\\n"
    )
    program("srun", f'printf "{answer}"')
    assert slurm.srun_mpi_types() == ["pmix", "none", "pmi2"]
