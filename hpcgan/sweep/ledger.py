"""Optuna's ledger of a study: a journal file that one coordinator writes.

What happened is in the files of the trials (`hpcgan.sweep.store`); the journal says the same to Optuna's samplers,
pruners and dashboard. Where the two disagree, or the journal is damaged, it is put aside and made again from them.
"""

from __future__ import annotations

import importlib.util
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

from hpcgan import rng
from hpcgan.errors import InputError
from hpcgan.runs import records
from hpcgan.suggest import did_you_mean
from hpcgan.sweep.space import Dimension, Space
from hpcgan.sweep.store import Assignment, Description, Result, StudyDirectory

#: Samplers whose trials are known before they run; others are Optuna's.
OWN_SAMPLERS = ("random", "grid")
PRUNERS = ("none", "median", "halving")
# What Optuna's samplers import once they are used.
_NEEDED = {"gp": ("torch",), "cmaes": ("cmaes",)}


class Ledger:
    """The journal of a study.

    Parameters
    ----------
    study : StudyDirectory
    description : Description
    space : Space
    epochs : int
        Of a training, for the pruner.
    report : callable
        Takes one line for the user.

    Raises
    ------
    InputError
        Optuna is not installed, or a file of a trial cannot be read.
    """

    def __init__(
        self,
        study: StudyDirectory,
        description: Description,
        space: Space,
        epochs: int,
        report: Callable[[str], None],
    ) -> None:
        self._files, self._description, self._space, self._report = study, description, space, report
        self._optuna = load_optuna()
        self._pruner = make_pruner(self._optuna, description.pruner, epochs)
        make_sampler(self._optuna, description.sampler, 0)  # refuses unknown names before anything is written
        self._open()

    # --- asking and telling ----------------------------------------------------------------------

    def count(self) -> int:
        """Trials that the journal has."""
        return len(self._trials())

    def add(self, params: Mapping[str, Any], seed: int, index: int | None, repeat_of: int | None = None) -> Assignment:
        """Enter a trial whose parameters are known, and say what it is."""
        made = Assignment(self.count(), dict(params), seed, index, repeat_of)
        self._study.add_trial(self._frozen(made, None))
        self._assign(made)
        return made

    def ask(self, seed: int, index: int) -> Assignment:
        """Enter a trial whose parameters Optuna's sampler chooses, and say what it is."""
        number = self.count()
        self._study.sampler = make_sampler(self._optuna, self._description.sampler, self._sampler_seed(number))
        return self._chosen(self._study.ask(), seed, index)

    def tell(self, result: Result) -> None:
        """Enter what came of a trial."""
        states = self._optuna.trial.TrialState
        trial = self._trials()[result.number]
        if trial.state.is_finished():
            return
        self._report_epochs(result.number)
        for key, value in _attributes(result).items():
            self._storage.set_trial_user_attr(trial._trial_id, key, value)
        if result.state == "complete":
            self._study.tell(result.number, result.score)
        else:
            self._study.tell(result.number, state=states.PRUNED if result.state == "pruned" else states.FAIL)

    def lost(self, number: int) -> int:
        """How often a trial was lost so far."""
        return int(self._trials()[number].user_attrs.get("lost", 0))

    def lose(self, number: int) -> int:
        """Enter that a trial was lost; how often that makes it."""
        count = self.lost(number) + 1
        trial = self._trials()[number]
        if not trial.state.is_finished():
            self._storage.set_trial_user_attr(trial._trial_id, "lost", count)
        return count

    def observe(self, number: int, scores: Mapping[int, float]) -> int | None:
        """Enter scores of epochs; the epoch after which the pruner wants the trial to end, if it does.

        Parameters
        ----------
        number : int
        scores : mapping
            Epoch, from 1, to validation score.
        """
        for epoch in sorted(scores):
            trial = self._trials()[number]
            if trial.state.is_finished():
                return None
            if epoch in trial.intermediate_values or not math.isfinite(scores[epoch]):
                continue
            self._storage.set_trial_intermediate_value(trial._trial_id, epoch, float(scores[epoch]))
            if self._pruner is not None and self._pruner.prune(self._study, self._trials()[number]):
                return epoch
        return None

    def _report_epochs(self, number: int) -> None:
        trial = self._trials()[number]
        for epoch, score in scores_of(self._files, number).items():
            if epoch not in trial.intermediate_values and math.isfinite(score):
                self._storage.set_trial_intermediate_value(trial._trial_id, epoch, score)

    def _trials(self) -> list[Any]:
        trials: list[Any] = self._study.get_trials(deepcopy=False)
        return trials

    def _sampler_seed(self, number: int) -> int:
        """A sampler is made for each trial, so that one of a resumed study draws on, and does not begin anew."""
        return int(rng.uniform(self._description.seed, "sweep/sampler", 0, number, 1, 1)[0, 0] * 2**31)

    def _chosen(self, trial: Any, seed: int, index: int) -> Assignment:
        """Let the sampler choose what a trial that the journal has still lacks."""
        params: dict[str, Any] = {}
        for d in self._space.dimensions:
            if self._space.active(d, params):
                params[d.key] = from_ledger(d, _suggest(trial, d))
        made = Assignment(trial.number, params, seed, index)
        trial.set_user_attr("seed", seed)
        trial.set_user_attr("assignment", asdict(made))
        self._assign(made)
        return made

    def _assign(self, assignment: Assignment) -> None:
        """Make the run directory of a trial, and say what it is: last, so that who finds that finds all."""
        run = self._files.trial(assignment.number)
        try:
            config = self._space.config(assignment.params, assignment.seed)
        except InputError as error:  # values that do not go together, which a sampler cannot know
            run.path.mkdir(parents=True, exist_ok=True)
            self._files.write_assignment(assignment)
            self._files.write_result(assignment.result(0, "failed", str(error)))
            return
        run.create(config)
        self._files.write_assignment(assignment)

    # --- opening ---------------------------------------------------------------------------------

    def _open(self) -> None:
        reason = self._mend()
        if reason is None:
            try:
                self._connect()
                reason = self._disagreement()
            except InputError:
                raise
            except Exception as error:  # whatever Optuna makes of a journal that is not what it wrote
                reason = f"Optuna cannot read it ({type(error).__name__})"
        if reason is not None:
            self._rebuild(reason)
        for number, trial in enumerate(self._trials()):
            if not trial.state.is_finished() and (result := self._files.result(number)) is not None:
                self.tell(result)
            elif not trial.state.is_finished() and self._files.assignment(number) is None:
                self._finish_asking(number)

    def _connect(self) -> None:
        storages, path = self._optuna.storages, self._files.journal_file
        with suppress(OSError):  # of a coordinator that was killed: the study's lease is ours
            path.with_name(f"{path.name}.lock").unlink()
        self._storage = storages.JournalStorage(storages.journal.JournalFileBackend(str(path)))
        self._study = self._optuna.create_study(
            storage=self._storage,
            study_name=self._description.name,
            direction="minimize",
            sampler=self._optuna.samplers.RandomSampler(seed=0),  # of trials whose parameters are known
            load_if_exists=True,
        )

    def _mend(self) -> str | None:
        """Cut off a line that a killed coordinator did not finish; what is wrong with the journal otherwise."""
        path = self._files.journal_file
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return "there is none" if self._files.numbers() else None
        lines = data.split(b"\n")
        for i, line in enumerate(lines[:-1]):
            try:
                whole = isinstance(json.loads(line), dict)
            except ValueError:
                whole = False
            if not whole:
                return f"line {i + 1} is damaged"
        if lines[-1]:
            with open(path, "r+b") as file:
                file.truncate(len(data) - len(lines[-1]))
            self._report(f"{path}: line {len(lines)} was not finished: taken out")
        return None

    def _disagreement(self) -> str | None:
        """In what the journal and the files of the trials differ."""
        trials = self._trials()
        beyond = [number for number in self._files.numbers() if number >= len(trials)]
        for number in beyond:
            if self._files.assignment(number) is not None:
                return f"it lacks trial {number}"
        for number, trial in enumerate(trials):
            assignment, result = self._files.assignment(number), self._files.result(number)
            if assignment is None:
                if trial.state.is_finished():
                    return f"it has trial {number}, whose directory is gone"
                continue
            if trial.params != self._to_ledger(assignment.params):
                return f"trial {number} has other parameters in it"
            if not trial.state.is_finished():
                continue
            if result is None:
                return f"trial {number} has ended in it, but has no result"
            if trial.state.name != _STATES[result.state] or (
                result.state == "complete" and trial.value != result.score
            ):
                return f"trial {number} ended otherwise in it"
        return None

    def _rebuild(self, reason: str) -> None:
        """Make the journal again from the files of the trials."""
        path = self._files.journal_file
        if path.exists():
            aside = next(p for i in range(1, 10_000) if not (p := path.with_name(f"{path.name}.damaged-{i}")).exists())
            path.rename(aside)
            self._report(f"{path}: {reason}: made again from the trials, the old one is {aside.name}")
        else:
            self._report(f"{path}: {reason}: made again from the trials")
        self._connect()
        index = 0
        for number in range(max(self._files.numbers(), default=-1) + 1):
            assignment = self._files.assignment(number)
            if assignment is not None:
                self._study.add_trial(self._frozen(assignment, self._files.result(number)))
            elif self._description.sampler not in OWN_SAMPLERS:
                self.ask(trial_seed(self._description.seed, index), index)
            else:
                params = known_params(self._space, self._description, index)
                self.add(params, trial_seed(self._description.seed, index), index)
            index += assignment is None or assignment.repeat_of is None

    def _finish_asking(self, number: int) -> None:
        """A trial that the journal has and of which nothing else was written yet, or whose directory is gone."""
        index = sum(1 for n in range(number) if (a := self._files.assignment(n)) is not None and a.repeat_of is None)
        seed = trial_seed(self._description.seed, index)
        trial = self._trials()[number]
        if "assignment" in trial.user_attrs:  # entered as a whole
            self._assign(Assignment(**trial.user_attrs["assignment"]))
            return
        self._study.sampler = make_sampler(self._optuna, self._description.sampler, self._sampler_seed(number))
        self._chosen(self._optuna.trial.Trial(self._study, trial._trial_id), seed, index)

    def _to_ledger(self, params: Mapping[str, Any]) -> dict[str, Any]:
        by_key = {d.key: d for d in self._space.dimensions}
        return {key: to_ledger(by_key[key], value) for key, value in params.items() if key in by_key}

    def _frozen(self, assignment: Assignment, result: Result | None) -> Any:
        """A trial as Optuna keeps it."""
        by_key = {d.key: d for d in self._space.dimensions}
        states = self._optuna.trial.TrialState
        attributes = {"assignment": {**asdict(assignment), "test": False}, "seed": assignment.seed}
        if assignment.repeat_of is not None:
            attributes["repeat_of"] = assignment.repeat_of
        values = {e: s for e, s in scores_of(self._files, assignment.number).items() if math.isfinite(s)}
        state, value = states.RUNNING, None
        if result is not None:
            state = states[_STATES[result.state]]
            attributes.update(_attributes(result))
            value = result.score if state == states.COMPLETE else None
            if state == states.PRUNED and values:
                value = values[max(values)]
        made = self._optuna.trial.create_trial(
            state=state,
            value=value,
            params=self._to_ledger(assignment.params),
            distributions={key: distribution(self._optuna, by_key[key]) for key in assignment.params},
            user_attrs=attributes,
            intermediate_values=values,
        )
        if result is not None:
            made.datetime_start = datetime.fromtimestamp(result.started)
            made.datetime_complete = datetime.fromtimestamp(result.ended)
        return made


_STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}


def trial_seed(seed: int, index: int) -> int:
    """Seed of the training of a trial of the search."""
    return int(rng.uniform(seed, "sweep/seed", 0, index, 1, 1)[0, 0] * 2**31)


def repeat_seed(seed: int, number: int, repetition: int) -> int:
    """Seed of the training of a repetition, from 0, of a trial."""
    return int(rng.uniform(seed, "sweep/repeat", number, repetition, 1, 1)[0, 0] * 2**31)


def known_params(space: Space, description: Description, index: int) -> dict[str, Any]:
    """Parameters of a trial of a random search or of a grid.

    Raises
    ------
    InputError
        The grid has fewer trials.
    """
    if description.sampler == "random":
        return space.draw(description.seed, index)
    grid = space.grid()
    if index >= len(grid):
        raise InputError(f"the grid has {len(grid)} trials only")
    return grid[index]


def scores_of(study: StudyDirectory, number: int) -> dict[int, float]:
    """Validation score of each epoch of a trial that has one."""
    epochs = records.read(study.trial(number).metrics_file, records.Epoch)
    return {record.epoch: record.total for record in epochs if record.total is not None}


def _attributes(result: Result) -> dict[str, Any]:
    """What the ledger holds of a result beside its score."""
    found = {"seed": result.seed, "repeat_of": result.repeat_of, "score": result.score, "epoch": result.epoch}
    return {k: v for k, v in {**found, "epochs": result.epochs, "reason": result.reason}.items() if v is not None}


