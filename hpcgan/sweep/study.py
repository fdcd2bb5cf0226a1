"""A study as the command line asks for it: its definition, and the directory it begins or goes on in."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpcgan import config as configuration
from hpcgan import yamlio
from hpcgan.config import Config
from hpcgan.errors import HpcganError, InputError, Interrupted
from hpcgan.problems import run_data
from hpcgan.runs.directory import RunDirectory, differences
from hpcgan.runs.lease import FencedError, Lease
from hpcgan.sweep import space as spaces
from hpcgan.sweep.space import OWN_SAMPLERS, SECTION, Space
from hpcgan.sweep.store import Description, StudyDirectory
from hpcgan.system.files import write_atomic


def load(path: Path, overrides: Sequence[str] = ()) -> tuple[Config, Space]:
    """The configuration that trials change, and the search space, of a file that holds both.

    Parameters
    ----------
    path : Path
    overrides : sequence of str
        `key=value`; with `search.KEY={choice: [8, 16]}` a dimension becomes another one, with `search.KEY=null` none.

    Raises
    ------
    InputError
        One line with file and key.
    """
    of_space = [item for item in overrides if item.startswith(f"{SECTION}.")]
    raw = configuration.read(path, [item for item in overrides if item not in of_space])
    if SECTION not in raw:
        raise InputError(f"{path}: has no section '{SECTION}', which says what is searched; see configs/rpv_sweep.yaml")
    section = raw.pop(SECTION)
    base = configuration.load(raw, where=str(path))
    if base.scoring.every_epochs == 0:
        raise InputError(f"{path}: scoring.every_epochs: 0, but a study chooses by the score")
    return base, spaces.parse(spaces.override(section, of_space), base, str(path))


def ranks_of(base: Config) -> int:
    """Ranks of a trial: `sweep.ranks`, or those of its job.

    Raises
    ------
    InputError
        The two differ.
    """
    sweep, job = base.sweep, base.job
    if job.ranks_per_node is None:
        return sweep.ranks or 1
    if sweep.ranks not in (None, job.ranks):
        raise InputError(f"--ranks {sweep.ranks}: is not --nodes times --ranks-per-node; leave one out")
    return job.ranks


def with_trials(base: Config, space: Space) -> Config:
    """The same with the numbers of trials and of ranks in `sweep:` that follow from the rest.

    Raises
    ------
    InputError
        No number of trials, or two numbers of ranks.
    """
    sweep, trials = base.sweep, base.sweep.trials
    if sweep.sampler == "grid":
        size = len(space.grid())
        trials = size if trials is None else min(trials, size)
    if trials is None:
        raise InputError("--trials is missing: give the number of trials, e.g. --trials 32")
    return base.model_copy(update={"sweep": sweep.model_copy(update={"trials": trials, "ranks": ranks_of(base)})})


def describe(base: Config, space: Space, threads: int) -> Description:
    """What a study is: the configuration with its section `sweep:`, and the threads of a rank."""
    sweep = base.sweep
    return Description(
        name=base.name,
        seed=sweep.seed,
        space=space.dump(),
        sampler=sweep.sampler,
        pruner=sweep.pruner,
        identity=_hash([_identity(base.dump()), run_data.content(base)]),
        ranks=ranks_of(base),
        threads=threads,
    )


def default_directory(description: Description) -> Path:
    """`runs/sweep-NAME-HASH`."""
    facts = {k: v for k, v in asdict(description).items() if k != "threads"}
    return Path("runs") / f"sweep-{description.name}-{_hash(facts)}"


def check_draws(space: Space, description: Description, trials: int) -> None:
    """Refuse values that do not go together before anything is written, where they are known already.

    Raises
    ------
    InputError
        The configuration does not take a trial's values.
    """
    if description.sampler in OWN_SAMPLERS:
        for index in range(trials):
            params = space.planned(description.sampler, description.seed, index)
            space.config(params, description.trial_seed(index))


@contextlib.contextmanager
def opened(
    study: StudyDirectory,
    description: Description,
    base: Config,
    on_lost: Callable[[str], None],
) -> Iterator[Lease]:
    """Begin or go on with a study, as its only coordinator.

    Raises
    ------
    InputError
        Another coordinator has it, or the directory holds another study; the message says what differs.
    """
    check(study, description, base)
    try:
        study.path.mkdir(parents=True, exist_ok=True)
        lease = Lease(RunDirectory(study.path), on_lost)
    except FencedError as error:
        raise InputError(f"another sweep is at work on this study: {error}") from None
    except OSError as error:
        raise InputError(f"{study.path}: cannot write the study: {error.strerror}") from None
    outcome = "failed"
    try:
        check(study, description, base)
        study.stop_file.unlink(missing_ok=True)  # an earlier coordinator's; from here on it is meant for this one
        run = RunDirectory(study.path)
        if study.exists:
            raw = run.read_config()
            if raw["data"]["path"] != str(base.data.path):  # trials look for their data where they are now
                raw["data"]["path"] = str(base.data.path)
                write_atomic(study.config_file, yamlio.dump(raw))
        else:
            study.trials.mkdir(exist_ok=True)  # first: without it and study.json, config.yaml is that of a run
            write_atomic(study.config_file, base.to_yaml())
            write_atomic(study.space_file, yamlio.dump(description.space))
            study.write_description(description)  # last: with it there is a study
        with contextlib.suppress(InputError):  # without data there is nothing to remember, and trials say so
            run_data.write(run, run_data.identify(base))
        yield lease
        outcome = "done"
    except Interrupted:
        outcome = "interrupted"
        raise
    finally:
        with contextlib.suppress(HpcganError, OSError):
            lease.release(outcome)


def check(study: StudyDirectory, description: Description, base: Config) -> None:
    """Refuse a directory of another study.

    Raises
    ------
    InputError
        Naming what differs.
    """
    if not study.exists:
        if study.path.exists() and RunDirectory(study.path).exists and not study.trials.is_dir():
            raise InputError(f"{study.path}: holds a run, not a study; give another directory with --out")
        return
    present = study.description()
    if present == description:
        return
    earlier = {**asdict(present), "identity": _identity(RunDirectory(study.path).read_config())}
    differing = differences(earlier, {**asdict(description), "identity": _identity(base.dump())})
    if not differing:
        run_data.check(RunDirectory(study.path), base, run_data.identify(base), "study", "--out")
    listed = "; ".join(f"{_label(key)}: {old!r} there, {new!r} now" for key, old, new in differing[:3])
    more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
    raise InputError(f"{study.path}: holds another study ({listed}{more}); give another directory with --out")


def _label(key: str) -> str:
    return f"{SECTION}.{key.removeprefix('space.')}" if key.startswith("space.") else key.removeprefix("identity.")


def _identity(plain: dict[str, Any]) -> dict[str, Any]:
    """What makes two trials of the same parameters the same: how long they are, too, but not what paths stand for."""
    settings = {key: value for key, value in plain.items() if key not in ("comm", "checkpoint", "profile", "seed")}
    if isinstance(settings.get("data"), dict):
        settings["data"] = {
            k: v for k, v in settings["data"].items() if k not in ("cache_mb", "path", "stage", "stage_keep")
        }
    if isinstance(settings.get("training"), dict) and settings["training"].get("start_from") is not None:
        settings["training"] = {**settings["training"], "start_from": "the weights of a run"}
    return settings


def _hash(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]
