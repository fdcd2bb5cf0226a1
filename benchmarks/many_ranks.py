"""Start-up, memory and messages against the number of ranks on this machine, and what many ranks survive.

    python benchmarks/many_ranks.py --ranks 1,2,4,8,16,32,64 --out runs/many-ranks [--backend mpi] [--data data/rpv]

A tiny network, so that 64 ranks share a few cores. For each number of ranks a training of a few epochs with the same
global batch: seconds from the command to the first step (and by phase), memory of all ranks (each page counted once:
PSS), MPI's messages by Open MPI's own monitoring (component pml/monitoring), of all ranks and of the busiest, at the
start and in a step. Then the largest number again: a rank is killed in the middle, the same command goes on, and the
last checkpoint has to have the bits of the one of the undisturbed training. With --engines, IPython engines as well:
seconds until a cluster of N is ready, and until a killed engine is named.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from hpcgan.chaos.verdict import different_bits
from hpcgan.errors import HpcganError
from hpcgan.runs import checkpoint
from hpcgan.runs.directory import RunDirectory

GLOBAL_BATCH = 64
CONFIG = "configs/rpv_reference.yaml"
TINY = [
    *("model.filters=1", "model.latent_dim=3", f"training.global_batch_size={GLOBAL_BATCH}"),
    *("scoring.every_epochs=0", "comm.timeout_s=1800"),
]
#: Epochs of two trainings, whose difference is steps alone.
EPOCHS = (2, 6)


def command(run: Path, ranks: int, epochs: int, args: argparse.Namespace) -> list[str]:
    """`hpcgan train` of the tiny network."""
    words = [CONFIG, *TINY, f"data.path={args.data}", f"training.epochs={epochs}", f"comm.backend={args.backend}"]
    return [sys.executable, "-m", "hpcgan", "train", *words, "--ranks", str(ranks), "--run", str(run)]


def records(run: Path, kind: str) -> list[dict[str, Any]]:
    """Of the run's metrics."""
    path = RunDirectory(run).metrics_file
    lines = path.read_text().splitlines() if path.exists() else []
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def ranks_of(run: Path) -> list[psutil.Process]:
    """The rank processes of a run, by its name on their command lines."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(run) in process.cmdline() and "OMPI_COMM_WORLD_RANK" in process.environ():
                processes.append(process)
    return processes


def memory_mb(run: Path) -> float:
    """PSS of all ranks together."""
    total = 0
    for process in ranks_of(run):
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total / 1e6


def messages(prefix: Path, ranks: int) -> tuple[int, int]:
    """All messages that ranks have sent each other, and those of the rank that has sent and received most."""
    of_rank = [0] * ranks
    total = 0
    for path in prefix.parent.glob(f"{prefix.name}.*.prof"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words and words[0] in ("E", "I"):  # a user's messages, and those of collectives
                source, target, count = int(words[1]), int(words[2]), int(words[5])
                total += count
                of_rank[source] += count
                of_rank[target] += count
    return total, max(of_rank)


def measure(ranks: int, args: argparse.Namespace) -> dict[str, Any]:
    """Start-up, memory and messages of this many ranks."""
    row: dict[str, Any] = {"ranks": ranks}
    sent, steps = [], []
    for epochs in EPOCHS:
        run, prefix = args.out / f"{ranks}-ranks-{epochs}", args.out / f"messages-{ranks}-{epochs}"
        env = {
            "OMPI_MCA_pml_monitoring_enable": "2",
            "OMPI_MCA_pml_monitoring_enable_output": "3",
            "OMPI_MCA_pml_monitoring_filename": str(prefix),
        }
        began = time.time()
        with subprocess.Popen(command(run, ranks, epochs, args), env={**os.environ, **env}) as process:
            while process.poll() is None and not records(run, "begun"):
                time.sleep(0.2)
            if epochs == EPOCHS[-1] and process.poll() is None:
                row["memory_mb"] = memory_mb(run)
        if process.returncode:
            sys.exit(f"{ranks} ranks ended with {process.returncode}")
        (begun,) = records(run, "begun")
        row["first_step_s"] = begun["time"] - began
        row["phases"] = begun["phases"]
        sent.append(messages(prefix, ranks))
        steps.append(records(run, "epoch")[-1]["step"])
    more = steps[1] - steps[0]
    row["step_messages"], row["step_messages_of_busiest"] = ((sent[1][i] - sent[0][i]) / more for i in (0, 1))
    row["start_messages"] = sent[0][0] - row["step_messages"] * steps[0]
    row["start_messages_of_busiest"] = sent[0][1] - row["step_messages_of_busiest"] * steps[0]
    return row


def survive(ranks: int, args: argparse.Namespace) -> dict[str, Any]:
    """Kill one of the ranks, go on by the same command, compare with what nothing has happened to."""
    run, whole = args.out / "killed", args.out / f"{ranks}-ranks-{EPOCHS[-1]}"
    with subprocess.Popen(command(run, ranks, EPOCHS[-1], args)) as process:
        while process.poll() is None and not records(run, "checkpoint"):
            time.sleep(0.05)
        victim = random.Random(1).choice(ranks_of(run))
        rank = victim.environ()["OMPI_COMM_WORLD_RANK"]
        victim.kill()
        killed = time.time()
    first = process.returncode
    ended = time.time() - killed
    at = checkpoint.newest_step(RunDirectory(run).checkpoints)
    subprocess.run(command(run, ranks, EPOCHS[-1], args), check=True)
    return {
        "ranks": ranks, "killed_rank": int(rank), "exit_code": first, "seconds_to_the_end_of_all": ended,
        "checkpoint_step": at, "last_step": checkpoint.newest_step(RunDirectory(run).checkpoints),
        "same_bits": not different_bits(run, whole),
    }  # fmt: skip


def engines(n: int) -> dict[str, Any]:
    """A cluster of n IPython engines: ready, one killed and named, all gone, ready again."""
    from hpcgan.interactive import Cluster

    row: dict[str, Any] = {"engines": n}
    for key in ("ready_s", "ready_again_s"):
        began = time.time()
        with Cluster.start("mpi", n, timeout=1800.0, report=lambda line: None) as cluster:
            row[key] = time.time() - began
            pids = [engine["pid"] for engine in cluster.ranks]
            if key == "ready_s":
                row["memory_mb"] = sum(psutil.Process(pid).memory_full_info().pss for pid in pids) / 1e6
                psutil.Process(pids[n // 2]).kill()
                killed = time.time()
                while cluster.cause() is None:
                    time.sleep(0.05)
                row["named_s"], row["said"] = time.time() - killed, cluster.cause()
        row["living_afterwards"] = sum(psutil.pid_exists(pid) for pid in pids)
    return row


def main() -> None:
    """Measure, print, and leave `many_ranks.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="1,2,4,8,16,32,64")
    parser.add_argument("--engines", default="", help="numbers of engines, by default none")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--data", type=Path, default=Path("data/rpv"))
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    args = parser.parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True)
    report: dict[str, Any] = {"backend": args.backend, "rows": [], "engines": []}

    def keep(kind: str, row: dict[str, Any]) -> None:
        print(json.dumps(row), flush=True)
        report[kind].append(row)
        (args.out / "many_ranks.json").write_text(json.dumps(report, indent=2) + "\n")

    numbers = [int(word) for word in args.ranks.split(",") if word]
    for ranks in numbers:
        keep("rows", measure(ranks, args))
    if numbers and numbers[-1] > 1:
        report["survived"] = survive(numbers[-1], args)
        print(json.dumps(report["survived"]), flush=True)
        (args.out / "many_ranks.json").write_text(json.dumps(report, indent=2) + "\n")
    for n in (int(word) for word in args.engines.split(",") if word):
        keep("engines", engines(n))


if __name__ == "__main__":
    try:
        main()
    except HpcganError as error:
        sys.exit(f"error: {error}")
