"""The published figures 3 to 5 (docs/arm.md) of a model of whole showers, on the test showers, as one PNG.

    python benchmarks/arm_figures.py RUN --out docs/figures/arm_published.png

Mean images of the inner layer with (192, 12) cells and of the middle one with (36, 48); energy-weighted means in the
middle layer with (36, 48) and (48, 48); distances of the means between inner (48, 12) and middle (12, 12), and between
inner (48, 4) and middle (36, 48). The model has `geometries: [published]`. As many showers are generated as there are
of the test, in the same geometries and of the same energies.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image
from report_figures import COLOURS, sheet

import hpcgan
from hpcgan.data.schema import Sample, take
from hpcgan.metrics.observable import Observable
from hpcgan.problems.arm.figures import ArmFigures, label_of, note_of
from hpcgan.problems.arm.files import GEOMETRY
from hpcgan.problems.arm.problem import ArmProblem
from hpcgan.problems.base import problem_class
from hpcgan.report import plots
from hpcgan.runs.directory import RunDirectory
from hpcgan.system.console import quiet_tensorflow

IMAGES = ((3, "inner"), (1, "middle"))
"""Number of the geometry among the published ones, and layer."""
PANELS = (
    (1, "(36, 48)", "mean_eta_middle"),
    (1, "(36, 48)", "mean_phi_middle"),
    (0, "(48, 12), (12, 12)", "distance_inner_middle"),
    (3, "(48, 48)", "mean_eta_middle"),
    (3, "(48, 48)", "mean_phi_middle"),
    (1, "(48, 4), (36, 48)", "distance_inner_middle"),
)
WIDTH = 1300
"""Pixels."""


def main() -> None:
    """Generate, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    quiet_tensorflow()
    config = RunDirectory(args.run).load_config()
    problem = cast(ArmProblem, problem_class(config.problem)(config.model))
    source = problem.open(config.data.path, "test")
    real = source.read(np.arange(len(source)))
    asked = {name: real[name] for name in problem.conditions}
    fake = {**hpcgan.generate(args.run, len(source), seed=args.seed, conditions=asked, batch_size=256), **asked}

    def of(sample: Sample, number: int) -> Sample:
        return take(sample, np.flatnonzero(sample[GEOMETRY].reshape(-1) == number))

    figures = []
    drawn = ArmFigures(problem)
    for number, layer in IMAGES:
        compared = drawn.compare(of(real, number), of(fake, number))
        figures.append(next(x for name, _, x in compared if name.startswith("mean") and name.endswith(layer)))
    panels = []
    for number, cells, name in PANELS:
        a, b = (cast(Observable, problem.observables(of(sample, number))[name]) for sample in (real, fake))
        panels.append((label_of(name), a, b, f"{cells}: {note_of(a, b)}"))
    figures.append(plots.histogram_grid(panels, 3, entries="showers"))
    images = []
    for figure in figures:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150)
        images.append(Image.open(buffer).convert("RGB"))
    whole = sheet([sheet(images[:2], 2, WIDTH), images[2]], 1, WIDTH)
    whole.quantize(COLOURS).save(args.out, optimize=True)
    print(f"{args.out}: {args.out.stat().st_size // 1024} KB, {len(source)} showers")


if __name__ == "__main__":
    main()
