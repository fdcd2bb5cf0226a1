"""Slurm: the text of a batch script, and the few questions and orders to the scheduler.

`render` is a pure function; every key of the `job:` section has passed a pattern, paths and arguments are quoted for
the shell, and Slurm's commands are called with argument lists. Slurm is spoken to through its command-line
tools, which every site has.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hpcgan.config import JobSection
from hpcgan.config.job import is_name, seconds
from hpcgan.errors import HpcganError, InputError
from hpcgan.system.allocation import outside

#: Seconds that a Slurm command may take before the scheduler counts as out of reach.
TIMEOUT = 60.0
#: States of a job that may still run, or run again.
UNFINISHED = (
    *("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"),
    *("REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"),
)
#: States of a job of which something is still there.
PRESENT = (*UNFINISHED, "COMPLETING")
#: Settings of the site, sourced by jobs if the file is there.
SITE = Path("slurm/site.sh")

# Reasons for which every job waits now and then.
_ITS_TURN = (
    *("Priority", "Resources", "BeginTime", "Dependency", "JobHeldUser", "Cleaning", "Licenses", "Reservation"),
    *("JobArrayTaskLimit", "QOSMaxJobsPerUserLimit", "AssocMaxJobsLimit"),
)

#: Seconds by which Slurm may signal a job early.
EARLY = 60.0
#: Seconds that a job must have to start and train, where nothing is known of it.
LEAST_ROOM = 30.0

# Variables of sbatch that do not count, whatever they say: what they decide is decided for every job of hpcgan.
_UNHEARD = ("ARRAY_INX", "ERROR", "INPUT", "NO_KILL", "NO_REQUEUE", "OPEN_MODE", "OUTPUT", "REQUEUE", "SIGNAL", "WAIT")
# Those that contradict an option which is given, beside that of its own name.
_CONTRADICTING = {
    "array": ("ARRAY_INX",),
    "time": ("TIMELIMIT",),
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), ("MEM_PER_CPU", "MEM_PER_GPU", "MEM_PER_NODE")),
    **dict.fromkeys(
        ("gpus-per-node", "gres"),
        ("GPUS", "GPUS_PER_NODE", "GPUS_PER_SOCKET", "GPUS_PER_TASK", "GRES", "TRES_PER_TASK"),
    ),
    "cpus-per-task": ("CPUS_PER_GPU", "TRES_PER_TASK"),
    **dict.fromkeys(("exclusive", "oversubscribe"), ("EXCLUSIVE",)),
}


def check_room(job: JobSection, startup: float | None = None) -> str | None:
    """Refuse a time limit that leaves no time for training before the checkpoint.

    Parameters
    ----------
    job : JobSection
    startup : float, optional
        Seconds that earlier attempts took from their start to the end of their first step.

    Returns
    -------
    str or None
        A warning, if more of each job will go into its start than into training.

    Raises
    ------
    InputError
        One line with the numbers and the remedy.
    """
    limit = 60 * math.ceil(seconds(job.time) / 60)  # Slurm counts in minutes
    room = limit - job.signal_s - EARLY
    needed = LEAST_ROOM if startup is None else startup
    if room >= 2 * needed or (startup is None and room >= needed):
        return None
    least = 60 * math.ceil((job.signal_s + EARLY + max(LEAST_ROOM, 2 * needed)) / 60)
    why = "" if startup is None else f", and this run took {startup:.0f} s to start"
    text = (
        f"--time {job.time}: of {limit} s, the last {job.signal_s} are for the checkpoint (--signal), and Slurm may "
        f"ask for it {EARLY:.0f} s early: {max(0.0, room):.0f} s are left for starting and training{why}; "
        f"ask for --time {least // 60} (minutes) or more" + (", or a smaller --signal" if limit > EARLY + 60 else "")
    )
    if room < needed:
        raise InputError(text)
    return text


def site_file(job: JobSection) -> Path | None:
    """The shell file with the site's settings: the job's, else `SITE` if it is there.

    Raises
    ------
    InputError
        The job's does not exist.
    """
    site = job.site or (SITE if SITE.is_file() else None)
    if site is not None and not site.is_file():
        raise InputError(f"{site}: no such file (job.site)")
    return site.absolute() if site else None


@dataclass(frozen=True)
class Program:
    """What a job runs on all its tasks: `python -m MODULE ARGV`.

    Attributes
    ----------
    argv : sequence of str
        Quoted in the script.
    module : str
    python : str
        The interpreter on the compute nodes.
    folder : Path
        Working directory of the job.
    """

    argv: Sequence[str]
    module: str = "hpcgan"
    python: str = sys.executable
    folder: Path = field(default_factory=Path.cwd)


Ending = Literal["supervised", "requeued", "warned", "plain"]


def render(
    job: JobSection,
    name: str,
    program: Program,
    *,
    site: Path | None = None,
    ending: Ending = "supervised",
    array: str | None = None,
) -> str:
    """The batch script of a job.

    Parameters
    ----------
    job : JobSection
    name : str
        Of the job.
    program : Program
    site : Path, optional
        Shell file with the site's modules and settings, sourced first.
    ending : str
        `supervised`: the job is seen to its end through time limits and failures, which only trainings are;
        `requeued`: queued again when its node is lost or another job takes it, and told (SIGUSR1) that its time is
        nearly up; `warned`: only that; `plain`: it runs once.
    array : str, optional
        Elements of a job array, and how many of them may run at a time: `0-31%4`.

    Returns
    -------
    str
        Text for sbatch. Where its output goes is not part of it (see `submit`): the patterns of file names
        in #SBATCH lines cannot be quoted.

    Raises
    ------
    InputError
        The script is warned so early that it has no time (`check_room`), or its name is none.
    """
    if not is_name(name):
        raise InputError(f"name {name!r}: not a name of a job: letters, digits and _.+- only")
    if ending != "plain":
        check_room(job)
    options = [f"--job-name={name}", *job.directives(), *([] if array is None else [f"--array={array}"]), *job.sbatch]
    if ending != "plain":
        options.append(f"--signal=B:USR1@{job.signal_s}")
    if ending in ("supervised", "requeued"):
        options += ["--requeue", "--open-mode=append"]
    elif ending == "warned":
        options.append("--no-requeue")
    if ending == "supervised" and job.min_ranks is not None:
        options.append("--no-kill")  # the supervisor goes on with the nodes that are left
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in options)]
    lines += ["", "set -euo pipefail", f"cd {shlex.quote(str(program.folder))}"]
    if site is not None:
        lines.append(f"source {shlex.quote(str(site))}")
    command = [program.python, "-m", program.module]
    if ending == "supervised":
        lines.append("# The supervisor takes the place of this shell, so that Slurm's signals reach it.")
        command += ["supervise", "--requeues", str(job.requeues), "--retries", str(job.retries)]
        command += [] if job.min_ranks is None else ["--min-ranks", str(job.min_ranks)]
        command.append("--")
    lines.append("exec " + shlex.join([*command, *program.argv]))
    return "\n".join(lines) + "\n"


def options_of(script: str) -> list[str]:
    """The options in a script's #SBATCH lines, each of which holds one."""
    return re.findall(r"^#SBATCH (--\S+)$", script.split("\n\n")[0], re.MULTILINE)


