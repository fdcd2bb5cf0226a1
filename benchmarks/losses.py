"""Every loss on one recipe at equal compute: what a step of each costs, then trainings of so many minutes.

    python benchmarks/losses.py configs/rpv_gan.yaml --out runs/losses --minutes 15 [key=value]

Equal compute is equal time of training steps on one core of a quiet machine: first some steps of every loss are timed
in turn, then each is trained for as many whole epochs as fit, at least two. Learning rates fall over a training's own
length, as the recipe's do. Scoring is not counted. Each best state is then scored on test events (`hpcgan evaluate`).
The same command goes on where it was interrupted. It writes `losses.csv`, `losses.json` and `losses.png`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from trainings import outcome, train_all, training_events, write_table

from hpcgan import config as configuration
from hpcgan.report import plots
from hpcgan.runs import records
from hpcgan.system.files import write_atomic

CRITIC = ("training.loss=wgan_gp", "model.minibatch_stddev=false", "training.r1.weight=0")
PUBLISHED = [  # Gulrajani et al. 2017, algorithm 1
    f"training.{network}.{setting}"
    for network in ("generator", "discriminator")
    for setting in ("learning_rate=1.0e-4", "beta1=0.0", "beta2=0.9")
]
VARIANTS: dict[str, tuple[str, ...]] = {
    "bce": (),
    "hinge": ("training.loss=hinge",),
    "hinge-spectral": ("training.loss=hinge", "model.discriminator_normalisation=spectral"),
    "least_squares": ("training.loss=least_squares",),
    "wgan_gp-2": (*CRITIC, "training.critic_steps=2"),
    "wgan_gp-5-published": (*CRITIC, "training.critic_steps=5", *PUBLISHED),
}
ROUNDS, STEPS = 3, 80


def seconds_of_a_step(config: Path, overrides: Sequence[str], core: int) -> float:
    """Median over blocks of steps, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        request = {"kind": "steps", "config": str(config), "overrides": list(overrides), "folder": folder}
        request |= {"steps": STEPS, "warm_up": 20, "synthetic": True, "processes": 1}
        path = Path(folder) / "request.json"
        path.write_text(json.dumps(request), encoding="utf-8")
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = ["taskset", "-c", str(core), sys.executable, "-m", "hpcgan.training.timing", str(path)]
        subprocess.run(command, env=env, check=True)
        (found,) = json.loads((Path(folder) / "0.json").read_text(encoding="utf-8"))
        return statistics.median(block["seconds"] / found["block_steps"] for block in found["blocks"]["real"])


def costs(config: Path, overrides: Sequence[str], out: Path) -> dict[str, float]:
    """Seconds a step of each variant, timed once and kept: the lengths of the trainings follow from them."""
    kept = out / "seconds_of_a_step.json"
    if kept.exists():
        found: dict[str, list[float]] = json.loads(kept.read_text(encoding="utf-8"))
    else:
        core = min(os.sched_getaffinity(0))
        found = {name: [] for name in VARIANTS}
        for _ in range(ROUNDS):  # in turn, so that whatever else the machine does meets all alike
            for name, changes in VARIANTS.items():
                found[name].append(seconds_of_a_step(config, [*overrides, *changes], core))
                print(f"{name:22} {1000 * found[name][-1]:7.1f} ms a step", flush=True)
        write_atomic(kept, json.dumps(found, indent=1).encode())
    return {name: statistics.median(times) for name, times in found.items()}


def evaluate(run: Path) -> dict[str, Any]:
    """Score of the best state on test events, with its spread and the null band."""
    done = run / "report" / "report.json"
    if not done.exists():
        with open(run.with_suffix(".log"), "ab") as log:
            subprocess.run([sys.executable, "-m", "hpcgan", "evaluate", str(run)], stdout=log, stderr=log, check=True)
    report = json.loads(done.read_text(encoding="utf-8"))
    score, band = report["score"], report["band"]
    return {"test": score["mean"], "test_spread": score["std"], "n": score["n"]} | {
        f"null_{level}": band[level] for level in ("median", "p95", "n")
    }


def figure(runs: Mapping[str, Path], step_s: Mapping[str, float], band: float, out: Path) -> None:
    """Validation score of every epoch against the minutes of training before it."""
    curves = {
        name: [r for r in records.read(run / "metrics.jsonl", records.Epoch) if r.total is not None]
        for name, run in runs.items()
    }
    minutes = {name: [r.step * step_s[name] / 60 for r in rows] for name, rows in curves.items()}
    grid = np.array(sorted({at for times in minutes.values() for at in times}))
    lines: dict[str, list[float | None]] = {}
    for name, rows in curves.items():
        score = {at: r.total for at, r in zip(minutes[name], rows, strict=True)}
        lines[name] = [score.get(at) for at in grid]
    made = plots.curves(
        grid,
        lines,
        "Minutes of training steps on one core",
        "Score on validation events (lower is better)",
        log_y=True,
        levels={"real against real, 95% below": band},
    )
    write_atomic(out, plots.png(made))


def main() -> None:
    """Time, train, evaluate what is missing; then write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15.0, help="of training steps on one core, each")
    args = parser.parse_intermixed_args()
    config = configuration.load(args.config, args.overrides)
    args.out.mkdir(parents=True, exist_ok=True)
    step_s = costs(args.config, args.overrides, args.out)
    steps = training_events(config) // config.training.batch_size
    epochs = {name: max(2, int(60 * args.minutes / (steps * step_s[name]))) for name in VARIANTS}
    decay = config.training.schedule.decay_start / config.training.epochs
    runs = {name: args.out / name for name in VARIANTS}
    jobs = [
        (
            runs[name],
            [
                *args.overrides,
                *changes,
                f"training.epochs={epochs[name]}",
                f"training.schedule.decay_start={decay * epochs[name]:g}",
            ],
        )
        for name, changes in VARIANTS.items()
    ]
    train_all(args.config, jobs, lambda run: print(run.name, outcome(run, epochs[run.name]), flush=True))
    found = []
    for name, run in runs.items():
        row: dict[str, Any] = {"loss": name, "ms_a_step": 1000 * step_s[name], "epochs": epochs[name]}
        row |= outcome(run, epochs[name])
        if row["best"] is not None:
            row |= evaluate(run)
        found.append(row)
    write_table(args.out, "losses", found)
    figure(runs, step_s, next(row["null_p95"] for row in found if "null_p95" in row), args.out / "losses.png")
    for row in found:
        print(row)


if __name__ == "__main__":
    main()
