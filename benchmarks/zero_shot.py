"""How well models of calorimeter showers generate in a geometry that no training shower had, beside simple answers.

    python benchmarks/zero_shot.py DATA --geometry eta48_phi48 --run boxes=RUN --run blind=RUN --rebin RUN=eta48_phi24

DATA holds showers in all geometries at once (`hpcgan data arm --assignment all`), of whose test split those in the
geometry count. Each run generates as many. With `--rebin` a run's showers in another geometry are put into the cells of
this one, by area. Against the real showers, for each quantity: the Wasserstein distance over the standard deviation of
the real ones, with its bootstrap error, and the same of real training showers. With several runs of one name (`--run
boxes=A --run boxes=B`, of other seeds) the table has the mean over them and, as error, their standard deviation.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

import hpcgan
from hpcgan.errors import HpcganError, InputError
from hpcgan.metrics.distances import distances
from hpcgan.metrics.observable import Observable
from hpcgan.problems.arm import files
from hpcgan.problems.arm.files import CELLS, GEOMETRY
from hpcgan.problems.arm.geometry import Geometry, parse_layer
from hpcgan.problems.arm.problem import ArmModel
from hpcgan.problems.arm.quantities import SCORED, observables
from hpcgan.problems.arm.source import GeometrySource
from hpcgan.problems.calorimeter.grids import overlap
from hpcgan.runs.directory import RunDirectory
from hpcgan.system.console import quiet_tensorflow
from hpcgan.system.files import write_atomic

Values = dict[str, tuple[float, float]]
"""Of each quantity a distance and its error; `SUM` is all of them together."""

SUM = "mean"


def rebinned(cells: NDArray[Any], source: Geometry, target: Geometry) -> NDArray[np.float64]:
    """Energies (n, cells) of one geometry in the cells of another, each spread evenly over its cell."""
    axes = ("phi_edges", "eta_edges")
    rows, columns = (overlap(getattr(source, axis), getattr(target, axis)) for axis in axes)
    images = np.asarray(cells, np.float64)[:, : source.n_cells].reshape(-1, *source.shape)
    return np.einsum("ri,nij,cj->nrc", rows, images, columns).reshape(len(images), -1)


def compared(real: NDArray[Any], fake: NDArray[Any], geometry: Geometry) -> Values:
    """Wasserstein distances over the real standard deviations, and their mean."""
    sides = [observables(cells, np.zeros(len(cells)), [geometry], "") for cells in (real, fake)]
    values: Values = {}
    for name in SCORED:
        a, b = (side[name] for side in sides)
        distance = distances(a, b)
        spread = float(_values(a).std())
        if spread and distance.wasserstein is not None and distance.wasserstein_error is not None:
            values[name] = distance.wasserstein / spread, distance.wasserstein_error / spread
    each = np.array(list(values.values()))
    values[SUM] = float(each[:, 0].mean()), float(np.sqrt((each[:, 1] ** 2).sum()) / len(each))
    return values


def over_runs(values: Sequence[Values]) -> Values:
    """Means over runs and, of several, their standard deviations."""
    if len(values) == 1:
        return values[0]
    each = {name: np.array([of_run[name][0] for of_run in values]) for name in values[0]}
    return {name: (float(x.mean()), float(x.std(ddof=1))) for name, x in each.items()}


def table(rows: Mapping[str, Values]) -> str:
    """As Markdown."""
    names = [*SCORED, SUM]
    lines = ["| model | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for row, values in rows.items():
        cells = [f"{values[name][0]:.3f} ± {values[name][1]:.3f}" if name in values else "" for name in names]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _values(observable: Observable) -> NDArray[np.float64]:
    return np.asarray(observable.values, np.float64)


def _showers(file: Path, layer: str, geometry: Geometry) -> NDArray[Any]:
    """Those of a file in a geometry."""
    of_layer, of_file = files.read_geometries(file)
    if of_layer != layer or geometry not in of_file:
        raise InputError(f"{file}: has no showers of the {layer} layer in {geometry}")
    source = GeometrySource(file, layer, of_file)
    numbers = source.conditions()[GEOMETRY].reshape(-1)
    rows = np.flatnonzero(numbers == of_file.index(geometry))
    return np.asarray(source.read(rows)[CELLS][:, : geometry.n_cells])


def _generated(run: Path, geometry: Geometry, n: int, seed: int) -> NDArray[Any]:
    """Showers of a run in a geometry of its model."""
    known = cast(ArmModel, RunDirectory(run).load_config().model).cells
    if geometry not in known:
        raise InputError(f"{run}: its model does not know {geometry}: {', '.join(map(str, known))}")
    sample = hpcgan.generate(run, n, seed=seed, conditions={GEOMETRY: float(known.index(geometry))}, batch_size=256)
    return np.asarray(sample[CELLS][:, : geometry.n_cells])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of showers in several geometries")
    parser.add_argument("--layer", default="middle")
    parser.add_argument("--geometry", required=True)
    parser.add_argument("--run", action="append", default=[], metavar="NAME=RUN")
    parser.add_argument("--rebin", action="append", default=[], metavar="RUN=GEOMETRY")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all values there, too")
    args = parser.parse_args(argv)
    quiet_tensorflow()
    geometry = parse_layer(args.geometry, args.layer)
    real, training = (_showers(args.data / f"{split}.h5", args.layer, geometry) for split in ("test", "train"))
    n = len(real)
    rows = {"real training showers": [compared(real, training[:n], geometry)]}
    for text in args.run:
        name, _, run = text.partition("=")
        rows.setdefault(name, []).append(compared(real, _generated(Path(run), geometry, n, args.seed), geometry))
    for text in args.rebin:
        run, _, other = text.rpartition("=")
        source = parse_layer(other, args.layer)
        cells = rebinned(_generated(Path(run), source, n, args.seed), source, geometry)
        rows.setdefault(f"rebinned from {other}", []).append(compared(real, cells, geometry))
    means = {name: over_runs(values) for name, values in rows.items()}
    print(f"{geometry}, {n} showers a side\n\n{table(means)}")
    if args.json is not None:
        write_atomic(args.json, json.dumps({"geometry": str(geometry), "n": n, "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except HpcganError as error:
        sys.exit(f"error: {error}")
