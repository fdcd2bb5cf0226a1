"""The README's picture: jets and events of a trained run beside real ones.

python benchmarks/results_figure.py RUN docs/figures/results.png
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from report_figures import COLOURS, sheet

import hpcgan
from hpcgan.evaluation.sampling import load_sampler
from hpcgan.problems.figures import figures_of

EVENTS = 4096
WIDTH = 1400  # pixels of the picture


def main(run: Path, target: Path) -> None:
    """Draw the problem's own figures of a run and put four of them on one sheet."""
    sampler = load_sampler(run)
    problem = sampler.problem
    source = problem.open(sampler.config.data.path, "test")
    real = source.read(np.arange(min(EVENTS, len(source))))
    fake = hpcgan.generate(run, len(real["hist"]))
    drawn = {}
    for name, _, figure in figures_of(problem).compare(real, fake):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, facecolor="white", bbox_inches="tight")
        drawn[name] = Image.open(buffer).convert("RGB")
    names = ["jet_multiplicity", "summed_jet_mass", "jet_pt", "images"]
    missing = [name for name in names if name not in drawn]
    if missing:
        sys.exit(f"no figure {missing}; there are {list(drawn)}")
    sheet([drawn[name] for name in names], 3, WIDTH).quantize(COLOURS).save(target, optimize=True)
    print(f"{target}: {target.stat().st_size // 1024} KB, epoch {sampler.checkpoint.epoch}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
