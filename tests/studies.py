"""Scaling studies whose times are made up."""

from __future__ import annotations

import tiny

from hpcgan.scaling.measure import Setting, Study

SETTING = Setting(identity="abc", mode="weak", batch=4, steps=20, warm_up=2, synthetic=True, threads=1, cores=2)


def rank(number, real, local, *, wait=0.001, node="a", batch=4, every=0, backend="horovod"):
    """What a rank reports: `real` and `local` are (blocks, steps) of seconds; every step waits `wait`."""
    made = {
        kind: [
            {"seconds": sum(steps) + len(steps) * wait, "wait_s": [wait] * len(steps), "step_s": list(steps)}
            for steps in times
        ]
        for kind, times in (("real", real), ("local", local))
    }
    return {
        "rank": number, "node": node, "threads": 1, "backend": backend, "batch_size": batch,
        "block_steps": len(real[0]), "penalty_every": every, "first_step": 2, "finite": True, "hpcgan": "0",
        "payload_bytes": {"generator": 1000, "discriminator": 2000},
        "parameters": {"generator": 250, "discriminator": 500}, "blocks": made,
    }  # fmt: skip


def result(ranks, comm="horovod", repeat=0, **kinds):
    return {"ranks": ranks, "comm": comm, "repeat": repeat, "nodes": 1, "ranks_measured": kinds["measured"]}


def study_in(folder, config=None, setting=SETTING):
    made = Study(folder)
    made.prepare(config or tiny.config(folder / "absent"), setting)
    return made
