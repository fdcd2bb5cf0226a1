"""Optuna's view of a study: made of the table of trials in memory, when a sampler or somebody's dashboard wants it.

Nothing is kept in it. What one of Optuna's samplers asks for in trial n is a function of the study's seed, of n, and of
the trials before n as their files say; what a sampler notes for itself is in the trial's own file (`Assignment.marks`).
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from hpcgan import rng
from hpcgan.errors import InputError
from hpcgan.suggest import did_you_mean
from hpcgan.sweep.dimension import Choice, Dimension, Int
from hpcgan.sweep.space import OWN_SAMPLERS, Space
from hpcgan.sweep.table import Row, Table
from hpcgan.system.files import write_atomic

# What Optuna's samplers import once they are used.
_NEEDED = {"gp": ("torch",)}
# Not offered: bases and wrappers, what hpcgan does itself, and CMA-ES, which keeps its state as a pickle.
_NOT_OFFERED = ("Base", "PartialFixed", "Grid", "Random", "BruteForce", "CmaEs")
_STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "broken": "FAIL"}


def load_optuna() -> Any:
    """The module.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise InputError("Optuna is not installed: pip install 'hpcgan[sweep]'") from None
    return optuna


@contextmanager
def quiet(optuna: Any) -> Iterator[None]:
    """Without Optuna's progress, and its warnings that something is experimental: whoever names it has chosen it."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def make_sampler(name: str, seed: int) -> Any:
    """A sampler of Optuna's by its name, e.g. `tpe`.

    Raises
    ------
    InputError
        There is none of that name, or it needs what is not installed.
    """
    optuna = load_optuna()
    known = {
        n.removesuffix("Sampler").lower(): n
        for n in optuna.samplers.__all__
        if n.endswith("Sampler") and not n.startswith(_NOT_OFFERED)
    }
    if name not in known:
        names = [*OWN_SAMPLERS, *sorted(known)]
        raise InputError(f"--sampler {name}: choose one of {', '.join(names)}{did_you_mean(name, names)}")
    for package in _NEEDED.get(name, ()):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"--sampler {name}: it needs a package that is not installed: pip install {package}")
    options: dict[str, Any] = {"seed": seed}
    if name == "tpe":
        options["constant_liar"] = True  # trials that are running count, or those asked for together would be alike
    if name == "qmc":  # one sequence, in which the marks keep the place, but for what it cannot choose
        options = {"seed": 0, "independent_sampler": optuna.samplers.RandomSampler(seed=seed)}
    with quiet(optuna):
        return getattr(optuna.samplers, known[name])(**options)


def check_sampler(name: str) -> None:
    """Refuse an unknown sampler, and one that needs what is not installed, before anything is written.

    Raises
    ------
    InputError
    """
    if name not in OWN_SAMPLERS:
        make_sampler(name, 0)


def ask(
    space: Space, table: Table, number: int, marks: Mapping[int, Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Parameters of a trial that a sampler of Optuna's chooses, and the sampler's own notes.

    Parameters
    ----------
    space : Space
    table : Table
        Of which the trials before count.
    number : int
        Of the trial.
    marks : mapping
        Number of each trial to the notes that the sampler made for it.
    """
    optuna, description = load_optuna(), table.description
    before = [row for row in table.rows if row.number < number]
    # A sampler is made for each trial, so that one of a resumed study draws on, and does not begin anew.
    seed = int(rng.uniform(description.seed, "sweep/sampler", 0, number, 1, 1)[0, 0] * 2**31)
    storage = optuna.storages.InMemoryStorage()
    with quiet(optuna):
        sampler = make_sampler(description.sampler, seed)
        study = optuna.create_study(storage=storage, direction="minimize", sampler=sampler)
        identifier = storage.get_study_id_from_name(study.study_name)
        for row in before:
            noted = marks.get(row.number, {})
            study.add_trial(as_trial(optuna, row, space.dimensions, system_attrs=noted.get("trial")))
            for key, value in noted.get("study", {}).items():
                storage.set_study_system_attr(identifier, key, value)
        trial = study.ask()
        params: dict[str, Any] = {}
        for d in space.dimensions:
            if space.active(d, params):
                params[d.key] = _suggest(trial, d)
    notes = {
        "trial": dict(storage.get_all_trials(identifier)[-1].system_attrs),
        "study": dict(storage.get_study_system_attrs(identifier)),
    }
    return params, {key: noted for key, noted in notes.items() if noted}


