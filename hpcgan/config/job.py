"""The `job:` section: what is asked of Slurm, and which of its options a user may hand through.

One model for `hpcgan submit`, sweeps, scaling studies and clusters of engines: their options are its keys.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from hpcgan.config.base import Option, Section, option_of

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"


def is_name(text: str) -> bool:
    """Whether a text may be the name of a job."""
    return len(text) <= 64 and re.fullmatch(_NAME, text) is not None


def _limited(pattern: str, most: int) -> AfterValidator:
    """A text that neither a shell, nor a batch script, nor a pattern of file names could read as anything else."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text) or len(text) > most:
            raise ValueError("not a name that Slurm knows: letters, digits and a few of _.,+- only")
        return text

    return AfterValidator(check)


Name = Annotated[str, _limited(_NAME, 64)]
Names = Annotated[str, _limited(r"[A-Za-z0-9_][A-Za-z0-9_.,+-]*", 256)]
NodeList = Annotated[str, _limited(r"[A-Za-z0-9_][A-Za-z0-9_.,+\[\]-]*", 1024)]
Features = Annotated[str, _limited(r"[A-Za-z0-9_\[(][A-Za-z0-9_.,+&|*:=()\[\]-]*", 256)]
Memory = Annotated[str, _limited(r"[0-9]{1,9}[KMGT]?", 10)]

# What a value of an option that is handed through may hold: nothing that a shell or a batch script reads.
_VALUE = r"[A-Za-z0-9_.,:@+%/=&|*()\[\]~!^-]*"
#: Options of sbatch that are handed through, beyond those that `hpcgan submit` has itself.
# fmt: off
PASSED_ON = frozenset((
    "acctg-freq", "batch", "bb", "bbf", "begin", "cluster-constraint", "comment", "contiguous",
    "core-spec", "cores-per-socket", "cpu-freq", "cpus-per-gpu", "deadline", "delay-boot", "dependency",
    "distribution", "exclusive", "export", "extra-node-info", "get-user-env", "gpu-bind", "gpu-freq", "gres",
    "gres-flags", "hint", "hold", "kill-on-invalid-dep", "licenses", "mail-type", "mail-user", "mcs-label",
    "mem-bind", "mem-per-cpu", "mem-per-gpu", "mincpus", "network", "nice", "ntasks-per-core", "ntasks-per-socket",
    "overcommit", "oversubscribe", "power", "prefer", "priority", "profile", "propagate", "reboot", "segment",
    "sockets-per-node", "spread-job", "switches", "thread-spec", "threads-per-core", "time-min", "tmp", "tres-bind",
    "use-min-nodes", "wait-all-nodes", "wckey",
))
# fmt: on
# What decides of options of sbatch that are hpcgan's.
_OWN = {
    "job-name": "the job has the name of the configuration ('name: ...' in it)",
    "ntasks": "use --nodes and --ranks-per-node",
    "ntasks-per-gpu": "use --ranks-per-node and --gpus",
    "gpus": "use --gpus",
    "gpus-per-task": "use --gpus",
    "gpus-per-socket": "use --gpus",
    "signal": "use --signal",
    "array": "'hpcgan sweep --executor slurm' submits arrays",
    "output": "the log goes into the run directory; 'hpcgan jobs RUN --log' shows it",
    "error": "the log goes into the run directory; 'hpcgan jobs RUN --log' shows it",
    "open-mode": "the log goes into the run directory; 'hpcgan jobs RUN --log' shows it",
    "input": "the job reads no input",
    "requeue": "use --requeues",
    "no-requeue": "use --requeues 0",
    "no-kill": "the job starts again when a node is lost",
    "chdir": "the job runs where it is submitted",
    "wait": "use --wait",
    "test-only": "use --print",
    "wrap": "the script is hpcgan's",
    "parsable": "hpcgan reads the answer",
    "quiet": "hpcgan reads the answer",
    "verbose": "hpcgan reads the answer",
}


