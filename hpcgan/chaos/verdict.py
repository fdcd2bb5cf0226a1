"""The verdict on a campaign: whether what is promised was kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcgan.chaos.campaign import Findings
from hpcgan.chaos.subject import Subject
from hpcgan.errors import HpcganError
from hpcgan.runs import checkpoint, records
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.goodput import TimeSpent, time_spent
from hpcgan.runs.records import End, Epoch

#: Of the record of an epoch, what the clock and the number of the attempt say.
TIMING = ("time", "attempt", "samples_per_second", "scoring_seconds")
#: Problems of a kind that a table shows.
SHOWN = 3


@dataclass(frozen=True)
class Check:
    """One thing that is promised.

    Attributes
    ----------
    name : str
    problems : tuple of str
        What is not so; none if all is well.
    text : str
        What is so.
    """

    name: str
    problems: tuple[str, ...]
    text: str

    @property
    def holds(self) -> bool:
        """Whether it was kept."""
        return not self.problems


@dataclass(frozen=True)
class Verdict:
    """All checks, and what the time went to.

    Attributes
    ----------
    checks : tuple of Check
    disturbed, undisturbed : float or None
        Goodput of all runs of the campaign together, and of the reference.
    faults : dict of str to dict
        By kind how often it was `injected`, and how many of these attempts `ended` of it.
    """

    checks: tuple[Check, ...]
    disturbed: float | None
    undisturbed: float | None
    faults: dict[str, dict[str, int]]

    @property
    def holds(self) -> bool:
        """Whether everything was kept."""
        return all(check.holds for check in self.checks)

    def plain(self) -> dict[str, Any]:
        """For a file."""
        checks = {check.name: {"holds": check.holds, **asdict(check)} for check in self.checks}
        return {
            "holds": self.holds,
            "checks": checks,
            "goodput": {"disturbed": self.disturbed, "undisturbed": self.undisturbed},
            "faults": self.faults,
        }

    def rows(self) -> list[list[str]]:
        """For a table: what is promised, whether it was kept, how."""
        rows = []
        for check in self.checks:
            more = len(check.problems) - SHOWN
            problems = "; ".join(check.problems[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
            rows.append([check.name, "yes" if check.holds else "NO", check.text if check.holds else problems])
        shares = [f"{share:.0%}" if share is not None else "unknown" for share in (self.disturbed, self.undisturbed)]
        return [*rows, ["goodput", "", f"{shares[0]} with failures, {shares[1]} without"]]


Problems = Callable[[Path, Path], list[str]]
"""Of what is in a directory, and of the reference: what is not as promised."""


@dataclass(frozen=True)
class Promises:
    """What is promised of a kind of subject beyond what is promised of all; each takes a subject and the reference.

    Attributes
    ----------
    noun, plural : str
    kept : dict of str to (callable, str)
        By the promise's name: what is not so, and what is so.
    trainings : callable
        All trainings in a directory, for the goodput.
    """

    noun: str
    plural: str
    kept: Mapping[str, tuple[Problems, str]]
    trainings: Callable[[Path], list[RunDirectory]]


def judge(subjects: Sequence[Subject], reference: Path, promises: Promises, findings: Findings, log: Path) -> Verdict:
    """Look at what a campaign has made.

    Parameters
    ----------
    subjects : sequence of Subject
        What was hit.
    reference : Path
        What was not.
    promises : Promises
    findings : Findings
    log : Path
        Of the campaign, `campaign.jsonl`.
    """
    entries = records.read_lines(log)
    names = {subject.name for subject in subjects}
    starts = sum(entry["event"] == "start" and entry["run"] in names for entry in entries)
    injected = sum(entry["event"] == "fault" for entry in entries)
    n = len(subjects)

    def each(problems_of: Problems) -> tuple[str, ...]:
        return tuple(f"{s.name}: {text}" for s in subjects for text in problems_of(s.path, reference))

    (end, (unended, _)), *others = promises.kept.items()
    so = f"{n} {promises.plural if n > 1 else promises.noun}, {injected} faults, {starts} starts"
    checks = (
        Check(end, (*([] if findings.gave_up is None else [findings.gave_up]), *each(unended)), so),
        *(Check(name, each(problems), text) for name, (problems, text) in others),
        Check(
            "nothing left behind",
            (*findings.left, *each(stray_files)),
            "processes, shared memory, temporary files, leases",
        ),
        Check("ended by faults only", tuple(findings.unprovoked), "no attempt ended of itself before its time"),
    )
    disturbed = [run for subject in subjects for run in promises.trainings(subject.path)]
    return Verdict(checks, goodput(disturbed), goodput(promises.trainings(reference)), by_kind(entries))


def unfinished(run: Path, reference: Path) -> list[str]:
    """What the last record of a training's end says, if that is not that it is done."""
    ends = records.read(RunDirectory(run).metrics_file, End)
    if not ends or ends[-1].cause != "finished":
        return [f"its last record of an end is {ends[-1].outcome if ends else 'missing'}"]
    return []


