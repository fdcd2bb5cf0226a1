"""What the classifier on images finds, and what it costs: real events against real events that were changed a little.

    python benchmarks/image_classifier.py data/rpv

Of the events of all splits, which must be 2 N at least, the first N are left alone and the next N are changed. Prints
one row a change: AUC of one training with its error, and seconds. `--channels`, `--epochs` and `--rate` try other
networks.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hpcgan.data.storage import SPLITS
from hpcgan.errors import HpcganError
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem
from hpcgan.system.console import quiet_tensorflow

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def moved(images: np.ndarray, rng: np.random.Generator, share: float, axis: int) -> np.ndarray:
    """A share of the lit pixels goes to the next pixel, on either side; energies in one pixel add up."""
    goes = (images > 0) & (rng.random(images.shape) < share)
    forth = goes & (rng.random(images.shape) < 0.5)
    changed = np.where(goes, 0, images)
    for mask, step in ((forth, 1), (goes & ~forth, -1)):
        part = np.roll(np.where(mask, images, 0), step, axis=axis)
        if axis == 1:  # eta does not go around: what would leave the image stays
            edge = np.take(part, 0 if step == 1 else -1, axis=1).copy()
            part[:, 0 if step == 1 else -1] = 0
            part[:, -1 if step == 1 else 0] += edge
        changed = changed + part
    return changed


def dim_dropped(images: np.ndarray, rng: np.random.Generator, below_mev: float, share: float) -> np.ndarray:
    """A share of the pixels below an energy goes dark."""
    return np.where((images < below_mev) & (rng.random(images.shape) < share), 0, images)


def smeared(images: np.ndarray, rng: np.random.Generator, width: float) -> np.ndarray:
    """Each pixel times exp(width z)."""
    return images * np.exp(width * rng.normal(size=images.shape)).astype(np.float32)


def streaked(images: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """A share of the lit pixels hands half of its energy to the next one in phi, where that is dark."""
    gives = (images > 0) & (np.roll(images, -1, axis=2) == 0) & (rng.random(images.shape) < share)
    half = np.where(gives, images / 2, 0)
    return images - half + np.roll(half, 1, axis=2)


CHANGES: dict[str, Change] = {
    "none": lambda images, rng: images,
    "5% of the lit pixels moved by one in eta": lambda images, rng: moved(images, rng, 0.05, 1),
    "10% of the lit pixels moved by one in eta": lambda images, rng: moved(images, rng, 0.1, 1),
    "10% of the lit pixels moved by one in phi": lambda images, rng: moved(images, rng, 0.1, 2),
    "10% of the pixels below 1 GeV dropped": lambda images, rng: dim_dropped(images, rng, 1000.0, 0.1),
    "half of the pixels below 1 GeV dropped": lambda images, rng: dim_dropped(images, rng, 1000.0, 0.5),
    "each pixel smeared by 20%": lambda images, rng: smeared(images, rng, 0.2),
    "3% of the lit pixels halved with a dark neighbour": lambda images, rng: streaked(images, rng, 0.03),
    "all energies + 5%": lambda images, rng: images * np.float32(1.05),
}


def events(folder: Path, n: int) -> np.ndarray:
    """The first n events of all splits, (n, 64, 64) MeV.

    Raises
    ------
    InputError
        No data there.
    SystemExit
        Fewer events.
    """
    problem = RpvProblem(RpvModel())
    parts = []
    for split in SPLITS:
        source = problem.open(folder, split)
        parts.append(source.read(np.arange(len(source)))["hist"])
        source.close()
    images = np.concatenate(parts)
    if len(images) < n:
        sys.exit(f"{folder}: {len(images)} events, {n} are needed")
    return images[:n]


def main(argv: list[str] | None = None) -> int:
    """Train a classifier for each change, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with events of problem rpv")
    parser.add_argument("--events", type=int, default=4096, metavar="N", help="of each class (default: 4096)")
    parser.add_argument("--change", action="append", metavar="WORD", help="only changes whose names have this word")
    parser.add_argument("--channels", type=int, nargs="+", help="of the convolutions")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rate", type=float, dest="learning_rate", help="learning rate at the beginning")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    quiet_tensorflow()
    from hpcgan.evaluation.classifier import classifier_test
    from hpcgan.evaluation.image_classifier import Frame, ImageTraining

    try:
        images = events(args.data, 2 * args.events)
    except HpcganError as error:
        print(f"image_classifier: error: {error}", file=sys.stderr)
        return error.exit_code
    frame = Frame.of(RpvProblem(RpvModel()))
    options = {name: getattr(args, name) for name in ("epochs", "learning_rate") if getattr(args, name) is not None}
    if args.channels:
        options["channels"] = tuple(args.channels)
    settings = ImageTraining(frame=frame, seed=args.seed, **options)
    real = frame.rows({"hist": images[: args.events]})
    print(f"{'change':<52} {'AUC':>6} {'error':>6} {'JSD':>6} {'epoch':>6} {'seconds':>8}")
    for name, change in CHANGES.items():
        if args.change and not any(word in name for word in args.change):
            continue
        fake = frame.rows({"hist": change(images[args.events :], np.random.default_rng(1))})
        started = time.perf_counter()
        test = classifier_test(real, fake, settings)
        seconds = time.perf_counter() - started
        numbers = f"{test.auc.value:6.3f} {test.auc.error:6.3f} {test.jsd.value:6.3f} {test.epoch:6d} {seconds:8.1f}"
        print(f"{name:<52} {numbers}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
