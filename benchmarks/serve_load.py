"""Load on a service: throughput against offline generation, latencies, memory; `--faults`: with clients that misbehave.

    python benchmarks/serve_load.py pretrained:rpv --seconds 600 --out DIR
    python benchmarks/serve_load.py pretrained:rpv --clients 16 --seconds 60 --faults --out DIR

Each number of clients gets the same share of the seconds. A client asks for 1 to `--most` events (sizes even in their
logarithm), waits for the answer, and asks again. Clients and service share the machine's cores over loopback, offline
generation has the cores for itself: full batches in one process, before the service starts and after it has ended. DIR
gets `serve_load.json`: events/s, the ratio to offline, and p50, p95, p99 of all requests and by size.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from hpcgan.serve.client import ServiceError
from hpcgan.serve.load import ask_together
from hpcgan.serve.local import LocalService
from hpcgan.system.files import write_atomic

OFFLINE = """
import sys, time
from pathlib import Path
from hpcgan.system.console import quiet_tensorflow
quiet_tensorflow()
from hpcgan.evaluation.conditions import each, of_points, parse
from hpcgan.evaluation.sampling import load_sampler
run, seconds, point = sys.argv[1], float(sys.argv[2]), sys.argv[3]
sampler = load_sampler(Path(run), statistics="moving")
asked = each(of_points(sampler.problem, [parse(point)])) if point else None
size = sampler.batch_size
sampler.sample(size, 1, conditions=asked)
began, n = time.monotonic(), 0
while (elapsed := time.monotonic() - began) < seconds:
    sampler.sample(16 * size, 1, n, conditions=asked)
    n += 16 * size
print(n / elapsed)
"""
CLASSES = ((1, 1), (2, 16), (17, 256), (257, 10**9))
"""Sizes of requests that are looked at together, events."""


def offline(run: str, seconds: float, point: str) -> float:
    """Events a second of full batches in one process."""
    command = [sys.executable, "-c", OFFLINE, run, str(seconds), point]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def memory_mib(pid: int) -> dict[str, float]:
    """Resident memory of a service's process and of its workers together."""
    tasks = Path(f"/proc/{pid}/task")
    children = {child for task in tasks.iterdir() for child in (task / "children").read_text().split()}
    return {"service": _resident(str(pid)), "workers": sum(map(_resident, children))}


def _resident(pid: str) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return float(line.split()[1]) / 1024
    return 0.0


