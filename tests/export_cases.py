"""Runs of every problem and option that an exported model has to include, which were never trained."""

from __future__ import annotations

import jet_data
import needs
import numpy as np
import one_rank
import tiny
import untrained

tf = needs.tensorflow()

from hpcgan import config  # noqa: E402
from hpcgan.problems.base import problem_class  # noqa: E402
from hpcgan.problems.discovery import PROBLEMS  # noqa: E402

N = 7
DETECTOR = {
    "architecture": "detector", "filters": 2, "latent_dim": 3, "intensity": "pt", "scale_mev": 6000.0,
    "exponent": 1 / 3, "pixel_noise": True, "total_pt": "drawn",
}  # fmt: skip
IMAGE = ["eta_reflection", "phi_reflection", "phi_rotation"]
#: Problem, its model, symmetries of generated samples, other settings.
CASES = {
    "rpv": ("rpv", {"filters": 2, "latent_dim": 3}, [], {}),
    "rpv of batch statistics": (
        "rpv", {"filters": 2, "latent_dim": 3, "exponent": 0.5}, IMAGE, {"scoring": {"statistics": "batch"}},
    ),
    "rpv in float64": ("rpv", {"filters": 2, "latent_dim": 3}, [], {"training": {"dtype": "float64"}}),
    "rpv by likelihood": (
        "rpv",
        {
            "architecture": "multiscale", "hidden_units": 4, "intensity": "pt", "scale_mev": 6000.0, "exponent": 1 / 3,
            "total_pt": "drawn",
        },
        IMAGE,
        {"method": "nll"},
    ),
    "detector": ("rpv", {**DETECTOR, "pixel_pt": "matched"}, ["phi_rotation"], {}),
    "matched, of batch statistics": (
        "rpv", {**DETECTOR, "pixel_pt": "matched"}, [], {"scoring": {"statistics": "batch"}},
    ),
    "conditional": ("conditional", DETECTOR, IMAGE, {}),
    "pileup": ("pileup", {"filters": 2, "latent_dim": 3, "mu": [20, 60, 140], "exponent": 0.4}, IMAGE, {}),
    "matched pileup": ("pileup", {**DETECTOR, "mu": [20, 60, 140], "pixel_pt": "matched"}, [], {}),
    "calogan": ("calogan", {"segmentation": "2x8,4x4,4x2", "latent_dim": 5}, [], {}),
    "matched calogan": (
        "calogan",
        {"segmentation": "2x8,4x4,4x2", "latent_dim": 5, "cell_encoding": "log", "cell_energies": "matched"},
        ["eta_reflection"],
        {},
    ),
    "calogan by likelihood": (
        "calogan",
        {"segmentation": "2x4,2x2,2x1", "architecture": "multiscale", "hidden_units": 4},
        ["eta_reflection"],
        {"method": "nll"},
    ),
    "arm": (
        "arm", {"geometries": ["eta2_phi2", "eta1+2_phi3"], "categories": 8, "dense_layers": 2}, [], {},
    ),
    "arm by boxes": (
        "arm",
        {
            "layer": "whole",
            "geometries": ["eta6_phi4/eta2_phi2/eta2_phi1", "eta2_phi2/eta1+2_phi3/eta2_phi2"],
            "architecture": "boxes",
            "hidden_units": 4,
            "sees_energy": True,
        },
        [],
        {},
    ),
    "calo_layer": ("calo_layer", {"layer": "layer_2", "hidden_units": 24, "components": 1}, [], {}),
    "jets": ("jets", {}, [], {}),
    "jets by likelihood": (
        "jets", {"architecture": "multiscale", "hidden_units": 4, "threshold_gev": 1e-6}, [], {"method": "nll"},
    ),
    "cosmo": ("cosmo", {"side": 32, "filters": 2, "latent_dim": 3}, ["x_reflection", "transpose", "shift"], {}),
}  # fmt: skip
#: Of what the others have, too.
VARIANTS = {"rpv in float64", "rpv by likelihood", "matched, of batch statistics", "matched pileup", "calogan"}
if not one_rank.thorough:
    CASES = {name: case for name, case in CASES.items() if name not in VARIANTS}
CASES |= {name: (name, {}, [], {}) for name in PROBLEMS.names() if name not in {case[0] for case in CASES.values()}}


def configuration(name, data):
    problem, model, augment, more = CASES[name]
    training = {"epochs": 1, "batch_size": N, "average_half_life": 50}
    if augment:
        training["augment_generated"] = True
    raw = {
        "problem": problem,
        "name": "tiny",
        **{key: more[key] for key in ("method",) if key in more},
        "data": {"path": str(data), "augment": augment},
        "model": model,
        "training": {**training, **more.get("training", {})},
        "scoring": more.get("scoring", {}),
    }
    return config.load(raw)


def conditions_of(problem):
    """Different ones for each of N samples."""
    if problem.name == "conditional":
        return {"mGlu": np.linspace(1400, 1800, N, dtype=np.float32), "mNeu": np.full(N, 850, np.float32)}
    if problem.name == "arm":
        energies = {"incident_energy": np.linspace(5, 90, N, dtype=np.float32)} if problem.model.sees_energy else {}
        return {"geometry": np.arange(N, dtype=np.float32) % 2, **energies}
    scale = {"mu": 20.0, "energy": 15.0}
    found = {}
    for name in problem.conditions:
        shape = problem.schema[name].shape
        values = scale.get(name, 1.0) * (1.0 + np.arange(N, dtype=np.float32))
        found[name] = np.broadcast_to(values.reshape(-1, *(1 for _ in shape)), (N, *shape)).copy()
    return found


def make_run(place, name, data):
    """The run of a case, in a new folder; `data` are those of `tiny.write_conditional_data`."""
    made_config = configuration(name, data)
    batches = []
    if made_config.problem in ("rpv", "conditional", "pileup"):
        problem = problem_class(made_config.problem)(made_config.model)
        sample = {"hist": tiny.images(12), "mGlu": np.repeat(np.float32([1400, 1600, 1800]), 4)}
        sample |= {"mNeu": np.full(12, 850, np.float32), "mu": np.repeat(np.float32([20, 60, 140]), 4)}
        encoded = problem.encode({name: sample[name] for name in problem.schema})
        batches = [{k: tf.constant(v, made_config.training.dtype) for k, v in encoded.items()}]
    if name == "jets by likelihood":
        problem = problem_class(made_config.problem)(made_config.model)
        encoded = problem.encode(jet_data.jets(12))
        batches = [{k: tf.constant(v, made_config.training.dtype) for k, v in encoded.items()}]
    if made_config.problem == "calogan":
        rng = np.random.default_rng(3)
        shapes = made_config.model.shapes
        showers = {f"layer_{i}": rng.exponential(0.5, (50, *shape)) for i, shape in enumerate(shapes)}
        showers["energy"] = np.linspace(10.0, 90.0, 50)
        batches = [{k: tf.constant(v, made_config.training.dtype) for k, v in showers.items()}]
    if name == "arm by boxes":
        rng = np.random.default_rng(4)
        showers = {"cells": np.where(np.arange(30) < 16, rng.exponential(0.5, (50, 30)), 0.0)}
        showers |= {"geometry": np.arange(50.0) % 2, "incident_energy": np.linspace(10.0, 90.0, 50)}
        batches = [{k: tf.constant(v, made_config.training.dtype) for k, v in showers.items()}]
    return untrained.make_run(place, made_config, batches)