# --- Optuna ------------------------------------------------------------------------------------------


def load_optuna() -> Any:
    """The module, quiet.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise InputError("a sweep needs Optuna: pip install 'hpcgan[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def make_sampler(optuna: Any, name: str, seed: int) -> Any:
    """A sampler of Optuna's by its name, e.g. `tpe`.

    Raises
    ------
    InputError
        There is none of that name, or it needs what is not installed.
    """
    if name in OWN_SAMPLERS:
        return optuna.samplers.RandomSampler(seed=seed)
    known = {
        n.removesuffix("Sampler").lower(): n
        for n in optuna.samplers.__all__
        if n.endswith("Sampler") and not n.startswith(("Base", "PartialFixed", "Grid", "Random", "BruteForce"))
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
    if name == "qmc":
        # One sequence, in which the study's journal keeps the place, but for what it cannot choose.
        options = {"seed": 0, "independent_sampler": optuna.samplers.RandomSampler(seed=seed)}
    with _quiet():
        return getattr(optuna.samplers, known[name])(**options)


def make_pruner(optuna: Any, name: str, epochs: int) -> Any:
    """A pruner of Optuna's, or None.

    Median: from a quarter of the epochs on, once four trials are complete, a trial whose best epoch so far is worse
    than the median of theirs. Halving: after a ninth and a third of the epochs, all but the best third so far.

    Raises
    ------
    InputError
        There is none of that name.
    """
    if name == "none":
        return None
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, epochs // 4))
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, epochs // 9), reduction_factor=3)
    raise InputError(f"--pruner {name}: choose one of {', '.join(PRUNERS)}{did_you_mean(name, PRUNERS)}")


def distribution(optuna: Any, dimension: Dimension) -> Any:
    """A dimension as Optuna knows it."""
    kinds = optuna.distributions
    if dimension.kind == "choice":
        return kinds.CategoricalDistribution([to_ledger(dimension, value) for value in dimension.values])
    low, high = dimension.values
    if dimension.kind == "int":
        return kinds.IntDistribution(low, high, log=dimension.log, step=dimension.step)
    return kinds.FloatDistribution(low, high, log=dimension.kind == "log_uniform")


def _suggest(trial: Any, dimension: Dimension) -> Any:
    """Ask Optuna for a value of a dimension; one that the trial has already stays."""
    if dimension.kind == "choice":
        return trial.suggest_categorical(dimension.key, [to_ledger(dimension, value) for value in dimension.values])
    low, high = dimension.values
    if dimension.kind == "int":
        return trial.suggest_int(dimension.key, low, high, log=dimension.log, step=dimension.step)
    return trial.suggest_float(dimension.key, low, high, log=dimension.kind == "log_uniform")


def to_ledger(dimension: Dimension, value: Any) -> Any:
    """A value as Optuna takes it: choices that are lists or sections become text."""
    simple = value is None or isinstance(value, (bool, int, float, str))
    return value if dimension.kind != "choice" or simple else json.dumps(value, sort_keys=True)


def from_ledger(dimension: Dimension, value: Any) -> Any:
    """The value that Optuna means."""
    if dimension.kind == "choice":
        alike = [(v, to_ledger(dimension, v)) for v in dimension.values]
        return next(v for v, text in alike if text == value and type(text) is type(value))
    return int(value) if dimension.kind == "int" else float(value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's warnings that a sampler is experimental: whoever names it has chosen it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
