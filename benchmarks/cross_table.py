"""CaloGAN's test of what tells particles apart (PRL 120 (2018) 042003): classifiers of real or of generated showers.

For each pair of particles one classifier learns to separate real showers, one generated ones, and each is tested on
both kinds. Trained on real showers, as good on generated ones: these have the differences between particles that real
ones have. Trained on generated showers and worse on real ones: the generators make differences up.

    python benchmarks/cross_table.py gamma=RUN eplus=RUN piplus=RUN --out DIR [--showers 12000]

Real showers are the first test events of each run's data; generated ones have their energies. The classifier sees all
cells, on the scale of the real showers of all classes. DIR gets `cross_table.csv` and `cross_table.json`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from trainings import write_table

import hpcgan
from hpcgan.data.schema import Sample
from hpcgan.errors import HpcganError, InputError
from hpcgan.metrics.classification import auc
from hpcgan.metrics.features import Cells
from hpcgan.problems.base import problem_class
from hpcgan.runs.directory import RunDirectory
from hpcgan.system.console import quiet_tensorflow

if TYPE_CHECKING:
    from hpcgan.evaluation.classifier import Settings

Domain = Literal["real", "fake"]


def both(run: Path, n: int, seed: int) -> tuple[Sample, Sample]:
    """The first n test events of a run's data, and as many generated ones at their conditions.

    Raises
    ------
    InputError
        No such run, or fewer test events.
    """
    config = RunDirectory(run).load_config()
    problem = problem_class(config.problem)(config.model)
    source = problem.open(config.data.path, "test")
    if len(source) < n:
        raise InputError(f"{config.data.path}: {len(source)} test events, {n} are needed (--showers)")
    real = source.read(np.arange(n))
    asked = {name: real[name] for name in problem.conditions}
    fake = hpcgan.generate(run, None if asked else n, conditions=asked or None, seed=seed)
    images = [name for name in real if name not in problem.conditions]
    return {name: real[name] for name in images}, {name: fake[name] for name in images}


@dataclass(frozen=True)
class CrossEntry:
    """One classifier between two classes of events on the test events of one kind.

    Attributes
    ----------
    classes : pair of str
    trained_on, tested_on : "real" or "fake"
    n_test : int
        Test events of each class.
    accuracy, accuracy_error : float
        Share of test events given the right class, at equal numbers of both; its binomial error.
    auc, auc_error : float
        For the second class as the positive one.
    """

    classes: tuple[str, str]
    trained_on: Domain
    tested_on: Domain
    n_test: int
    accuracy: float
    accuracy_error: float
    auc: float
    auc_error: float


def cross_table(
    real: Mapping[str, np.ndarray],
    fake: Mapping[str, np.ndarray],
    settings: Settings,
    log: Callable[[str], None] = lambda text: None,
) -> list[CrossEntry]:
    """Separate classes of events with classifiers trained on real or generated ones, and tested on either.

    The test of CaloGAN (Paganini, de Oliveira and Nachman, PRL 120 (2018) 042003) for particle types. Trained on real
    events, as good on generated ones: these show the differences between classes that real ones do. Trained on
    generated events and worse on real ones: the generator exaggerates or invents differences. Test events are never
    those of the training, whichever kind they are.

    Parameters
    ----------
    real, fake : mapping of str to (n, inputs) array
        Events of each class, the same classes in both, two or more: features, or cells. All are cut
        to the size of the smallest.
    settings : Settings
        The paper has six layers, `hidden=(units,) * 5` here, of sizes that it does not give.
    log : callable
        Hears of progress.

    Returns
    -------
    list of CrossEntry
        Four for each pair of classes: trained on real and tested on real, on fake; trained on fake, likewise.

    Raises
    ------
    ValueError
        Classes that differ, fewer than two, or too few events.
    """
    if set(real) != set(fake) or len(real) < 2:
        raise ValueError(
            f"classes of real ({', '.join(real)}) and generated events ({', '.join(fake)}) must be the same"
        )
    from hpcgan.evaluation.classifier import comparable, split, train

    n = comparable([*real.values(), *fake.values()])
    domains: tuple[tuple[Domain, Mapping[str, np.ndarray]], ...] = (("real", real), ("fake", fake))
    parts = {
        (domain, name): split(sample[:n], settings.seed, f"{domain}/{name}")
        for domain, samples in domains
        for name, sample in samples.items()
    }
    entries = []
    for pair in itertools.combinations(real, 2):
        for trained_on, _ in domains:
            (train0, validation0, _), (train1, validation1, _) = (parts[trained_on, name] for name in pair)
            label = f"{' against '.join(pair)}, trained on {trained_on} events"
            classifier = train((train0, train1), (validation0, validation1), settings, log, label)
            for tested_on, _ in domains:
                negative, positive = (classifier(parts[tested_on, name][2]) for name in pair)
                area = auc(positive, negative)
                right = 0.5 * float(np.mean(negative < 0) + np.mean(positive >= 0))
                tested = len(positive)
                error = float(np.sqrt(right * (1 - right) / (2 * tested)))
                entries.append(CrossEntry(pair, trained_on, tested_on, tested, right, error, area.value, area.error))
    return entries


def main(argv: list[str] | None = None) -> int:
    """Train the classifiers, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="a particle and the run that makes its showers")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--showers", type=int, default=12_000, help="of each particle and kind (default: 12000)")
    parser.add_argument("--units", type=int, default=256, help="of each of five layers (default: 256)")
    parser.add_argument("--epochs", type=int, default=20, help="at most (default: 20)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    quiet_tensorflow()
    from hpcgan.evaluation.classifier import Settings

    try:
        named = dict(text.split("=", 1) for text in args.runs)
    except ValueError:
        parser.error("give NAME=RUN for each particle")
    try:
        samples = {name: both(Path(run), args.showers, args.seed) for name, run in named.items()}
    except HpcganError as error:
        print(f"cross_table: error: {error}", file=sys.stderr)
        return error.exit_code
    images = next(iter(samples.values()))[0]
    cells = Cells.of({key: np.concatenate([real[key] for real, _ in samples.values()]) for key in images})
    real, fake = ({name: cells(pair[kind]) for name, pair in samples.items()} for kind in (0, 1))
    settings = Settings(hidden=(args.units,) * 5, epochs=args.epochs, seed=args.seed)
    started = time.monotonic()
    entries = cross_table(real, fake, settings, lambda text: print(text, flush=True))
    args.out.mkdir(parents=True, exist_ok=True)
    write_table(args.out, "cross_table", [asdict(entry) for entry in entries])
    print(f"\n{time.monotonic() - started:.0f} s\n\n| pair | trained on | tested on | right | AUC |")
    print("|---|---|---|---|---|")
    for e in entries:
        print(
            f"| {' / '.join(e.classes)} | {e.trained_on} | {e.tested_on} | {100 * e.accuracy:.1f} ± "
            f"{100 * e.accuracy_error:.1f}% | {e.auc:.3f} ± {e.auc_error:.3f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
