"""Which problems there are: those of hpcgan, of installed packages, and any class at `package.module:Class`.

Imports no problem until somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hpcgan.plugins import Plugins


def _is_problem(plugin: type[Any]) -> bool:
    # By name: the configuration looks problems up, and problems describe a section of it.
    return any((base.__module__, base.__name__) == ("hpcgan.problems.base", "Problem") for base in plugin.__mro__)


def _fault(problem: type[Any]) -> str:
    """What commands that go through all problems could not work with."""
    missing = ", ".join(name for name in ("name", "Model") if not hasattr(problem, name))
    if missing:
        return f"has no {missing}"
    layouts, generators, importers = problem.layouts, problem.generators, problem.importers
    if not isinstance(layouts, tuple | list) or not all(hasattr(layout, "recognises") for layout in layouts):
        return "its layouts are no tuple of Layout objects; write (LAYOUT,)"
    if not isinstance(generators, Mapping) or not _are_texts([*generators, *generators.values()]):
        return 'its generators are no mapping of names to places; write {"NAME": "package.module:Class"}'
    if not isinstance(importers, tuple | list) or not _are_texts(importers):
        return 'its importers are no tuple of places; write ("package.module:Class",)'
    return "" if isinstance(problem.figures, str) else 'its figures are no place; write "package.module:Class"'


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


PROBLEMS = Plugins(
    "hpcgan.problems",
    "problem",
    {
        "arm": "hpcgan.problems.arm.problem:ArmProblem",
        "calo_layer": "hpcgan.problems.calorimeter.layer:CaloLayerProblem",
        "calogan": "hpcgan.problems.calorimeter.calogan:CaloganProblem",
        "conditional": "hpcgan.problems.detector_images.conditional:ConditionalProblem",
        "cosmo": "hpcgan.problems.cosmo.problem:CosmoProblem",
        "jets": "hpcgan.problems.jet_images.problem:JetsProblem",
        "pileup": "hpcgan.problems.pileup.problem:PileupProblem",
        "rpv": "hpcgan.problems.detector_images.rpv:RpvProblem",
    },
    _is_problem,
    _fault,
)