def load(
    service: LocalService, clients: int, seconds: float, most: int, conditions: dict[str, float]
) -> dict[str, Any]:
    """Have clients ask for some time, and say what they got."""

    def size(client: int, request: int) -> int:
        return round(most ** random.Random(f"{client}/{request}").random())

    began = time.monotonic()
    memory = []
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask_together, service.client, "load", clients, seconds, size, **conditions)
        while not asking.done():
            memory.append(memory_mib(service.pid))
            time.sleep(min(1.0, seconds / 20))
        answers = asking.result()
    elapsed = time.monotonic() - began
    got = [answer for answer in answers if not answer.failure]
    sizes, times = np.array([answer.events for answer in got]), np.array([answer.seconds for answer in got])
    tenth = max(1, len(memory) // 10)
    return {
        "clients": clients,
        "seconds": elapsed,
        "requests": len(got),
        "events_per_s": float(sizes.sum() / elapsed),
        "all": percentiles(times),
        "by_size": {
            f"{low} to {high}" if high < 10**9 else f"{low} and more": percentiles(
                times[(sizes >= low) & (sizes <= high)]
            )
            for low, high in CLASSES
        },
        "failures": dict(Counter(answer.failure for answer in answers if answer.failure)),
        "memory_mib": {
            name: {
                "first_tenth": float(np.mean([m[name] for m in memory[:tenth]])),
                "last_tenth": float(np.mean([m[name] for m in memory[-tenth:]])),
                "most": max(m[name] for m in memory),
            }
            for name in ("service", "workers")
        },
    }


def percentiles(times: np.ndarray) -> dict[str, float] | None:
    """p50, p95 and p99 in ms."""
    if not len(times):
        return None
    return {f"p{q}": float(1e3 * np.percentile(times, q)) for q in (50, 95, 99)}


@contextlib.contextmanager
def misbehaving(service: LocalService, most: int, conditions: dict[str, float]) -> Iterator[dict[str, int]]:
    """Clients that leave in the middle, send garbage, or ask for too much, during a block; what they were answered."""
    parts = urlsplit(service.url)
    seen: dict[str, int] = {}
    stop = threading.Event()

    def count(what: str) -> None:
        seen[what] = seen.get(what, 0) + 1

    def leave() -> None:
        inputs = [("seed", "INT64", 1), ("events", "INT64", most), *((k, "FP32", v) for k, v in conditions.items())]
        tensors = [{"name": n, "datatype": t, "shape": [1], "data": [v]} for n, t, v in inputs]
        body = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
        with socket.create_connection((parts.hostname or "", parts.port or 80)) as connection:
            head = f"POST /v2/models/load/infer HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {service.token}\r\n"
            head += f"Content-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            time.sleep(random.random() * 0.2)
        count("left in the middle")

    def garbage() -> None:
        with socket.create_connection((parts.hostname or "", parts.port or 80)) as connection:
            connection.sendall(os.urandom(2000) + b"\r\n\r\n")
            connection.settimeout(5)
            count(f"garbage: {connection.recv(100)[9:12].decode(errors='replace') or 'closed'}")

    def too_much() -> None:
        with contextlib.suppress(OSError):
            try:
                service.client().generate("load", seed=1, events=10**9, **conditions)
            except ServiceError as error:
                count(f"too many events: {error.status}")

    def go() -> None:
        while not stop.is_set():
            for act in (leave, garbage, too_much):
                with contextlib.suppress(OSError):
                    act()
            stop.wait(0.1)

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run directory or pretrained:NAME")
    parser.add_argument("--clients", default="1,4,16,64", help="numbers of clients (default: 1,4,16,64)")
    parser.add_argument("--seconds", type=float, default=600.0, help="of all of them together (default: 600)")
    parser.add_argument("--offline-seconds", type=float, default=15.0, help="each time (default: 15)")
    parser.add_argument("--most", type=int, default=1024, help="events of a request (default: 1024)")
    parser.add_argument("--condition", default="", help="of all events, e.g. mGlu=1600,mNeu=850")
    parser.add_argument("--serve", default="", help="options of hpcgan serve, in one word")
    parser.add_argument("--faults", action="store_true", help="with clients that misbehave beside the others")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    conditions = {name: float(value) for name, value in (part.split("=") for part in args.condition.split(",") if part)}
    numbers = [int(word) for word in args.clients.split(",")]
    args.out.mkdir(parents=True, exist_ok=True)
    rates = [offline(args.run, args.offline_seconds, args.condition)]
    rows = []
    service = LocalService(f"load={args.run}", options=args.serve.split())
    try:
        service.client().generate("load", seed=0, events=1, **conditions)
        for clients in numbers:
            with contextlib.ExitStack() as stack:
                misbehaved: dict[str, int] = {}
                if args.faults:
                    misbehaved = stack.enter_context(misbehaving(service, args.most, conditions))
                rows.append(load(service, clients, args.seconds / len(numbers), args.most, conditions))
            rows[-1]["misbehaving"] = misbehaved
    finally:
        code = service.close()
    rates.append(offline(args.run, args.offline_seconds, args.condition))
    reference = float(np.mean(rates))
    print(f"offline: {rates[0]:.0f} and {rates[1]:.0f} events/s; the service ended with exit code {code}")
    print(
        "clients  events/s  of offline  p50 ms  p95 ms  p99 ms  failures  service MiB (first, last tenth)  workers MiB"
    )
    for row in rows:
        row["of_offline"] = row["events_per_s"] / reference
        times, memory = row["all"] or {"p50": np.nan, "p95": np.nan, "p99": np.nan}, row["memory_mib"]
        ends = [
            f"{memory[name]['first_tenth']:.0f} {memory[name]['last_tenth']:.0f}" for name in ("service", "workers")
        ]
        print(
            f"{row['clients']:7} {row['events_per_s']:9.0f} {row['of_offline']:11.2f} {times['p50']:7.0f} "
            f"{times['p95']:7.0f} {times['p99']:7.0f}  {row['failures'] or '-'}  {ends[0]:>32} {ends[1]:>12}"
        )
        if row["misbehaving"]:
            print(f"        misbehaving: {row['misbehaving']}")
    content = {"run": args.run, "offline_events_per_s": rates, "exit_code": code, "rows": rows, "options": args.serve}
    write_atomic(args.out / "serve_load.json", json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