def seconds(text: str) -> float:
    """Length of a time limit in sbatch's forms: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S.

    Raises
    ------
    ValueError
        Another form, or zero.
    """
    match = re.fullmatch(
        r"(?:(?P<days>\d{1,4})-(?P<dh>\d{1,5})(?::(?P<dm>\d{1,2})(?::(?P<ds>\d{1,2}))?)?"
        r"|(?P<h>\d{1,5}):(?P<hm>\d{1,2}):(?P<hs>\d{1,2})|(?P<m>\d{1,7})(?::(?P<s>\d{1,2}))?)",
        text,
    )
    if match is None:
        raise ValueError("write it as minutes, MM:SS, HH:MM:SS or D-HH:MM:SS")
    part = {name: int(value or 0) for name, value in match.groupdict().items()}
    total = (
        86400 * part["days"]
        + 3600 * (part["dh"] + part["h"])
        + 60 * (part["dm"] + part["hm"] + part["m"])
        + part["ds"]
        + part["hs"]
        + part["s"]
    )
    if total == 0:
        raise ValueError("a limit of zero")
    return float(total)


def passed_on(words: Sequence[str]) -> tuple[str, ...]:
    """Options of sbatch that a user hands through, each as `--name` or `--name=value`.

    Parameters
    ----------
    words : sequence of str
        As on a command line, each one option or several: `--mail-type=END --mail-user me@site`.

    Raises
    ------
    ValueError
        What sbatch does not have, what hpcgan decides itself, or a value that a shell could read.
    """
    options: list[str] = []
    for text in words:
        try:
            parts = shlex.split(text)
        except ValueError as error:
            raise ValueError(f"cannot be read: {error}") from None
        if not parts:
            raise ValueError("is empty")
        for part in parts:
            match = re.fullmatch(r"--([a-z][a-z-]*)(=.*)?", part, re.DOTALL)
            if match is not None:
                options.append(part)
            elif options and "=" not in options[-1] and not part.startswith("-"):
                options[-1] += f"={part}"  # `--mail-user me@site`
            else:
                raise ValueError("write options of sbatch in their long form, --name or --name=value")
    for option in options:
        name, _, value = option[2:].partition("=")
        own = _OWN.get(name) or next((f"use --{o.flag}" for o in _options().values() if o.sbatch == name), None)
        if own is not None:
            raise ValueError(f"--{name} is hpcgan's own: {own}")
        if name not in PASSED_ON:
            raise ValueError(f"--{name} is no option of sbatch that hpcgan hands through")
        if not re.fullmatch(_VALUE, value) or len(value) > 1024:
            raise ValueError(f"--{name}: letters, digits and _.,:@+%/=&|*()[]~!^- only")
    return tuple(options)


