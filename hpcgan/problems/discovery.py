"""Which problems there are: those of hpcgan, of installed packages, and any class at `package.module:Class`.

Imports no problem until somebody asks for it.
"""

from __future__ import annotations

from typing import Any

from hpcgan.plugins import Plugins


def _is_problem(plugin: type[Any]) -> bool:
    # By name: the configuration looks problems up, and problems describe a section of it.
    return any((base.__module__, base.__name__) == ("hpcgan.problems.base", "Problem") for base in plugin.__mro__)


PROBLEMS = Plugins(
    "hpcgan.problems",
    "problem",
    {
        "calo_layer": "hpcgan.problems.calorimeter.layer:CaloLayerProblem",
        "calogan": "hpcgan.problems.calorimeter.calogan:CaloganProblem",
        "conditional": "hpcgan.problems.detector_images.conditional:ConditionalProblem",
        "cosmo": "hpcgan.problems.cosmo.problem:CosmoProblem",
        "pileup": "hpcgan.problems.pileup.problem:PileupProblem",
        "rpv": "hpcgan.problems.detector_images.rpv:RpvProblem",
    },
    _is_problem,
)
