"""What is promised of a search under faults: the same trials with the same results, each once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpcgan.chaos.verdict import Problems, Promises, different_bits, lost_epochs
from hpcgan.errors import InputError
from hpcgan.runs.directory import RunDirectory
from hpcgan.sweep.store import StudyDirectory

#: Of the result of a trial, what the clock and the number of starts say.
TIMING = ("started", "ended", "attempts")


def unended(study: Path, reference: Path) -> list[str]:
    """Which trials are missing, too many, or without a result."""
    ours, theirs = StudyDirectory(study), StudyDirectory(reference)
    problems = [f"trial {n} is missing" for n in theirs.numbers() if n not in ours.numbers()]
    for number in ours.numbers():
        if number not in theirs.numbers():
            problems.append(f"trial {number} is one too many")
        elif not ours.result_file(number).exists():
            problems.append(f"trial {number} has no result")
    return problems


def other_results(study: Path, reference: Path) -> list[str]:
    """What of a trial's hyper-parameters and result is not as undisturbed."""
    ours, theirs = StudyDirectory(study), StudyDirectory(reference)
    problems = []
    for number in ours.numbers():
        try:
            one, other = _plain(ours, number), _plain(theirs, number)
        except InputError as error:
            problems.append(str(error))
            continue
        keys = [key for key in one if one[key] != other.get(key)]
        if keys:
            problems.append(f"trial {number} has another {', '.join(keys)}")
    return problems


def _plain(study: StudyDirectory, number: int) -> dict[str, Any]:
    result = study.result(number)
    return {} if result is None else {key: value for key, value in asdict(result).items() if key not in TIMING}


def _trials(study: Path) -> list[RunDirectory]:
    directory = StudyDirectory(study)
    return [directory.trial(number) for number in directory.numbers()]


def _of_trials(problems_of: Problems) -> Problems:
    """The same of all trials of a search."""

    def problems(study: Path, reference: Path) -> list[str]:
        pairs = [(run.path, StudyDirectory(reference).trial(int(run.path.name)).path) for run in _trials(study)]
        return [f"trial {run.name}: {text}" for run, other in pairs for text in problems_of(run, other)]

    return problems


OF_SEARCHES = Promises(
    "search",
    "searches",
    {
        "searched to the end": (unended, ""),
        "same results": (other_results, "state, score and epoch of every trial"),
        "same bits": (_of_trials(different_bits), "weights, optimizers, counters of every trial"),
        "nothing lost": (_of_trials(lost_epochs), "every epoch of every trial once, same numbers"),
    },
    _trials,
)
