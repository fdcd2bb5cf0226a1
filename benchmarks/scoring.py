"""Images a second of the whole physics score on one core: jets, then the KS tests. CPU time counts.

taskset -c 0 python benchmarks/scoring.py data/rpv/test.h5
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from hpcgan.evaluation import events
from hpcgan.metrics.null_band import null_band
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="images, HDF5")
    parser.add_argument("--events", type=int, default=4096, help="on each side (default: 4096)")
    parser.add_argument("--repeat", type=int, default=5, help="times; the median counts (default: 5)")
    args = parser.parse_args()

    problem = RpvProblem(RpvModel.model_validate({}))
    source = problem.open(args.file, "test")
    images = source.read(np.arange(min(args.events, len(source))))["hist"]
    problem.observables({"hist": images[:64]})  # imports, FastJet's banner

    jets_s, score_s = [], []
    for _ in range(args.repeat):
        started = time.process_time()
        found = events.join([problem.observables({"hist": images[c]}) for c in events.chunks(len(images))])
        jets_s.append(time.process_time() - started)
        started = time.process_time()
        problem.score(found, found)
        score_s.append(time.process_time() - started)
    started = time.process_time()
    band = null_band(found, problem.score, len(images) // 2, repetitions=100)
    result = {
        "events": len(images),
        "jets_images_per_s": round(len(images) / float(np.median(jets_s))),
        "ks_ms": round(1e3 * float(np.median(score_s)), 2),
        "score_images_per_s": round(len(images) / float(np.median(jets_s) + np.median(score_s))),
        "null_band_splits_per_s": round(len(band.samples) / (time.process_time() - started)),
        "null_band_n": band.n,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