class JobSection(Section):
    """A Slurm job, of ranks that train, are measured or wait for a notebook.

    Its keys are in the order of a batch script.
    """

    model_config = ConfigDict(coerce_numbers_to_str=True)

    nodes: Annotated[int | None, Option(sbatch="nodes")] = Field(
        None, ge=1, le=1_000_000, description="nodes; by default 1, of a cluster one a rank"
    )
    ranks_per_node: Annotated[int | None, Option(sbatch="ntasks-per-node")] = Field(
        None, ge=1, le=10_000, description="ranks on each; by default 1, of a trial or a cluster what these ask for"
    )
    threads: Annotated[int | None, Option(sbatch="cpus-per-task")] = Field(
        None, ge=1, le=10_000, description="CPUs of a rank; by default, the site's number"
    )
    time: Annotated[str, Option(metavar="LIMIT", sbatch="time")] = Field(
        "1:00:00", description="limit of one job: minutes, HH:MM:SS, D-HH:MM ..."
    )
    partition: Annotated[Names | None, Option(metavar="NAME", sbatch="partition")] = Field(
        None, description="partition (comma-separated: several)"
    )
    account: Annotated[Name | None, Option(metavar="NAME", sbatch="account")] = Field(
        None, description="account that is charged"
    )
    qos: Annotated[Name | None, Option(metavar="NAME", sbatch="qos")] = Field(None, description="quality of service")
    reservation: Annotated[Names | None, Option(metavar="NAME", sbatch="reservation")] = Field(
        None, description="reservation"
    )
    constraint: Annotated[Features | None, Option(metavar="FEATURES", sbatch="constraint")] = Field(
        None, description="features that nodes must have"
    )
    gpus_per_node: Annotated[int | None, Option("gpus", sbatch="gpus-per-node")] = Field(
        None, ge=1, le=1000, description="GPUs of a node, one a rank"
    )
    mem: Annotated[Memory | None, Option(metavar="SIZE", sbatch="mem")] = Field(
        None, description="memory of a node, e.g. 16G"
    )
    nodelist: Annotated[NodeList | None, Option(metavar="NODES", sbatch="nodelist")] = Field(
        None, description="nodes to take"
    )
    exclude: Annotated[NodeList | None, Option(metavar="NODES", sbatch="exclude")] = Field(
        None, description="nodes to leave out"
    )
    sbatch: Annotated[tuple[str, ...], Option(metavar="OPTIONS")] = Field(
        (), description="further options of sbatch, e.g. --sbatch '--mail-type=END'; may be repeated"
    )
    signal_s: Annotated[int, Option("signal", "S")] = Field(
        120, ge=1, le=65535, description="checkpoint this early, s; Slurm may be up to 60 s earlier"
    )
    requeues: int = Field(100, ge=0, le=100_000, description="times the job may queue again")
    retries: int = Field(3, ge=0, le=1000, description="failures in a row without a new checkpoint")
    min_ranks: int | None = Field(
        None, ge=1, description="when nodes are lost, go on in the job with the ranks that are left, if as many"
    )
    site: Annotated[Path | None, Option(metavar="FILE")] = Field(
        None, description="shell file with settings of the site; by default, slurm/site.sh if there"
    )

    @field_validator("sbatch", mode="before")
    @classmethod
    def _sbatch_is_known(cls, value: Any) -> Any:
        words = list(value) if isinstance(value, (list, tuple)) else [value]
        if not all(isinstance(word, str) for word in words):
            raise ValueError("write options of sbatch as text, e.g. ['--mail-type=END']")
        return passed_on(words)

    @field_validator("time")
    @classmethod
    def _time_is_slurms(cls, value: str) -> str:
        seconds(value)
        return value

    @model_validator(mode="after")
    def _ranks_fit_gpus(self) -> JobSection:
        if self.gpus_per_node is not None and (self.ranks_per_node or 1) > self.gpus_per_node:
            raise ValueError(
                f"job.ranks_per_node={self.ranks_per_node}: more ranks than GPUs ({self.gpus_per_node}) on a node; "
                "hpcgan runs one rank a GPU"
            )
        return self

    @model_validator(mode="after")
    def _min_ranks_are_some_of_them(self) -> JobSection:
        asked_for = self.nodes is not None or self.ranks_per_node is not None
        if asked_for and self.min_ranks is not None and self.min_ranks > self.ranks:
            raise ValueError(f"job.min_ranks={self.min_ranks}: the job has {self.ranks} ranks")
        return self

    @property
    def ranks(self) -> int:
        """Of the whole job."""
        return (self.nodes or 1) * (self.ranks_per_node or 1)

    def directives(self) -> list[str]:
        """The options of sbatch that its keys stand for, `--nodes=2`, without those that are handed through."""
        counts = {"nodes": self.nodes or 1, "ranks_per_node": self.ranks_per_node or 1}
        values = {o.sbatch: counts.get(key, getattr(self, key)) for key, o in _options().items() if o.sbatch}
        return [f"--{name}={value}" for name, value in values.items() if value is not None]


def _options() -> dict[str, Option]:
    return {key: option_of(key, field) for key, field in JobSection.model_fields.items()}
