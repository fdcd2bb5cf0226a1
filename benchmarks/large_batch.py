"""Score against the global batch at equal samples seen, for rules of the learning rate: what to set on N ranks.

    python benchmarks/large_batch.py configs/rpv_gan.yaml --out runs/large-batch --ranks 1,4,16,64 [key=value]

Each of the N ranks is one part of an accumulated batch (`training.accumulation`), whose gradients are those of N ranks
bit for bit up to the order of summation, as long as layers that look at a batch as a whole look at a rank's
(`training.batch_norm: local`, which is required). So one core stands for 64. The size of the training split must be a
multiple of every global batch, or trainings would not see the same number of samples.

The same command goes on where it was interrupted. It writes `points.csv`, `points.json` and `large_batch.png`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from trainings import outcome, train_all, training_events, write_table

from hpcgan import config as configuration
from hpcgan.report import plots
from hpcgan.system.files import write_atomic


@dataclass(frozen=True)
class Point:
    """One training.

    Attributes
    ----------
    ranks : int
        That it stands for.
    rule : str
        Of `training.schedule.scaling`.
    warmup : float
        Epochs.
    seed : int
    """

    ranks: int
    rule: str
    warmup: float
    seed: int

    @property
    def label(self) -> str:
        """Name of the rule in tables and plots."""
        return self.rule if not self.warmup else f"{self.rule}, warm-up {self.warmup:g}"

    @property
    def folder(self) -> str:
        """Name of the run directory."""
        return f"{self.ranks:03d}-{self.rule}-{self.warmup:g}-seed{self.seed}"

    def overrides(self, batch: int) -> list[str]:
        """Settings of the training, `batch` being that of a rank."""
        return [
            f"training.batch_size={batch * self.ranks}",
            f"training.accumulation={self.ranks}",
            f"training.schedule.reference_batch={batch}",
            f"training.schedule.scaling={self.rule}",
            f"training.schedule.warmup_epochs={self.warmup:g}",
            f"seed={self.seed}",
        ]


def points(ranks: Sequence[int], rules: Sequence[str], warmups: Sequence[float], seeds: Sequence[int]) -> list[Point]:
    """All trainings; on one rank, and without a factor, there is nothing to warm up and one rule is any other."""
    listed = [
        Point(n, rule if n > 1 else "none", warmup if n > 1 and rule != "none" else 0.0, seed)
        for n, rule, warmup, seed in itertools.product(ranks, rules, warmups, seeds)
    ]
    return list(dict.fromkeys(listed))


def figure(found: Sequence[Mapping[str, object]], batch: int, out: Path) -> None:
    """Best score against the global batch, a line a rule."""
    ranks = sorted({int(str(row["ranks"])) for row in found})
    start = [float(str(row["best"])) for row in found if row["ranks"] == 1 and row["best"] is not None]
    lines: dict[str, list[float | None]] = {}
    for label in dict.fromkeys(str(row["label"]) for row in found if row["ranks"] != 1):
        lines[label] = []
        for n in ranks:
            best = [row["best"] for row in found if (row["ranks"], row["label"]) == (n, label)] if n > 1 else start
            there = [float(str(score)) for score in best if score is not None]
            lines[label].append(mean(there) if there else None)
    made = plots.curves(
        batch * np.array(ranks, float),
        lines,
        f"Global batch ({batch} a rank)",
        "Best score (lower is better)",
        log_y=True,
    )
    made.axes[0].set_xscale("log", base=2)
    made.axes[0].set_xticks([batch * n for n in ranks], [f"{batch * n}\n{n}" for n in ranks])
    write_atomic(out, plots.png(made))


def main() -> None:
    """Train what is missing, then write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ranks", default="1,4,16,64")
    parser.add_argument("--rules", default="none,sqrt,linear")
    parser.add_argument("--warmup", default="0,1", help="epochs")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_intermixed_args()
    overrides = [*args.overrides, f"training.epochs={args.epochs}"]
    config = configuration.load(args.config, overrides)
    batch = config.training.batch_size
    if config.training.batch_norm != "local" or config.training.global_batch_size is not None:
        sys.exit(f"{args.config}: parts of a batch stand for ranks with batch_norm: local and batch_size only")
    events = training_events(config)
    ranks = sorted({int(part) for part in args.ranks.split(",")})
    uneven = [n for n in ranks if events % (n * batch)]
    if uneven:
        sys.exit(f"{config.data.path}: {events} training events are no multiple of {uneven[0]} x {batch}")
    every = points(
        ranks,
        args.rules.split(","),
        [float(w) for w in args.warmup.split(",")],
        [int(s) for s in args.seeds.split(",")],
    )
    args.out.mkdir(parents=True, exist_ok=True)
    jobs = [(args.out / point.folder, [*overrides, *point.overrides(batch)]) for point in every]
    train_all(args.config, jobs, lambda run: print(run.name, outcome(run, config.training.epochs), flush=True))
    found = [
        {**asdict(p), "label": p.label, "global_batch": batch * p.ranks, **outcome(args.out / p.folder, args.epochs)}
        for p in every
    ]
    write_table(args.out, "points", found)
    figure(found, batch, args.out / "large_batch.png")
    for label, group in itertools.groupby(
        sorted(found, key=lambda row: (str(row["label"]), row["ranks"])), lambda row: row["label"]
    ):
        for n, rows in itertools.groupby(group, lambda row: row["ranks"]):
            scores = [float(str(row["best"])) for row in rows if row["best"] is not None]
            spread = f" +- {stdev(scores) / len(scores) ** 0.5:.1f}" if len(scores) > 1 else ""
            print(f"{label:20} {n:4} ranks: {f'{mean(scores):.1f}{spread}' if scores else 'no score'}")


if __name__ == "__main__":
    main()
