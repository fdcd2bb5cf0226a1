"""`python -m hpcgan.launch.rank_shim counting --run DIR`: a training without TensorFlow, for campaigns of seconds.

It holds the lease, writes records and checkpoints and goes on from the newest intact one, as a training does; its
weights are a hash chain over the steps. `COUNTING_FAULT` makes it break a promise: `forgets` (the weights depend on
where it went on), `skips` (an epoch is not recorded), `litters` (a file is left), `gives up` (it ends by itself).
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from hpcgan.runs import checkpoint, records
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import Lease

EPOCHS, STEPS, STEP_S = 20, 5, 0.02


def step(weights: np.ndarray, number: int) -> np.ndarray:
    digest = hashlib.sha256(weights.tobytes() + number.to_bytes(8, "big")).digest()
    return np.frombuffer(digest, np.uint8).astype(np.float32)


def main() -> None:
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    run, fault = RunDirectory(Path(sys.argv[sys.argv.index("--run") + 1])), os.environ.get("COUNTING_FAULT", "")
    for folder in (run.path, run.checkpoints, run.attempts):
        folder.mkdir(parents=True, exist_ok=True)
    run.config_file.write_text("training: {epochs: 20}\n")
    before = checkpoint.load_latest(run.checkpoints, print)
    weights, done = (np.zeros(32, np.float32), 0) if before is None else (before.arrays["w"], before.step)
    if fault == "forgets" and before is not None:
        weights = weights + np.float32(1)
    lease = Lease(run)
    writer = records.Writer(run.metrics_file, lease.attempt)
    records.append(run.provenance_file, {"attempt": lease.attempt, "step": done, "born": time.time(), "cores": 1})
    writer.write(records.Start(step=done, samples=done))
    outcome: records.Outcome = "done"
    number = done  # a process that was killed after its last step has nothing left to do
    for number in range(done + 1, EPOCHS * STEPS + 1):
        time.sleep(STEP_S)
        weights = step(weights, number)
        if number == done + 1:
            writer.write(records.Begun(step=number, startup_s=0.1))
        writer.write(records.Step(step=number, samples=number, epoch=number / STEPS))
        if number % STEPS == 0:
            epoch = number // STEPS
            if fault != "skips" or epoch != 7:
                writer.write(records.Epoch(step=number, epoch=epoch, samples=number, losses={"d": float(weights[0])}))
            lease.check()
            writer.sync()
            checkpoint.save(run.checkpoints, number, {"w": weights}, {"step": number}, None)
            checkpoint.prune(run.checkpoints, 2, None)
        if fault == "gives up" and number % STEPS == 3:
            os._exit(1)
        if asked:
            outcome = "interrupted"
            checkpoint.save(run.checkpoints, number, {"w": weights}, {"step": number}, None)
            break
    if fault == "litters":
        (run.path / "litter").write_text("")
    writer.write(records.End(step=number, outcome=outcome))
    writer.close()
    lease.release(outcome)
    sys.exit(0 if outcome == "done" else 75)


if __name__ == "__main__":
    main()
