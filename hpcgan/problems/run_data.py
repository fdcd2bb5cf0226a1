"""Which data a run was trained with, and where they lie now. The data are known by their content, not by their path.

A run keeps in `data.json` what its files are (:mod:`hpcgan.data.identity`) and where they lay. It goes on with the same
files wherever they are, and with no others; whoever needs the events of a run finds them from any working directory. A
run that begins with the weights of another knows that one by what it is, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hpcgan.config import Config
from hpcgan.errors import EnvironmentFailure, InputError
from hpcgan.problems.base import Problem, problem_class
from hpcgan.runs.directory import RunDirectory, owner_of
from hpcgan.system.files import write_atomic

if TYPE_CHECKING:  # with it comes h5py, which `hpcgan --help` does without
    from hpcgan.data.identity import Identity

SPLITS = ("train", "val", "test")
TRAINED_ON = ("train", "val")
"""Splits that a training reads. Of the third one it is known which it is, so that it is scored on no other."""

PLACES = 16
"""Folders that are remembered, at most: every job may have had a copy of its own."""


@dataclass(frozen=True)
class RunData:
    """The data of a run.

    Attributes
    ----------
    files : dict of str to dict of str to Identity
        By split, the files that it consists of, "" if there is one.
    places : tuple of str
        Where they lay, the latest first: paths of this machine, and one relative to the run.
    origin : str or None
        What the run is whose weights it began with.
    """

    files: dict[str, dict[str, Identity]]
    places: tuple[str, ...] = ()
    origin: str | None = None

    def fingerprints(self, splits: Iterable[str] = TRAINED_ON) -> dict[str, dict[str, str]]:
        """What the splits are, in few characters."""
        return {
            split: {name: file.fingerprint for name, file in sorted(self.files[split].items())}
            for split in splits
            if split in self.files
        }

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        files = {split: {name: f.plain() for name, f in files.items()} for split, files in self.files.items()}
        return {"files": files, "places": list(self.places), "origin": self.origin}

    @classmethod
    def of_plain(cls, raw: Any) -> RunData:
        """From what `plain` made.

        Raises
        ------
        ValueError
            It is something else.
        """
        from hpcgan.data.identity import Identity

        try:
            files = {
                split: {name: Identity.of_plain(plain) for name, plain in named.items()}
                for split, named in raw["files"].items()
            }
            return cls(files, tuple(str(place) for place in raw["places"]), raw.get("origin"))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"is no record of data ({error})") from None


def identify(config: Config) -> RunData:
    """Which data a configuration means, as they are now; without the test split, where that is missing or broken.

    Raises
    ------
    InputError
        Another file is missing or broken.
    """
    problem, files = _problem(config), {}
    for split in SPLITS:
        try:
            files[split] = _identities(problem, config.data.path, split)
        except InputError:
            if split in TRAINED_ON:
                raise
    return RunData(files, (str(config.data.path.absolute()),), _origin(config))


def content(config: Config) -> dict[str, Any]:
    """What the paths of a configuration stand for: the data, and the run whose weights it takes.

    Of data that cannot be read it knows nothing, which whoever needs them says.
    """
    whole: dict[str, Any] = {}
    with contextlib.suppress(InputError):
        whole["data"] = identify(config).fingerprints()
    if config.training.start_from is not None:
        whole["origin"] = _origin(config) or str(config.training.start_from)
    return whole


def run_hash(config: Config) -> str:
    """Eight hex digits of what makes two runs the same: their configuration and what its paths stand for."""
    canonical = json.dumps([config.identity(), content(config)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def read(run: RunDirectory) -> RunData | None:
    """What a run knows of its data; None before it was trained.

    Raises
    ------
    InputError
        Its file is broken.
    """
    try:
        return RunData.of_plain(json.loads(run.data_file.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{run.data_file}: cannot be read: {error}") from None


def write(run: RunDirectory, current: RunData) -> None:
    """Have a run remember its data, and where they are now besides where they were.

    Raises
    ------
    EnvironmentFailure
        The disk is full, or cannot be written.
    """
    recorded = read(run)
    files, places = dict(current.files), list(current.places)
    with_run = [os.path.relpath(place, run.path.absolute()) for place in places]  # for who moves both
    if recorded is not None:
        files = {**files, **recorded.files}  # a test split that is gone, or another, stays the one it was
        places = [*places, *with_run, *recorded.places]
    origin = current.origin if recorded is None else recorded.origin
    data = RunData(files, tuple(dict.fromkeys([*places, *with_run]))[:PLACES], origin)
    if data == recorded:
        return
    try:
        write_atomic(run.data_file, json.dumps(data.plain(), indent=1) + "\n")
    except OSError as error:
        raise EnvironmentFailure(f"{run.data_file}: cannot write: {error.strerror}") from None


def check(run: RunDirectory, config: Config, current: RunData, noun: str = "run", option: str = "--run") -> str | None:
    """Refuse to go on with other data than a run was trained with, or with the weights of another run.

    Parameters
    ----------
    run : RunDirectory
    config : Config
    current : RunData
        The data of this configuration, as they are now.
    noun, option : str
        What messages call the run, and the option that gives another directory.

    Returns
    -------
    str or None
        What to warn of: another test split.

    Raises
    ------
    InputError
        Naming the file and what differs.
    """
    recorded = read(run)
    if recorded is None:
        return None
    remedy = f"give the data that it was trained with (data.path=...), or another directory with {option}"
    other = _differing(recorded, current, config)
    for split, path, what in other:
        if split in TRAINED_ON:
            raise InputError(f"{path}: holds other data than the {noun} {run.path} was trained with ({what}); {remedy}")
    if not _same_origin(run, recorded, config, current):
        raise InputError(
            f"{run.path}: the {noun} there did not begin with the weights of {config.training.start_from} "
            f"(training.start_from); give another directory with {option}"
        )
    if other:
        _, path, what = other[0]
        return f"{path}: holds other data than when the run began ({what}); 'hpcgan evaluate' will refuse them"
    return None


def _same_origin(run: RunDirectory, recorded: RunData, config: Config, current: RunData) -> bool:
    start_from = config.training.start_from
    if start_from is None or (current.origin is not None and current.origin == recorded.origin):
        return True  # whether there is one at all is in the identity of the configuration
    return start_from == run.load_config().training.start_from  # it is not looked at again


def check_same(own: RunData, theirs: Mapping[str, Any], config: Config, where: str) -> None:
    """Refuse files that are others than those of rank 0, whose `RunData.plain` is `theirs`.

    Raises
    ------
    InputError
        Naming the file, this machine and what differs.
    """
    for split, path, what in _differing(RunData.of_plain(theirs), own, config):
        if split in TRAINED_ON:
            raise InputError(
                f"{path} on {where}: holds other data than rank 0 reads ({what}); all ranks need the same files: copy "
                "them anew"
            )


def load(run: RunDirectory) -> Config:
    """The configuration of a run, with `data.path` where its data are found.

    They are looked for where the configuration says, then where trainings of this run have found them, and where they
    lay relative to the run. Nothing is refused here: `data.require(split)` of what is returned does, where a split is
    needed, and so does `hpcgan.problems.events.open_split`.

    Raises
    ------
    InputError
        There is no run, or its configuration is broken.
    """
    config = run.load_config()
    recorded = read(run)
    if recorded is None:
        return config
    problem = _problem(config)
    candidates: list[tuple[int, Path, dict[str, str]]] = []
    for folder in dict.fromkeys([config.data.path, *(run.path.absolute() / place for place in recorded.places)]):
        if folder != config.data.path:
            folder = Path(os.path.normpath(folder))  # that of the configuration stays as it stands there
        unusable = _unusable(problem, folder, recorded, run)
        if not unusable:
            return config.with_data(folder, {})
        missing = sum(reason.is_missing for reason in unusable.values())
        texts = {split: reason.text for split, reason in unusable.items()}
        candidates.append((len(unusable) + missing, folder, texts))
    _, folder, texts = min(candidates, key=lambda candidate: candidate[0])
    return config.with_data(folder, texts)


def with_other_data(config: Config, run: RunDirectory, folder: Path) -> tuple[Config, str | None]:
    """The configuration of a run with data that somebody has chosen for it, and what to say if these are others."""
    changed = config.with_data(folder, {})
    recorded = read(run)
    unlike = {} if recorded is None else _unusable(_problem(config), folder, recorded, run)
    if not unlike:
        return changed, None
    return changed, f"The events of {folder} are not the run's own ({', '.join(unlike)}): chosen with --data."


class _Unusable(NamedTuple):
    """Why a split cannot be taken from a folder; `is_missing` if a file of it is not there at all."""

    text: str
    is_missing: bool = False


def _unusable(problem: Problem, folder: Path, recorded: RunData, run: RunDirectory) -> dict[str, _Unusable]:
    """The splits of a run that cannot be taken from a folder."""
    reasons = {split: _why_not(problem, folder, recorded, split, run) for split in recorded.files}
    return {split: reason for split, reason in reasons.items() if reason is not None}


def _why_not(problem: Problem, folder: Path, recorded: RunData, split: str, run: RunDirectory) -> _Unusable | None:
    try:
        missing = [path for path in problem.files(folder, split).values() if not path.is_file()]
        if missing:
            places = ", ".join(place for place in recorded.places if Path(place).is_absolute())
            lay = f", which lay in {places}" if places else ""
            text = f"{missing[0]}: no such file (data of the run {run.path}{lay})"
            return _Unusable(text, is_missing=True)
        differing = _files_differing(problem, folder, split, recorded.files[split], _identities(problem, folder, split))
    except InputError as error:
        return _Unusable(str(error))
    for path, what in differing:
        return _Unusable(f"{path}: holds other data than the run {run.path} was trained with ({what})")
    return None


def _differing(old: RunData, new: RunData, config: Config) -> list[tuple[str, Path, str]]:
    """Split, path and difference of the files that are others, of the splits that both have."""
    problem, folder = _problem(config), config.data.path
    return [
        (split, path, what)
        for split in sorted(old.files.keys() & new.files.keys(), key=SPLITS.index)
        for path, what in _files_differing(problem, folder, split, old.files[split], new.files[split])
    ]


def _files_differing(
    problem: Problem, folder: Path, split: str, old: Mapping[str, Identity], new: Mapping[str, Identity]
) -> list[tuple[Path, str]]:
    from hpcgan.data.identity import difference

    paths, differing = problem.files(folder, split), []
    for name in sorted(old.keys() | new.keys()):
        before, now = old.get(name), new.get(name)
        what = "other files" if before is None or now is None else difference(before, now)
        if what:
            differing.append((paths.get(name, folder), what))
    return differing


def _identities(problem: Problem, path: Path, split: str) -> dict[str, Identity]:
    from hpcgan.data.identity import identify

    return {name: identify(file) for name, file in problem.files(path, split).items()}


def _problem(config: Config) -> Problem:
    return problem_class(config.problem)(config.model)


def _origin(config: Config) -> str | None:
    """What the run is whose weights a training begins with; None if there is none, or it is not there any more.

    It stays the same while that run is trained on, and wherever it lies.
    """
    path = config.training.start_from
    if path is None:
        return None
    try:
        run, checkpoint = owner_of(path)
        other, data = run.load_config(), read(run)
    except InputError:
        return None
    content = [other.identity(), None if data is None else [data.fingerprints(), data.origin]]
    name = None if checkpoint is None else checkpoint.name
    return hashlib.sha256(json.dumps([*content, name], sort_keys=True).encode()).hexdigest()