def different_bits(run: Path, reference: Path) -> list[str]:
    """In what the newest checkpoints of two runs differ."""
    problems: list[str] = []
    try:
        ours, theirs = (checkpoint.load_latest(RunDirectory(r).checkpoints, problems.append) for r in (run, reference))
    except HpcganError as error:
        return [str(error)]
    if ours is None or theirs is None:
        return ["there is no checkpoint"]
    if ours.step != theirs.step:
        return [*problems, f"the newest checkpoint is of step {ours.step}, not {theirs.step}"]
    problems += [f"{key} in the counters" for key in sorted({*ours.meta, *theirs.meta})
                 if ours.meta.get(key) != theirs.meta.get(key)]  # fmt: skip
    for name in sorted({*ours.arrays, *theirs.arrays}):
        one, other = ours.arrays.get(name), theirs.arrays.get(name)
        if one is None or other is None or one.dtype != other.dtype or not np.array_equal(one, other, equal_nan=True):
            problems.append(f"array {name}")
    return problems


def lost_epochs(run: Path, reference: Path) -> list[str]:
    """Which epochs are not recorded once, or otherwise than in the reference."""
    ours, theirs = (
        [_untimed(epoch) for epoch in records.read(RunDirectory(r).metrics_file, Epoch)] for r in (run, reference)
    )
    counts = Counter(record["epoch"] for record in ours)
    expected = {record["epoch"]: record for record in theirs}
    problems = [f"epoch {n} is recorded {counts[n]} times" for n in sorted({*expected, *counts}) if counts[n] != 1]
    for record in ours:
        before = expected.get(record["epoch"])
        if before is not None and record != before:
            keys = [key for key in record if record[key] != before.get(key)]
            problems.append(f"epoch {record['epoch']} has another {', '.join(keys)}")
    return problems


def _untimed(epoch: Epoch) -> dict[str, Any]:
    return {key: value for key, value in records.plain(epoch).items() if key not in TIMING}


def stray_files(path: Path, reference: Path) -> list[str]:
    """Files and folders of a kind that what was not disturbed does not leave."""
    kinds = {kind_of(file) for file in _names(reference)}
    return [f"{file} is left" for file in _names(path) if kind_of(file) not in kinds]


def _names(folder: Path) -> Iterable[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def kind_of(path: Path) -> str:
    """A name without its numbers; a checkpoint that was saved again is one like others."""
    parts = []
    for part in path.parts:
        words = part.split("-") if part.startswith("step-") else [part]
        parts.append("-".join(words[:2]))
    numbered = "/".join(parts)
    text = "".join("#" if character.isdigit() else character for character in numbered)
    while "##" in text:
        text = text.replace("##", "#")
    return text


def goodput(runs: Sequence[RunDirectory]) -> float | None:
    """Share of the time in which cores were held that went into steps that count, of some runs together."""
    spent = [time for run in runs if (time := time_spent(run)) is not None]
    held = sum(time.held for time in spent)
    return sum(_steps(time) for time in spent) / held if held > 0 else None


def _steps(spent: TimeSpent) -> float:
    return spent.seconds["steps"]


def by_kind(entries: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How often each kind of fault was injected, and how many times the attempt ended before its time."""
    ended = {number for e in entries if e["event"] == "end" and e["code"] != 0 for number in e["faults"][-1:]}
    kinds: dict[str, dict[str, int]] = {}
    for entry in entries:
        if entry["event"] == "fault":
            row = kinds.setdefault(entry["fault"], {"injected": 0, "ended": 0})
            row["injected"] += 1
            row["ended"] += entry["number"] in ended
    return dict(sorted(kinds.items()))


#: Of a training; the first one is about its end.
OF_TRAININGS = Promises(
    "training",
    "trainings",
    {
        "trained to the end": (unfinished, ""),
        "same bits": (different_bits, "weights, optimizers, counters"),
        "nothing lost": (lost_epochs, "every epoch once, same numbers"),
    },
    lambda path: [RunDirectory(path)],
)
