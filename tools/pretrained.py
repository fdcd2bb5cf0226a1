#!/usr/bin/env python3
r"""Put the generator of a run into the package, as `pretrained:NAME`.

    python tools/pretrained.py RUN NAME --report REPORT.json --title TEXT --recipe configs/rpv.yaml --data COMMAND \
        --trained "64 minutes of two cores" [--at mGlu=1600,mNeu=850] [--bits 10]

Of the checkpoint that the report is about, what is sampled is kept; of its report, the scores. `--bits` rounds the
numbers of single precision to so many bits behind the binary point, 10 as in half precision, so that they can be
compressed; exponents stay. The configuration, the identity of the data and the provenance are the run's, without paths
and the name of the machine. Quantiles of what is measured of the run's test events (of a conditional one, of those at a
point) go into tests/data, for the tests to hold generated events against.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from hpcgan import yamlio
from hpcgan.runs import checkpoint as checkpoints
from hpcgan.runs import pretrained
from hpcgan.runs.directory import RunDirectory
from hpcgan.system.console import quiet_tensorflow

LARGEST = 5_000_000
LICENCE = "BSD-3-Clause"
TESTS = Path(__file__).resolve().parents[1] / "tests/data"
QUANTILES = 500


def main() -> None:
    """Write the folder, and say how large it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--report", type=Path, required=True)
    for option in ("title", "recipe", "data", "trained"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--at", default="", help="point of the conditions whose real events are measured")
    parser.add_argument("--bits", type=int, choices=range(1, 24), default=23, metavar="N", help="kept of the mantissa")
    args = parser.parse_args()
    quiet_tensorflow()
    from hpcgan.evaluation import conditions
    from hpcgan.evaluation.sampling import scored_network
    from hpcgan.problems import run_data
    from hpcgan.problems.base import problem_class

    report = json.loads(args.report.read_text(encoding="utf-8"))
    run, target = RunDirectory(args.run), RunDirectory(pretrained.FOLDER / args.name)
    if target.path.exists():
        shutil.rmtree(target.path)
    target.checkpoints.mkdir(parents=True)
    _without_places(run, target)
    config = run.load_config()
    problem = problem_class(config.problem)(config.model)
    stated = report["training"]["checkpoint"]
    loaded = checkpoints.load(checkpoints.path_of(run.checkpoints, stated["step"]))
    prefix = f"network/{scored_network(config)}/"
    kept = {name: rounded(array, args.bits) for name, array in loaded.arrays.items() if name.startswith(prefix)}
    checkpoints.save(target.checkpoints, loaded.step, kept, loaded.meta, loaded.score, compressed=args.bits < 23)
    card = pretrained.Card(
        title=args.title,
        recipe=args.recipe,
        data=args.data,
        trained=args.trained,
        licence=LICENCE,
        conditions=conditions.ranges(conditions.training_conditions(problem, run_data.load(run))),
        events=report["score"]["n"],
        scores=list(_scores(report)),
    )
    (target.path / pretrained.CARD).write_text(yamlio.dump(card.model_dump()), encoding="utf-8")
    (TESTS / f"pretrained_{args.name}.json").write_text(json.dumps(_measured(run, args.at)) + "\n", encoding="utf-8")
    size = pretrained.size(args.name)
    print(f"{target.path}: {size / 1e6:.2f} MB")
    if size > LARGEST:
        raise SystemExit(f"more than {LARGEST / 1e6:g} MB")


def rounded(array: Any, bits: int) -> Any:
    """An array of single precision with so many bits of the mantissa: the nearest such numbers, half-way ones up."""
    import numpy as np

    if array.dtype != np.float32 or bits == 23:
        return array
    cut = 23 - bits
    numbers = (array.view(np.uint32) + np.uint32(1 << (cut - 1))) & np.uint32(0xFFFFFFFF << cut & 0xFFFFFFFF)
    return numbers.view(np.float32)


def _without_places(run: RunDirectory, target: RunDirectory) -> None:
    data = json.loads(run.data_file.read_text(encoding="utf-8"))
    target.data_file.write_text(json.dumps({**data, "places": []}) + "\n", encoding="utf-8")
    with open(target.provenance_file, "w", encoding="utf-8") as file:
        for line in run.provenance_file.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            for name in ("command", "host", "slurm_job"):
                entry.pop(name, None)
            entry["data"].pop("path", None)
            file.write(json.dumps(entry) + "\n")
    raw = run.read_config()
    raw["data"]["path"] = "data/" + raw["problem"]
    target.config_file.write_text(yamlio.dump(raw), encoding="utf-8")


def _measured(run: RunDirectory, at: str) -> dict[str, Any]:
    """The point, and sorted values of each quantity of the test events there."""
    import numpy as np

    from hpcgan.evaluation import conditions
    from hpcgan.evaluation.events import is_left_out, read
    from hpcgan.metrics import points
    from hpcgan.problems import run_data
    from hpcgan.problems.base import problem_class
    from hpcgan.problems.events import Use

    config = run_data.load(run)
    problem = problem_class(config.problem)(config.model)
    point = dict(conditions.parse(at)) if at else {}
    loaded = read(problem, config.data.path, "test", 10**6, Use.of(config.data))
    observables = {**loaded.observables, **loaded.more(problem, problem.more_quantities)}
    if point:
        observables = points.take(observables, np.flatnonzero(is_left_out(observables, [point])))
    levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
    quantities = {
        name: [float(f"{value:.5g}") for value in np.quantile(observable.values, levels, method="inverted_cdf")]
        for name, observable in sorted(observables.items())
        if not observable.condition
    }
    return {"point": point, "quantities": quantities}


def _scores(report: dict[str, Any]) -> Any:
    score, band = report["score"], report["band"]
    yield pretrained.Number(
        name="score", value=round(score["mean"], 2), error=_rounded(score["std"]), real=f"95% below {band['p95']:.1f}"
    )
    images = ((report["sample_distances"] or {}).get("classifier") or {}).get("images")
    if images is not None:
        auc, null = images["auc"], images["null"]["auc"]
        yield pretrained.Number(
            name="AUC of a classifier on images",
            value=round(auc["value"], 3),
            error=_rounded(auc["error"], 3),
            real=f"{null['value']:.3f}",
        )


def _rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)


if __name__ == "__main__":
    main()
