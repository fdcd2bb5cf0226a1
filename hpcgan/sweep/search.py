"""What a study tries: parameters and seeds of its trials, each a function of the study and of a number."""

from __future__ import annotations

from typing import Any

from hpcgan import rng
from hpcgan.errors import InputError
from hpcgan.sweep.space import Space
from hpcgan.sweep.store import Assignment, Description, StudyDirectory

#: Samplers whose trials are known before they run; others are Optuna's.
OWN_SAMPLERS = ("random", "grid")


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


def hand_out(study: StudyDirectory, space: Space, assignment: Assignment) -> None:
    """Make the run directory of a trial, and say what it is: last, so that who finds that finds all."""
    run = study.trial(assignment.number)
    try:
        config = space.config(assignment.params, assignment.seed)
    except InputError as error:  # values that do not go together, which a sampler cannot know
        run.path.mkdir(parents=True, exist_ok=True)
        study.write_assignment(assignment)
        study.write_result(assignment.result(0, "failed", str(error)))
        return
    run.create(config)
    study.write_assignment(assignment)