def submit_environment(env: Mapping[str, str], options: Sequence[str]) -> dict[str, str]:
    """The environment in which sbatch does what it is asked for.

    Nothing of the job, the step and the ranks around this process is left, since sbatch hands its environment to the
    new job, whose srun would heed it. SBATCH_* variables count where they decide what nobody has asked for (a site's
    account or partition, say), and not where they contradict an option.

    Parameters
    ----------
    env : mapping
    options : sequence of str
        Of sbatch, `--name` or `--name=value`.
    """
    names = {option[2:].partition("=")[0] for option in options}
    unheard = set(_UNHEARD)
    for name in names:
        unheard |= {name.upper().replace("-", "_"), *_CONTRADICTING.get(name, ())}
    variables = {f"SBATCH_{name}" for name in unheard}
    return {name: value for name, value in outside(env).items() if name not in variables}


def submit(script: str, folder: Path, log: str = "slurm-%j.out", after: Sequence[str] = ()) -> str:
    """Hand a script to sbatch; its output goes to `folder`/slurm-JOBID.out, or another pattern of sbatch's.

    The options in the script are given on the command line, too: variables of the environment win over those in the
    script. The environment is that of `submit_environment`.

    Parameters
    ----------
    script : str
    folder : Path
    log : str
    after : sequence of str
        Jobs that must have ended before it starts.

    Returns
    -------
    str
        The job's number.

    Raises
    ------
    InputError
        A folder that sbatch cannot write a log into.
    HpcganError
        No sbatch here, or sbatch refuses: what it says.
    """
    path = str(folder.resolve()).replace("%", "%%")  # a percent sign starts a pattern
    if "\\" in path or not path.isprintable():  # a backslash switches patterns off
        raise InputError(f"{str(folder)!r}: sbatch cannot write its log there; take a name without \\ and controls")
    options = options_of(script)
    if after:
        options.append(f"--dependency=afterany:{':'.join(after)}")
    command = ["sbatch", "--parsable", *options, f"--output={path}/{log}"]
    answer = _call(command, stdin=script, env=submit_environment(os.environ, options)).strip()
    number = answer.split(";")[0]  # JOBID;CLUSTER on federated sites
    if not re.fullmatch(r"\d+", number):
        raise HpcganError(f"sbatch answered {answer!r} instead of a job number")
    return number


