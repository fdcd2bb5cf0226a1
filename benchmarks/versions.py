"""Step times of configurations on several TensorFlows (environments), one rank and more, in interleaved rounds.

    python benchmarks/versions.py .venvs/tf2.15.1/bin/python .venvs/tf2.21.0/bin/python [--torch PYTHON] [--rounds 5]

Round by round every environment measures the same, in the order A B, then B A, so that a slow minute meets all of them.
The table has the median step of each, and the rate over that of the first in the same round: median and quartiles.
With `--torch` the best set-up of PyTorch that trains one model (`against_torch.py`) is one of the environments, for
configurations of the reference DCGAN on all cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import against_torch
from together import spread

from hpcgan import config as configuration
from hpcgan.launch.topology import available_cores
from hpcgan.scaling.measure import Resources, request_of_ranks
from hpcgan.scaling.summary import blocks
from hpcgan.system.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
#: Of the published problems, with steps to time and to warm up: ten to twenty seconds.
CONFIGURATIONS = {
    "configs/rpv_gan.yaml": (48, 8),
    "configs/rpv_reference.yaml model.filters=16": (100, 20),
    "configs/rpv_reference.yaml model.filters=64": (20, 5),
    "configs/calogan.yaml": (40, 8),
    "configs/cosmo.yaml training.batch_size=4": (12, 4),
}


def measure(request: dict[str, object]) -> dict[str, float]:
    """Samples a second and milliseconds a step of this environment's ranks."""
    path, *overrides = shlex.split(str(request["configuration"]))
    ranks = int(str(request["ranks"]))
    steps = {"kind": "steps", "overrides": [], "local": False, "processes": 0}
    steps |= {name: request[name] for name in ("steps", "warm_up", "synthetic")}
    threads = max(1, available_cores() // ranks)
    with tempfile.TemporaryDirectory() as name:
        write_atomic(Path(name) / "config.yaml", configuration.load(ROOT / path, overrides).to_yaml())
        measured = request_of_ranks(Path(name), steps, ranks, "ranks", threads, Resources(), lambda line: None)
    times = blocks({"comm": "auto", "ranks_measured": measured})
    return {"rate": times.rate, "step_ms": 1e3 * times.batch_size * ranks / times.rate}


def measure_with(python: str, request: dict[str, object]) -> dict[str, float]:
    """The same in another environment."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [python, __file__, "--measure", json.dumps(request)]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"failed: {shlex.join(command)}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def version(python: str) -> str:
    """Of TensorFlow, in an environment."""
    code = "from importlib.metadata import packages_distributions as of, version; print(version(of()['tensorflow'][0]))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{python}: no TensorFlow: {done.stderr.strip().splitlines()[-1]}")
    return f"TensorFlow {done.stdout.strip()}"


def torch_side(args: argparse.Namespace, configuration_: str, ranks: int) -> Callable[[], dict[str, float]] | None:
    """What measures PyTorch's best training set-up, found first; None where it has nothing to set against."""
    path, *overrides = shlex.split(configuration_)
    filters = [word.partition("=")[2] for word in overrides if word.startswith("model.filters=")]
    if args.torch is None or ranks != available_cores() or Path(path).name != "rpv_reference.yaml" or not filters:
        return None
    asked = argparse.Namespace(
        torch_python=args.torch, config=ROOT / path, overrides=[], batch=64, ranks=ranks, repeats=args.rounds,
        screen=args.screen, steps=args.steps, compile=False,
    )  # fmt: skip
    benchmark = against_torch.Benchmark(asked, int(filters[0]))
    screened = benchmark.screen()
    best = max((set_up for set_up in screened if set_up.trains), key=lambda set_up: max(screened[set_up]))

    def measured() -> dict[str, float]:
        rate = benchmark.torch(best)
        return {"rate": rate, "step_ms": 1e3 * asked.batch * best.processes / rate}

    return measured


def compare(args: argparse.Namespace, configuration_: str, ranks: int) -> dict[str, list[dict[str, float]]]:
    """All rounds of one configuration, by environment."""
    steps, warm_up = CONFIGURATIONS.get(configuration_, (40, 8))
    request = {
        "configuration": configuration_, "ranks": ranks, "steps": args.steps or steps,
        "warm_up": args.warm_up or warm_up, "synthetic": not args.data,
    }  # fmt: skip
    sides: dict[str, Callable[[], dict[str, float]]] = {
        version(python): lambda python=python: measure_with(python, request) for python in args.pythons
    }
    if (peer := torch_side(args, configuration_, ranks)) is not None:
        sides["PyTorch"] = peer
    results: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for number in range(args.rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            results[name].append(sides[name]())
        rates = ", ".join(f"{name} {values[-1]['rate']:.0f}" for name, values in results.items())
        print(f"{configuration_}, {ranks} ranks, round {number + 1}: {rates} samples/s", file=sys.stderr, flush=True)
    return results


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def rows(configuration_: str, ranks: int, results: dict[str, list[dict[str, float]]]) -> list[str]:
    """Lines of the table."""
    first = next(iter(results.values()))
    lines = []
    for name, rounds in results.items():
        step = spread([each["step_ms"] for each in rounds])["median"]
        rate = spread([each["rate"] for each in rounds])["median"]
        low, middle, high = quartiles([a["rate"] / b["rate"] for a, b in zip(rounds, first, strict=True)])
        ratio = "1" if rounds is first else f"{middle:.3f} ({low:.3f} to {high:.3f})"
        lines.append(f"| {configuration_} | {ranks} | {name} | {step:.1f} | {rate:.0f} | {ratio} |")
    return lines


def main() -> None:
    """Measure, and print the table; write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="of the environments; the first is the reference")
    parser.add_argument("--config", action="append", metavar="'FILE KEY=VALUE ...'", help="again for more of them")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="timed in each run, for all configurations")
    parser.add_argument("--warm-up", type=int, help="steps before those")
    parser.add_argument("--data", action="store_true", help="read the data of the configurations, not random ones")
    parser.add_argument("--torch", metavar="PYTHON", help="with torch: beside the reference DCGAN")
    parser.add_argument("--screen", type=int, default=2, help="rounds over all set-ups of PyTorch")
    parser.add_argument("--out", type=Path, default=Path("versions.json"))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(json.loads(args.measure))))
        return
    if not args.pythons:
        parser.error("name the Python of at least one environment")
    table = [
        "| configuration | ranks | with | step, ms | samples/s | rate over the first: median (quartiles) |",
        "|---|---|---|---|---|---|",
    ]
    kept = []
    for configuration_ in args.config or CONFIGURATIONS:
        for ranks in args.ranks:
            results = compare(args, configuration_, ranks)
            table += rows(configuration_, ranks, results)
            kept.append({"configuration": configuration_, "ranks": ranks, "results": results})
            args.out.write_text(json.dumps(kept, indent=1) + "\n")
    print("\n".join(table))


if __name__ == "__main__":
    main()
