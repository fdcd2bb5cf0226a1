"""A run's generator of showers as an ONNX model that Geant4's example Par04 loads, with a macro that uses it.

The example (examples/extended/parameterisations/Par04 of Geant4 11) feeds a model one tensor (1, latent + 4): standard
normal numbers, then the energy over 1024 GeV, the angle over 90 degrees, and two numbers for the geometry. The example
takes the first output for the energies in the cells of a cylindrical mesh, over the particle's: z runs fastest, then
phi, then rho.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from hpcgan import rng
from hpcgan.errors import HpcganError, InputError
from hpcgan.evaluation import onnx_export
from hpcgan.evaluation.export import NOISE, SYMMETRIES, Serving, describe, new_folder
from hpcgan.evaluation.sampling import RunSampler
from hpcgan.problems.mesh import ShowerMesh

VECTOR, ENERGIES = "latent_and_conditions", "energies"
CONDITIONS = 4
"""Energy, angle and two numbers for the geometry; the model heeds the energy."""
MAX_ENERGY_GEV = 1024.0
"""`fMaxEnergy` of the example's Par04InferenceSetup.hh."""
MACRO = "par04.mac"
MEV_PER_GEV = 1e3


class Par04(tf.Module):
    """One tensor in, one out, as the example has them.

    Parameters
    ----------
    serving : Serving
    mesh : ShowerMesh
    """

    def __init__(self, serving: Serving, mesh: ShowerMesh) -> None:
        super().__init__("par04")
        self._serving, self._mesh = serving, mesh
        shapes = {name: spec.shape[1:] for name, spec in serving.inputs.items()}
        self.noise_dim = shapes[NOISE][0]
        self.latent_dim = self.noise_dim + (shapes[SYMMETRIES][0] if SYMMETRIES in shapes else 0)

    @property
    def inputs(self) -> dict[str, tf.TensorSpec]:
        """The one tensor."""
        return {VECTOR: tf.TensorSpec([None, self.latent_dim + CONDITIONS], "float32", VECTOR)}

    def concrete(self) -> Any:
        """The traced function."""
        function = tf.function(lambda **inputs: self._energies(inputs[VECTOR]), autograph=False)
        return function.get_concrete_function(**self.inputs)

    def _energies(self, vector: tf.Tensor) -> dict[str, tf.Tensor]:
        specs, mesh = self._serving.inputs, self._mesh
        energy = vector[:, self.latent_dim] * MAX_ENERGY_GEV
        inputs = {NOISE: tf.cast(vector[:, : self.noise_dim], specs[NOISE].dtype)}
        inputs[mesh.energy] = tf.cast(tf.reshape(energy, [-1, *specs[mesh.energy].shape[1:]]), specs[mesh.energy].dtype)
        if SYMMETRIES in specs:  # uniform numbers of the last normal ones
            normal = tf.cast(vector[:, self.noise_dim : self.latent_dim], specs[SYMMETRIES].dtype)
            inputs[SYMMETRIES] = 0.5 * tf.math.erfc(-normal / math.sqrt(2.0))
        showers = self._serving(inputs)
        parts = []
        for name, across in mesh.across.items():
            cells = tf.reshape(showers[name], [-1, across.shape[0]]) / (energy[:, None] * MEV_PER_GEV)
            rings = tf.matmul(cells, tf.constant(across, cells.dtype))
            parts.append(rings[:, :, None] * tf.constant(mesh.along[name], cells.dtype))
        return {ENERGIES: tf.reshape(tf.add_n(parts), [-1, math.prod(mesh.cells)])}


def laid_out(mesh: ShowerMesh, showers: Mapping[str, np.ndarray]) -> np.ndarray:
    """Energies in the cells of the mesh, (n, cells), of showers' images, in their unit."""
    total = 0.0
    for name, across in mesh.across.items():
        rings = showers[name].reshape(len(showers[name]), -1).astype(np.float64) @ across
        total = total + rings[:, :, None] * mesh.along[name]
    return np.asarray(total).reshape(-1, math.prod(mesh.cells))


