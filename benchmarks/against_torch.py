"""hpcgan on N ranks against the best that PyTorch does with the same step on the same cores, in pairs.

    python benchmarks/against_torch.py --torch-python /path/to/torch/python [--filters 16 64] [--repeats 5]

First every PyTorch set-up runs `--screen` times: one process with all threads, isolated processes of one thread
(no training: they share no gradients, the ceiling of any parallel one), and DDP over gloo; each in both layouts,
with `--compile` also compiled. Then, `--repeats` times, in alternating order: hpcgan, the fastest set-up that trains
one model, and the fastest ceiling. The batch is 64 a process, whatever their number. `torch_peer.py --check` shows
that the steps are the same. hpcgan reads, encodes and shuffles its data while it trains; the peer's are in memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from together import spread, text

from hpcgan import config as configuration
from hpcgan.launch.topology import available_cores
from hpcgan.scaling.measure import Resources, request_of_ranks
from hpcgan.scaling.summary import blocks
from hpcgan.system.files import write_atomic

HERE = Path(__file__).parent
STEPS = {16: (100, 20), 64: (20, 5)}  # and to warm up: ten to twenty seconds


@dataclass(frozen=True)
class SetUp:
    """How PyTorch uses the cores."""

    processes: int
    threads: int
    parallel: str
    layout: str
    compiled: bool

    @property
    def trains(self) -> bool:
        """Whether one model comes of it."""
        return self.processes == 1 or self.parallel == "ddp"

    def __str__(self) -> str:
        kind = {True: "", False: f" {self.parallel}"}[self.processes == 1]
        return f"{self.processes}{kind} x {self.threads} threads, {self.layout}{', compiled' if self.compiled else ''}"


def set_ups(cores: int, compiled: bool) -> list[SetUp]:
    """All that are tried on so many cores."""
    shapes = [(1, cores, "isolated"), (cores, 1, "isolated"), (cores, 1, "ddp")]
    return [
        SetUp(*shape, layout, whether)
        for whether in ((False, True) if compiled else (False,))
        for shape in (shapes if cores > 1 else shapes[:1])
        for layout in ("channels_last", "contiguous")
    ]


class Benchmark:
    """Both sides at one size of the networks."""

    def __init__(self, args: argparse.Namespace, filters: int) -> None:
        self._args, self._filters = args, filters
        overrides = [f"model.filters={filters}", f"training.batch_size={args.batch}", *args.overrides]
        self._config = configuration.load(args.config, overrides)
        self._steps, self._warm_up = STEPS.get(filters, STEPS[16 if filters < 48 else 64])
        self._steps = args.steps or self._steps

    def hpcgan(self) -> float:
        """Samples a second of the ranks."""
        request = {"kind": "steps", "overrides": [], "steps": self._steps, "warm_up": self._warm_up, "local": False}
        request.update(synthetic=False, processes=0)
        threads = max(1, available_cores() // self._args.ranks)
        with tempfile.TemporaryDirectory() as name:
            write_atomic(Path(name) / "config.yaml", self._config.to_yaml())
            measured = request_of_ranks(
                Path(name), request, self._args.ranks, "ranks", threads, Resources(), lambda line: None
            )
        return blocks({"comm": "auto", "ranks_measured": measured}).rate

    def torch(self, set_up: SetUp) -> float:
        """Samples a second of a set-up."""
        options = {
            "--filters": self._filters,
            "--latent-dim": self._config.model.latent_dim,
            "--batch": self._args.batch,
            "--threads": set_up.threads,
            "--layout": set_up.layout,
            "--processes": set_up.processes,
            "--parallel": set_up.parallel,
            "--data": self._config.data.path / "train.h5",
            "--steps": self._steps,
            "--warm-up": self._warm_up,
        }
        command = [self._args.torch_python, str(HERE / "torch_peer.py"), *(["--compile"] if set_up.compiled else [])]
        command += [str(word) for pair in options.items() for word in pair]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"PyTorch failed: {' '.join(command)}")
        return float(json.loads(done.stdout.splitlines()[-1])["samples_per_s"])

    def screen(self) -> dict[SetUp, list[float]]:
        """Every set-up, one round after the other, so that a slow minute does not meet one of them only."""
        found: dict[SetUp, list[float]] = {s: [] for s in set_ups(available_cores(), self._args.compile)}
        for _ in range(self._args.screen):
            for set_up, rates in found.items():
                rates.append(self.torch(set_up))
        for set_up, rates in found.items():
            print(f"f = {self._filters}: PyTorch {set_up}: {text(rates)} samples/s", flush=True)
        return found

    def run(self) -> dict[str, object]:
        """Screen, then the pairs; print as it goes."""
        screened = self.screen()
        best = {
            name: max(chosen, key=lambda s: max(screened[s]))
            for name, trains in (("training", True), ("ceiling", False))
            if (chosen := [s for s in screened if s.trains == trains])
        }
        sides = {"hpcgan": self.hpcgan, **{n: lambda s=s: self.torch(s) for n, s in best.items()}}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for i in range(self._args.repeats):
            for name in list(sides)[:: 1 if i % 2 == 0 else -1]:
                rates[name].append(sides[name]())
            said = ", ".join(f"{name} {values[-1]:.0f}" for name, values in rates.items())
            print(f"f = {self._filters}, pair {i + 1}: {said} samples/s", flush=True)
        result: dict[str, object] = {
            "filters": self._filters,
            "steps": self._steps,
            "screened": [{**asdict(s), "samples_per_s": values} for s, values in screened.items()],
            "hpcgan": {"ranks": self._args.ranks, "samples_per_s": rates["hpcgan"], **spread(rates["hpcgan"])},
        }
        print(f"f = {self._filters}: hpcgan, {self._args.ranks} ranks: {text(rates['hpcgan'])} samples/s")
        for name, set_up in best.items():
            ratios = [a / b for a, b in zip(rates["hpcgan"], rates[name], strict=True)]
            result[f"torch_{name}"] = {**asdict(set_up), "samples_per_s": rates[name], **spread(rates[name])}
            result[f"ratio_to_{name}"] = {"pairs": ratios, **spread(ratios)}
            print(
                f"f = {self._filters}: PyTorch, best {name} ({set_up}): {text(rates[name])} samples/s; "
                f"hpcgan / PyTorch {text(ratios, '.2f')}",
                flush=True,
            )
        return result


def main() -> None:
    """Measure and print; write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--torch-python", required=True, help="interpreter with torch, numpy and h5py")
    parser.add_argument("--config", type=Path, default=Path("configs/rpv_reference.yaml"))
    parser.add_argument("--filters", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--batch", type=int, default=64, help="samples a rank, or process, and step")
    parser.add_argument("--ranks", type=int, default=available_cores())
    parser.add_argument("--repeats", type=int, default=5, help="pairs")
    parser.add_argument("--screen", type=int, default=2, help="rounds over all set-ups of PyTorch")
    parser.add_argument("--steps", type=int, help="timed in each run (default: 100, or 20 of wide networks)")
    parser.add_argument("--compile", action="store_true", help="try torch.compile, too")
    parser.add_argument("--out", type=Path, default=Path("against_torch.json"))
    args = parser.parse_intermixed_args()
    results = [Benchmark(args, filters).run() for filters in args.filters]
    where = {"machine": platform.machine(), "cores": available_cores(), "batch": args.batch, "config": str(args.config)}
    args.out.write_text(json.dumps({**where, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