def as_trial(
    optuna: Any,
    row: Row,
    dimensions: Sequence[Dimension],
    *,
    user_attrs: Mapping[str, Any] | None = None,
    system_attrs: Mapping[str, Any] | None = None,
) -> Any:
    """A trial as Optuna keeps it, with those of its parameters that lie in the space."""
    states, params, distributions = optuna.trial.TrialState, {}, {}
    for d in dimensions:
        if d.key in row.params and _has(d, row.params[d.key]):
            params[d.key] = _to_optuna(d, row.params[d.key])
            distributions[d.key] = _distribution(optuna, d)
    curve = dict(row.curve) if row.state in _STATES else {}
    state = states[_STATES.get(row.state, "RUNNING")]
    value = row.score if row.state == "complete" else curve[max(curve)] if row.state == "pruned" and curve else None
    if state == states.COMPLETE and value is None:
        state = states.FAIL
    return optuna.trial.create_trial(
        state=state,
        value=value,
        params=params,
        distributions=distributions,
        user_attrs=dict(user_attrs or {}),
        system_attrs=dict(system_attrs or {}),
        intermediate_values=curve,
    )


def write_journal(table: Table) -> Path:
    """Write all trials as a journal of Optuna's, for optuna-dashboard and others: the study's `report/journal.log`.

    Raises
    ------
    InputError
        Optuna is not installed, or the file cannot be written.
    """
    optuna, dimensions, file = load_optuna(), table.dimensions(), table.study.report / "journal.log"
    trials = []
    for row in table.rows:
        facts = {name: getattr(row, name) for name in ("seed", "repeat_of", "score", "epoch", "epochs", "reason")}
        attrs = {name: fact for name, fact in facts.items() if fact is not None}
        trial = as_trial(optuna, row, dimensions, user_attrs={**attrs, "state": row.state})
        if row.started is not None:
            trial.datetime_start = datetime.fromtimestamp(row.started)
            trial.datetime_complete = datetime.fromtimestamp(row.started + (row.seconds or 0.0))
        trials.append(trial)
    try:
        with tempfile.TemporaryDirectory() as folder, quiet(optuna):
            journal = Path(folder) / "journal.log"
            storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
            study = optuna.create_study(storage=storage, study_name=table.description.name, direction="minimize")
            study.add_trials(trials)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, journal.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: cannot write the journal: {error.strerror}") from None
    return file


# --- values -----------------------------------------------------------------------------------------


def _has(dimension: Dimension, value: Any) -> bool:
    """Whether a value lies in a dimension; a file that somebody has edited may have others."""
    if isinstance(dimension, (Choice, Int)):
        return dimension.can_be(value)
    place = dimension.place(value)
    return place is not None and dimension.low <= place <= dimension.high


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    kinds = optuna.distributions
    if isinstance(dimension, Choice):
        return kinds.CategoricalDistribution([_to_optuna(dimension, value) for value in dimension.values])
    low, high = dimension.values
    if isinstance(dimension, Int):
        return kinds.IntDistribution(low, high, log=dimension.log, step=dimension.step)
    return kinds.FloatDistribution(low, high, log=dimension.is_log)


def _suggest(trial: Any, dimension: Dimension) -> Any:
    """A value of a dimension that Optuna chooses."""
    if isinstance(dimension, Choice):
        values = [_to_optuna(dimension, value) for value in dimension.values]
        return dimension.values[values.index(trial.suggest_categorical(dimension.key, values))]
    low, high = dimension.values
    if isinstance(dimension, Int):
        return int(trial.suggest_int(dimension.key, low, high, log=dimension.log, step=dimension.step))
    return float(trial.suggest_float(dimension.key, low, high, log=dimension.is_log))


def _to_optuna(dimension: Dimension, value: Any) -> Any:
    """A value as Optuna takes it: choices that are lists or sections become text."""
    simple = value is None or isinstance(value, (bool, int, float, str))
    return json.dumps(value, sort_keys=True) if isinstance(dimension, Choice) and not simple else value