@dataclass(frozen=True)
class QueueEntry:
    """A job as squeue shows it.

    Attributes
    ----------
    state : str
        PENDING, RUNNING, COMPLETING ...
    reason : str
        Why it waits, or the nodes it runs on.
    seconds_left : float or None
        Time left of its limit.
    """

    job: str
    state: str
    reason: str
    seconds_left: float | None


def queue(jobs: Sequence[str]) -> dict[str, QueueEntry]:
    """The state of jobs in the queue; jobs that ended some time ago are left out.

    Raises
    ------
    HpcganError
        No squeue here, or the scheduler does not answer.
    """
    if not jobs:
        return {}
    # Asking for one unknown job among several is an error in some versions: ask for all of mine, each element of
    # an array on its own line.
    text = _call(["squeue", "--noheader", "--me", "--array", "--format=%i|%T|%L|%R"])
    entries = {}
    for line in text.splitlines():
        fields = line.strip().split("|", 3)
        if len(fields) == 4 and fields[0] in jobs:
            try:
                rest_s: float | None = seconds(fields[2])
            except ValueError:
                rest_s = None
            entries[fields[0]] = QueueEntry(fields[0], fields[1], fields[3], rest_s)
    return entries


def nodes_of(job: str) -> list[str]:
    """The nodes that a running job has now, which may be fewer than at its start.

    Raises
    ------
    HpcganError
        No scontrol here, the controller does not answer, or the job has no nodes.
    """
    nodes = re.search(r"\sNodeList=(\S+)", _call(["scontrol", "show", "job", "--oneliner", job]))
    if nodes is None or nodes[1] == "(null)":
        raise HpcganError(f"job {job} has no nodes")
    return hostnames(nodes[1])


def hostnames(nodes: str) -> list[str]:
    """Names of nodes from Slurm's short form, `n[1-2]`.

    Raises
    ------
    HpcganError
        No scontrol here, or another form.
    """
    return _call(["scontrol", "show", "hostnames", nodes]).split()


def queue_length() -> int:
    """Jobs in the queue, of all users; of an array, each element.

    Raises
    ------
    HpcganError
        No squeue here, or the scheduler does not answer.
    """
    return len(_call(["squeue", "--noheader", "--array", "--format=%i"]).split())


@dataclass(frozen=True)
class JobState:
    """A job as the controller has it.

    Attributes
    ----------
    state : str
        PENDING, RUNNING, COMPLETED ...
    code : int
        Its exit code so far, as a shell would have it.
    reason : str
        Why it waits (Resources, PartitionNodeLimit ...), or empty.
    requeue : bool
        Whether it may go back into the queue.
    """

    state: str
    code: int
    reason: str
    requeue: bool = True

    def __str__(self) -> str:
        text = self.state.lower()
        return f"{text} ({self.reason})" if self.reason and self.state == "PENDING" else text


def job_state(job: str) -> JobState | None:
    """State of a job; None if the controller knows it no more.

    Raises
    ------
    HpcganError
        No scontrol here, or the controller does not answer.
    """
    try:
        text = _call(["scontrol", "show", "job", "--oneliner", job])
    except HpcganError as error:
        if "Invalid job id" in str(error):
            return None
        raise
    state = re.search(r"\bJobState=([A-Z_]+)", text)
    if state is None:
        return None
    code = re.search(r"\bExitCode=(\d+):(\d+)", text)
    status, number = (int(code[1]), int(code[2])) if code else (0, 0)
    reason = re.search(r"\bReason=(\S+)", text)
    return JobState(
        state[1],
        status or (128 + number if number else 0),
        reason[1] if reason and reason[1] != "None" else "",
        re.search(r"\bRequeue=0\b", text) is None,
    )


def obstacle(job: str, within: float = 5.0, every: float = 0.5) -> str:
    """Why a job just submitted waits, if that is not for its turn.

    Slurm takes a job that its cluster, as it is, will never start (too many nodes, too long a limit) and says
    so in the queue only, once it has looked at the job.

    Parameters
    ----------
    job : str
    within, every : float
        Seconds that Slurm has for it, and between looks.

    Returns
    -------
    str
        Slurm's word for the reason, or empty: it runs, waits for its turn, or Slurm has not said.
    """
    end = time.monotonic() + within
    try:
        while (state := job_state(job)) is not None and state.state == "PENDING":
            if state.reason:
                return "" if state.reason in _ITS_TURN else state.reason
            if time.monotonic() > end:
                break
            time.sleep(every)
    except HpcganError:  # the job is in the queue; that Slurm is slow to talk about it takes nothing from that
        pass
    return ""


