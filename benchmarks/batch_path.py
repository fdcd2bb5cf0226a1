"""What one batch passes: the functions of hpcgan that Python enters, in which files, and how often.

    python benchmarks/batch_path.py --data data/rpv --ranks 2 [--tree DIR] [--list] [--out FILE.json]

A short training of `configs/rpv_gan.yaml` in which `sys.setprofile` counts on rank 0, on all threads. Three numbers:

- *steady*: functions entered from one step to the next, once everything is compiled;
- *traced*: functions entered in the first steps that later batches pass as compiled graphs, not as Python;
- *assembly*: functions entered before the first step, imports excluded.

Comprehensions are no functions. Layers of networks are counted apart. `--tree` is another checkout, to compare.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

CONFIG = "configs/rpv_gan.yaml"
STEPS_AN_EPOCH = 11  # 180 events in batches of 16 over all ranks
STEADY = range(STEPS_AN_EPOCH + 2, 2 * STEPS_AN_EPOCH - 2)  # in the second epoch, away from its ends
TRACED = range(2)  # one with a penalty, one without
Place = tuple[str, str]  # file, function


class Tracer:
    """Counts the functions of hpcgan that are entered, step by step. Step -1 is all that comes before the first."""

    def __init__(self, tree: Path) -> None:
        self._root = str(tree / "hpcgan") + os.sep
        self.step = -1
        self.entered: dict[int, Counter[Place]] = {-1: Counter()}

    def __call__(self, frame, event, argument) -> None:
        if event != "call":
            return
        code = frame.f_code
        if not code.co_filename.startswith(self._root):
            return
        if code.co_name == "beat" and str(frame.f_locals.get("activity", "")).startswith("step "):
            self.step = int(frame.f_locals["activity"].removeprefix("step "))
            self.entered.setdefault(self.step, Counter())
        name = getattr(code, "co_qualname", code.co_name)
        if code.co_name.startswith("<") and code.co_name != "<lambda>":
            return
        if code.co_name == "<lambda>" or name == code.co_name:
            name = f"{name}:{code.co_firstlineno}"
        self.entered[self.step][code.co_filename.removeprefix(self._root), name] += 1


def is_layer(place: Place) -> bool:
    """Whether a function is of a network: models/ of old, networks.py of a problem and networks/ now."""
    return "networks" in place[0] or place[0].startswith("models/") or place[0].endswith("detector_images/pixels.py")


def count(tracer: Tracer) -> dict[str, object]:
    """The numbers of one rank."""
    entered = tracer.entered
    steady_steps = [entered[step] for step in STEADY if step in entered]
    usual = {place for place in set().union(*steady_steps) if sum(place in c for c in steady_steps) > 1}
    traced = set().union(*(entered[step] for step in TRACED)) | usual
    body = {place for place in traced if not is_layer(place)}
    assembly = set(entered[-1])
    return {
        "steady": {
            "functions": len(usual),
            "files": len({file for file, _ in usual}),
            "calls": statistics.median(sum(c.values()) for c in steady_steps),
        },
        "traced_and_steady": {
            "functions": len(body),
            "files": len({file for file, _ in body}),
            "layers": len(traced) - len(body),
        },
        "assembly": {"functions": len(assembly), "files": len({file for file, _ in assembly})},
        "places": {"steady": sorted(usual), "traced_and_steady": sorted(body)},
    }


def work(tree: Path, data: Path, run: Path, out: Path) -> None:
    """As one rank: train, counting."""
    tracer = Tracer(tree)
    size = int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1"))
    sys.argv = ["hpcgan", "train", str(tree / CONFIG), f"data.path={data}", "training.epochs=2", "--run", str(run)]
    sys.argv += [f"training.batch_size={16 // size}", "scoring.events=40"]
    threading.setprofile(tracer)
    sys.setprofile(tracer)
    try:
        runpy.run_module("hpcgan", run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    if os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "0":
        out.write_text(json.dumps(count(tracer)))


def main() -> None:
    """Start the ranks and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of at least 180 training events")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--tree", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--list", action="store_true", help="print the functions, too")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--worker", type=Path, nargs=2, metavar=("RUN", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    tree, data = args.tree.resolve(), args.data.resolve()
    if args.worker:
        work(tree, data, *args.worker)
        return
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        argv = [sys.executable, __file__, "--data", str(data), "--tree", str(tree)]
        argv += ["--worker", str(Path(folder) / "run"), str(result)]
        if args.ranks > 1:
            mpirun = str(Path(sys.executable).with_name("mpirun"))
            argv = [mpirun, "-np", str(args.ranks), "--oversubscribe", "--allow-run-as-root", *argv]
        subprocess.run(argv, check=True, env={**os.environ, "PYTHONPATH": str(tree)}, stdout=subprocess.DEVNULL)
        numbers = json.loads(result.read_text())
    places = numbers["places"] if args.out else numbers.pop("places")
    if args.out:
        args.out.write_text(json.dumps({"ranks": args.ranks, **numbers}, indent=1) + "\n")
        numbers.pop("places")
    for name, values in numbers.items():
        print(f"{name}: " + ", ".join(f"{value:g} {key}" for key, value in values.items()))
    for name, functions in places.items() if args.list else ():
        print(f"\n{name}:", *(f"  {file} {function}" for file, function in functions), sep="\n")


if __name__ == "__main__":
    main()