def export(sampler: RunSampler, run: Path, path: Path) -> dict[str, Any]:
    """Write a folder with the model, its description, and the macro `par04.mac`.

    Parameters
    ----------
    sampler, run, path
        As of `hpcgan.evaluation.onnx_export.export`.

    Returns
    -------
    dict
        The description that was written with it.

    Raises
    ------
    InputError
        The problem makes no showers of a particle that the example can ask for; and as of `onnx_export.export`.
    HpcganError
        The model gives something else than the run.
    """
    onnx_export.check_installed()
    mesh = sampler.problem.mesh
    if mesh is None:
        raise InputError(
            f"problem '{sampler.problem.name}': Geant4's example Par04 takes showers of one particle "
            "(problem calogan); give --format onnx"
        )
    par04 = Par04(Serving(sampler), mesh)
    function = par04.concrete()
    details = describe(sampler, run, par04.inputs, function.structured_outputs)
    details["inputs"][VECTOR]["meaning"] = (
        f"{par04.latent_dim} standard normal numbers, energy / {MAX_ENERGY_GEV:g} GeV, and three numbers without effect"
    )
    details["outputs"][ENERGIES] |= {"axes": ["rho", "phi", "z"], "meaning": "over the energy of the particle"}
    model = onnx_export.converted(function, [VECTOR], f"problem '{sampler.problem.name}'")
    with new_folder(path) as temporary:
        onnx_export.write(model, details, temporary)
        (temporary / MACRO).write_text(macro(par04.latent_dim, mesh, path / onnx_export.MODEL), encoding="utf-8")
        _compare(sampler, par04, mesh, temporary / onnx_export.MODEL)
    return details


def vector_of(par04: Par04, noise: np.ndarray, uniforms: np.ndarray | None, energy: np.ndarray) -> np.ndarray:
    """What the example would feed for showers of this noise, symmetries' numbers if any, and energies in GeV."""
    from scipy.special import ndtri

    parts = [noise] if uniforms is None else [noise, ndtri(np.maximum(uniforms, 2.0**-54))]
    conditions = np.zeros((len(noise), CONDITIONS))
    conditions[:, 0], conditions[:, 3] = energy / MAX_ENERGY_GEV, 1.0
    return np.concatenate([*parts, conditions], axis=1).astype(np.float32)


def _compare(sampler: RunSampler, par04: Par04, mesh: ShowerMesh, path: Path) -> None:
    problem, n = sampler.problem, sampler.batch_size
    energy = np.geomspace(5.0, 50.0, n).astype(np.float32)
    noise = rng.normal(1, "sample", 0, 0, n, problem.noise_dim)
    uniforms = None
    if sampler.symmetries:
        uniforms = rng.uniform(1, "sample/symmetries", 0, 0, n, len(problem.symmetries))
    (energies,) = onnx_export.session(path).run(None, {VECTOR: vector_of(par04, noise, uniforms, energy)})
    asked = {mesh.energy: energy.reshape(n, *problem.schema[mesh.energy].shape)}
    exact = laid_out(mesh, sampler.sample(n, 1, conditions=lambda first, count: asked))
    exact /= MEV_PER_GEV * energy[:, None]
    if not np.allclose(energies, exact, rtol=1e-3, atol=1e-4 * float(np.abs(exact).max())):
        raise HpcganError(f"problem '{problem.name}' cannot be exported for Par04: the model gives other showers")


def macro(latent_dim: int, mesh: ShowerMesh, model: Path) -> str:
    """A macro of the example that simulates with the model: examplePar04 -m par04.mac."""
    rho, phi, z = mesh.cells
    numbers = f"NbOfRhoCells {rho}", f"NbOfPhiCells {phi}", f"NbOfZCells {z}"
    sizes = f"SizeOfRhoCells {mesh.rho_mm:.6g} mm", f"SizeOfZCells {mesh.z_mm:.6g} mm"
    both = {
        where: "\n".join(f"/Par04/{where}/set{line}" for line in (*sizes, *numbers)) for where in ("mesh", "inference")
    }
    return f"""\
{mesh.macro}/Par04/detector/setDetectorInnerRadius 80 cm
/Par04/detector/setDetectorLength 2 m
{both["mesh"]}
/run/numberOfThreads 1
/run/initialize
/Par04/inference/setSizeLatentVector {latent_dim}
/Par04/inference/setSizeConditionVector {CONDITIONS}
/Par04/inference/setModelPathName {model}
/Par04/inference/setProfileFlag 0
/Par04/inference/setOptimizationFlag 0
/Par04/inference/setInferenceLibrary ONNX
{both["inference"]}
/param/ActivateModel defineMesh
/param/ActivateModel inferenceModel
/gun/energy 10 GeV
/gun/position 0 0 0
/gun/direction 0 1 0
/run/beamOn 100
"""