def wait(job: str, report: Callable[[str], None], every: float = 5.0) -> JobState:
    """Until a job is over for good, through requeues; its last state.

    Parameters
    ----------
    job : str
    report : callable
        Told each state once; that the controller does not answer, too, which is waited out.
    every : float
        Seconds between looks.

    Raises
    ------
    HpcganError
        The controller knows the job no more.
    """
    last = ""
    while True:
        try:
            state = job_state(job)
        except HpcganError as error:
            if str(error) != last:
                report(str(error))
                last = str(error)
            time.sleep(every)
            continue
        if state is None:
            raise HpcganError(f"Slurm knows nothing of job {job} (any more)")
        if str(state) != last:
            report(str(state))
            last = str(state)
        if state.state not in PRESENT:
            return state
        time.sleep(every)


def cancel(jobs: Sequence[str], *, waiting_only: bool = False) -> None:
    """Take jobs out of the queue, or with `waiting_only` those that have not begun; one that is over is none.

    Raises
    ------
    HpcganError
        Slurm refuses: what it says.
    """
    if jobs:
        _tell(["scancel", *(["--state=PENDING"] if waiting_only else []), *jobs])


def ask_to_stop(job: str) -> bool:
    """Tell a job's script what Slurm tells it before the time limit (SIGUSR1).

    Returns
    -------
    bool
        False: it is over, or ending, already.

    Raises
    ------
    HpcganError
        Slurm refuses: what it says.
    """
    return _tell(["scancel", "--signal=USR1", "--batch", job])


def forbid_requeue(job: str) -> bool:
    """Let a job end when it ends, and not go back into the queue.

    Returns
    -------
    bool
        False: it is over already.

    Raises
    ------
    HpcganError
        Slurm refuses: what it says.
    """
    return _tell(["scontrol", "update", f"JobId={job}", "Requeue=0"])


def requeue(job: str) -> None:
    """Put a running job back into the queue.

    Raises
    ------
    HpcganError
        Slurm refuses: what it says.
    """
    _call(["scontrol", "requeue", job])


def srun_mpi_types() -> list[str]:
    """What `srun --mpi=` can be here."""
    text = _call(["srun", "--mpi=list"], both=True)
    return re.findall(r"^\s*(?:srun:\s*)?([a-z][a-z0-9_]*)\s*$", text, re.MULTILINE)


# What Slurm's tools say of a job that is over. Between a look at the queue and a command, any job may end.
_OVER = ("Invalid job id specified", "already finished", "already completing or completed")


def _tell(command: list[str]) -> bool:
    """Run a Slurm command that is for jobs which run or wait; whether all of them still did."""
    try:
        _call(command)
    except _Refusal as error:
        if error.lines and all(any(text in line for text in _OVER) for line in error.lines):
            return False
        raise
    return True


class _Refusal(HpcganError):
    """A Slurm command that failed, with the lines of its reason."""

    def __init__(self, text: str, lines: Sequence[str]) -> None:
        super().__init__(text)
        self.lines = lines


_OF_TOOLS = ("SQUEUE_", "SINFO_", "SCANCEL_", "SCONTROL_", "SLURM_TIME_FORMAT")


def _call(command: list[str], *, stdin: str = "", both: bool = False, env: Mapping[str, str] | None = None) -> str:
    """Standard output of a Slurm command (with `both`, its messages as well)."""
    env = os.environ if env is None else env
    path = shutil.which(command[0])
    if path is None:
        raise HpcganError(f"no {command[0]} found: this is not a machine of a Slurm cluster (or load its module)")
    try:
        process = subprocess.run(
            [path, *command[1:]],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
            # Slurm's tools read variables; formats and filters that a user has set would break ours.
            env={k: v for k, v in env.items() if not k.startswith(_OF_TOOLS)},
        )
    except subprocess.TimeoutExpired:
        raise HpcganError(f"{command[0]} did not answer within {TIMEOUT:.0f} s: is the Slurm controller up?") from None
    except OSError as error:
        raise HpcganError(f"{path} cannot be run: {error.strerror}") from None
    if process.returncode != 0:
        lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
        text = "; ".join(re.sub(rf"^{re.escape(command[0])}: (error: )?", "", line) for line in lines[:3])
        raise _Refusal(f"{command[0]}: {text or f'exit code {process.returncode}'}", lines)
    return process.stdout + (process.stderr if both else "")
