"""Studies whose trials were never trained: directories as a sweep leaves them, with made-up scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tiny

from hpcgan.runs import records
from hpcgan.runs.directory import RunDirectory
from hpcgan.sweep.store import Assignment, Description, Result, StudyDirectory
from hpcgan.system.liveness import Identity

SPACE = {
    "training.generator.learning_rate": {"log_uniform": [1e-5, 1e-2]},
    "model.filters": {"choice": [2, 4, 8]},
    "training.label_flip": {"uniform": [0.0, 0.2]},
}
EPOCH_S = 5.0  # 60 samples at 15 a second, and a second of scoring


def study_in(folder: Path, space: Mapping[str, Any] = SPACE, **changed: Any) -> StudyDirectory:
    """An empty study of `tiny`'s training."""
    study = StudyDirectory(folder)
    study.trials.mkdir(parents=True)
    config = tiny.config(folder / "absent")
    study.config_file.write_text(config.to_yaml())
    given = {"name": "tiny sweep", "seed": 1, "sampler": "random", "pruner": "none", **changed}
    study.write_description(Description(space=dict(space), identity=config.identity_hash(), **given))
    return study


def params(number: int) -> dict[str, Any]:
    """Parameters of a trial in `SPACE`."""
    rate, flip = 10 ** (-5 + 3 * (number * 0.618034 % 1)), 0.2 * (number * 0.754878 % 1)
    return {
        "training.generator.learning_rate": rate,
        "model.filters": (2, 4, 8)[number % 3],
        "training.label_flip": flip,
    }


def epochs(run: RunDirectory, scores: Sequence[float | None], attempt: int = 1, first: int = 1) -> None:
    """Records of an attempt that trains these epochs, as the training loop writes them."""
    writer = records.Writer(run.metrics_file, attempt)
    writer.write(records.Start(step=15 * (first - 1), ranks=1, samples=60 * (first - 1)))
    best: records.Best | None = None
    for epoch, score in enumerate(scores, start=first):
        writer.write(
            records.Step(step=15 * epoch - 1, samples=60 * epoch - 4, epoch=epoch - 0.07, metrics={"stop": 0.0})
        )
        total = None
        if score is not None:
            total = records.EpochScore(score, {"jet_multiplicity": score / 2, "jet_pt": score / 2}, 20)
        is_best = score is not None and (best is None or score < best.score)
        best = records.Best(score, epoch, 15 * epoch) if is_best and score is not None else best
        writer.write(
            records.Epoch(
                step=15 * epoch, epoch=epoch, samples=60 * epoch,
                losses={"discriminator": 1.2, "generator": 0.9}, probabilities={"real": 0.6, "fake": 0.4},
                score=total, is_best=is_best, best=best, learning_rates={"generator": 2e-4, "discriminator": 1e-4},
                samples_per_second=15.0, scoring_seconds=1.0,
            )
        )  # fmt: skip
    writer.close()


def begin(
    study: StudyDirectory,
    number: int,
    values: Mapping[str, Any] | None = None,
    *,
    repeat_of: int | None = None,
    scores: Sequence[float | None] = (),
    wanted: int = 4,
) -> RunDirectory:
    """A trial that was handed out, and has trained some epochs if there are scores."""
    run = study.trial(number)
    values = params(number) if values is None else values
    overrides = [f"{key}={json.dumps(value)}" for key, value in values.items() if key in SPACE]
    run.create(tiny.config(study.path / "absent", f"training.epochs={wanted}", *overrides))
    index = number if repeat_of is None else None
    trial = {"number": number, "params": dict(values), "seed": 1000 + number, "repeat_of": repeat_of}
    study.write_assignment(Assignment(index=index, **trial))
    if scores:
        epochs(run, scores)
    return run


def finish(
    study: StudyDirectory,
    number: int,
    score: float | None,
    values: Mapping[str, Any] | None = None,
    *,
    state: str = "complete",
    reason: str | None = None,
    repeat_of: int | None = None,
    seconds: float = 60.0,
    test: tuple[float, float | None] | None = None,
    curve: Sequence[float | None] | None = None,
    test_failed: str | None = None,
) -> Result:
    """A trial that has ended, by default after four epochs of which the third was the best."""
    if curve is None:
        curve = [] if score is None else [4 * score, 2 * score, score, 1.5 * score]
    values = params(number) if values is None else values
    begin(study, number, values, repeat_of=repeat_of, scores=curve)
    scored = [(s, epoch) for epoch, s in enumerate(curve, start=1) if s is not None]
    result = Result(
        number=number, params=dict(values), seed=1000 + number, repeat_of=repeat_of, attempts=1,
        state=state, score=score, epoch=min(scored)[1] if scored else None, epochs=len(curve),  # type: ignore[arg-type]
        reason=reason, started=1000.0, ended=1000.0 + seconds,
        test_score=test[0] if test else None, test_spread=test[1] if test else None, test_failed=test_failed,
    )  # fmt: skip
    study.write_result(result)
    return result


def dead(run: RunDirectory, attempt: int = 1) -> None:
    """An attempt whose process was killed."""
    run.attempts.mkdir(parents=True, exist_ok=True)
    process = {**Identity.own().plain(), "pid": 2**22 + 1}
    holder = {"process": process, "job": None, "state": "running"}
    (run.attempts / f"{attempt:04d}.json").write_text(json.dumps(holder))


def ended(run: RunDirectory, state: str, attempt: int = 1) -> None:
    """An attempt that ended in order."""
    dead(run, attempt)
    file = run.attempts / f"{attempt:04d}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "state": state}))
