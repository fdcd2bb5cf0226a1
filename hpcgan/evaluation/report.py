"""Evaluation of a run, or of anybody's files: one HTML page and one JSON file.

Loading a run imports TensorFlow; comparing files does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pydantic

from hpcgan import records
from hpcgan.config import METHODS, TrainingSection
from hpcgan.console import quiet_tensorflow
from hpcgan.data.calo import holds_showers
from hpcgan.data.schema import Sample, take
from hpcgan.data.source import Source
from hpcgan.data.tensors import problem_of
from hpcgan.errors import InputError
from hpcgan.evaluation import by_point, compare
from hpcgan.evaluation import distances as sample_distances
from hpcgan.evaluation.conditions import Conditions, each, in_turn, training_conditions
from hpcgan.evaluation.html import render
from hpcgan.evaluation.output import Clock, Log, embed, stamp, write
from hpcgan.metrics import points as grouped
from hpcgan.metrics.page import EmbeddedFigure
from hpcgan.problems.base import Observables, Problem, Problems
from hpcgan.rundir import RunDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Version of the JSON's layout; grows when a key changes its meaning or goes.
SCHEMA_VERSION = 1
CURVES = ("epoch", "step", "samples", "losses", "collapse", "score", "samples_per_second")  # of an epoch's record
#: Signs of a collapse in an epoch's record, as the figure names them.
COLLAPSE = {
    "diversity": "distance of generated pairs",
    "nearest": "distance to the nearest",
    "saturation": "discriminator's certainty",
}
NULL_SPLITS = 2000
#: Parts of a score in the figure of its curve, at most.
PARTS_SHOWN = 5
#: Events at each of the points at which a problem has the generator probed.
PROBE_EVENTS = 256
#: Real events read from one file, at most, in units of the events on each side.
POOL_FACTOR = 10


class CheckpointInfo(Protocol):
    """Which weights a sampler uses."""

    @property
    def step(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def score(self) -> float | None: ...


class Sampler(Protocol):
    """What a report needs of a trained run (`hpcgan.evaluation.sample.RunSampler`)."""

    problem: Problem
    config: Any
    checkpoint: Any

    def sample(self, n: int, seed: int, first: int = 0, conditions: Conditions | None = None) -> Sample:
        """The first `n` samples of the sequence of a seed, in physical units."""
        ...


@dataclass(frozen=True)
class Report:
    """A written report.

    Attributes
    ----------
    data : dict
        Content of the JSON file.
    html, json : Path
    """

    data: dict[str, Any]
    html: Path
    json: Path


def evaluate_run(
    run: Path,
    *,
    checkpoint: Literal["best", "latest"] = "best",
    split: str = "test",
    samples: int = 5,
    events: int | None = None,
    out: Path | None = None,
    seed: int = 1,
    repetitions: int = NULL_SPLITS,
    distances: sample_distances.Options = sample_distances.DEFAULTS,
    log: Log = print,
) -> Report:
    """Score a run's generator against held-out events and write the report.

    Parameters
    ----------
    run : Path
        Run directory.
    checkpoint : "best" or "latest"
    split : "test", "val" or "train"
        Real events the generated ones are held against. The null band always comes from validation and
        test events.
    samples : int
        Generated samples, of noise seeds `seed` ... `seed + samples - 1`.
    events : int, optional
        Events on each side; all of the split, where it has fewer. Default: `scoring.events` of the run.
    out : Path, optional
        Folder of the report; default: `report` in the run directory.
    seed : int
    repetitions : int
        Real-against-real comparisons of the null band.
    distances : Options
        Distances between whole samples, and classifiers (`hpcgan.evaluation.distances`).
    log : callable
        Hears of progress and warnings.

    Raises
    ------
    InputError
        No run there, no checkpoint yet, or bad data files.
    """
    run = Path(run)
    directory = RunDirectory(run)
    if not directory.exists:  # said before TensorFlow takes its seconds to load
        raise InputError(f"{run}: not a run directory (no config.yaml in it)")
    quiet_tensorflow()
    from hpcgan.evaluation.sample import load_sampler

    sampler = load_sampler(run, checkpoint, warn=log)
    stem = "report" if (checkpoint, split) == ("best", "test") else f"report-{checkpoint}-{split}"
    return evaluate_sampler(
        sampler,
        records.read(directory.metrics_file, "epoch"),
        _json_lines(directory.provenance_file),
        out=out or directory.report,
        stem=stem,
        split=split,
        samples=samples,
        events=sampler.config.scoring.events if events is None else events,
        seed=seed,
        repetitions=repetitions,
        distances=distances,
        log=log,
    )


def evaluate_sampler(
    sampler: Sampler,
    epochs: list[dict[str, Any]],
    provenance: list[dict[str, Any]],
    *,
    out: Path,
    stem: str = "report",
    split: str = "test",
    samples: int = 5,
    events: int = 4096,
    seed: int = 1,
    repetitions: int = NULL_SPLITS,
    distances: sample_distances.Options = sample_distances.DEFAULTS,
    log: Log = print,
) -> Report:
    """`evaluate_run` for a sampler at hand; `epochs` are its run's `epoch` records."""
    _at_least(samples=(samples, 1), events=(events, 2), repetitions=(repetitions, 1))
    problem, folder = sampler.problem, Path(sampler.config.data.path)
    left_out = sampler.config.data.leave_out if problem.conditions else []
    clock = Clock(log)
    with clock("real_events", f"reading real events of {folder}"):
        splits = {name: _read(problem, folder, name, POOL_FACTOR * events) for name in sorted({split, "val", "test"})}
        whole = splits
        if left_out:
            splits = {name: loaded.without(left_out) for name, loaded in splits.items()}
        held_out = splits[split]
        if held_out.total < 2:
            raise InputError(f"{held_out.source.path}: {held_out.total} events are left of data.leave_out, too few")
        n = min(events, held_out.total)
        real = grouped.take(held_out.observables, np.arange(n))
        pool = compare.join([splits["val"].observables, splits["test"].observables])
    asked: dict[str, Any] = {}
    if problem.conditions:
        asked["conditions"] = each(take(held_out.source.conditions(), held_out.order[:n]))
    fakes: list[Observables] = []
    first: Sample = {}
    for i in range(samples):
        with clock("generated_events", f"generating sample {i + 1} of {samples}, {n} events"):
            sample = sampler.sample(n, seed + i, **asked)
            fakes.append(_observables_of_sample(problem, sample))
            first = first or sample
    notices = _notices(n, events, f"the {split} split has {held_out.total} events")
    if split != "test":
        notices.append(f"Scored on the {split} split, which training or selection has seen: not a held-out score.")
    apart = _LeftOut()
    if left_out:
        with clock("left_out", "scoring at the points that were left out of the training"):
            apart = _score_left_out(sampler, whole, split, left_out, real, pool, samples, seed, repetitions)
    real_sample = held_out.source.read(held_out.order[:n])
    with clock("probes"):
        probed = _probe(sampler, real_sample, seed, notices)
    more_real = None
    if "cells" in distances.classifier:
        other = splits["val" if split != "val" else "test"]
        more_real = other.source.read(other.order[:n])
    training = None
    if distances.distances:
        with clock("training_events", f"reading training events of {folder}"):
            training = _training_events(problem, folder, splits.get("train"), POOL_FACTOR * events, left_out, notices)
    for loaded in splits.values():
        loaded.source.close()
    data, figures = _compare(
        problem,
        real,
        fakes,
        pool,
        real_sample,
        first,
        events,
        repetitions,
        notices,
        clock,
        distances,
        training,
        more_real,
        apart,
        probed,
    )
    info = sampler.checkpoint
    config = sampler.config.dump()
    data["training"] = _training(info, epochs, config, provenance)
    with clock("figures"):
        figures += _training_figures(epochs, info, data["band"], METHODS[config.get("method", "gan")].loss_label)
    return _write(
        {
            "title": config["name"],
            "problem": config["problem"],
            "real": {
                "label": f"{split} events of {folder}",
                "path": str(folder),
                "split": split,
                "events": held_out.total,
            },
            "fake": {
                "label": f"{samples} x {n} generated events",
                "seeds": list(range(seed, seed + samples)),
            },
            **data,
        },
        figures,
        out,
        stem,
        clock,
    )


def compare_files(
    real: Path,
    fake: Path,
    *,
    problem: str | None = None,
    samples: int = 5,
    events: int = 4096,
    out: Path | None = None,
    repetitions: int = NULL_SPLITS,
    distances: sample_distances.Options = sample_distances.DEFAULTS,
    log: Log = print,
) -> Report:
    """Hold a file of generated events against a file of real ones.

    Parameters
    ----------
    real, fake : Path
        Files in the layout of the problem's training data. The null band comes from all events of `real`.
    problem : str, optional
        What the files hold; default: what the real one says, and otherwise `rpv`.
    samples : int
        Largest number of disjoint generated samples; as many as `fake` has events for are used.
    events : int
        Events on each side; fewer where a file has fewer.
    out : Path, optional
        Folder of the report; default: `NAME-report` beside the generated file.
    repetitions, distances, log
        As for `evaluate_run`; what was trained on is not known here, so that memorisation is not looked for.

    Raises
    ------
    InputError
        Unknown problem, or a file that is missing, broken or too small.
    """
    _at_least(samples=(samples, 1), events=(events, 2), repetitions=(repetitions, 1))
    if problem is not None:
        _known(problem)
    real, fake = Path(real), Path(fake)
    for path in (real, fake):
        if not path.is_file():
            raise InputError(f"{path}: no such file")
    problem = problem or problem_of(real) or ("calogan" if holds_showers(real) else "rpv")
    subject = _problem(problem, real)
    clock = Clock(log)
    with clock("real_events", f"reading {real}"):
        of_real = _read(subject, real, "test", POOL_FACTOR * events)
    with clock("generated_events", f"reading {fake}"):
        of_fake = _read(subject, fake, "test", samples * min(events, of_real.total))
    n = min(events, of_real.total, of_fake.total)
    on_real, on_fakes = np.arange(n), [np.arange(i * n, (i + 1) * n) for i in range(min(samples, of_fake.total // n))]
    more: list[str] = []
    if subject.conditions:
        try:
            on_real, on_fakes, more = by_point.match(of_real.observables, of_fake.observables, events, samples)
        except ValueError as error:
            raise InputError(f"{fake}: {error}") from None
        n = len(on_real)
    notices = [*_notices(n, events, f"{real} has {of_real.total} events, {fake} {of_fake.total}"), *more]
    if real.samefile(fake):
        notices.append("Real and generated events are the same file.")
    data, figures = _compare(
        subject,
        grouped.take(of_real.observables, on_real),
        [grouped.take(of_fake.observables, events_of_sample) for events_of_sample in on_fakes],
        of_real.observables,
        of_real.source.read(of_real.order[on_real]),
        of_fake.source.read(of_fake.order[on_fakes[0]]),
        events,
        repetitions,
        notices,
        clock,
        distances,
        more_real=of_real.source.read(of_real.order[n : 2 * n]) if "cells" in distances.classifier else None,
    )
    of_real.source.close()
    of_fake.source.close()
    return _write(
        {
            "title": fake.name,
            "problem": problem,
            "real": {"label": f"real: {real}", "path": str(real), "split": None, "events": of_real.total},
            "fake": {"label": f"generated: {fake}", "path": str(fake), "events": of_fake.total},
            **data,
            "training": None,
        },
        figures,
        out or fake.with_name(f"{fake.stem}-report"),
        "report",
        clock,
    )


def summary(report: Report) -> str:
    """What a terminal shows of a report: a few lines."""
    data = report.data
    score, band, against = data["score"], data["band"], data["against_band"]
    count = len(score["samples"])
    share = f"{against['share_above']:.1%} as high as a generated sample, or higher"
    p95 = f"{band['p95']:.2f} +- {band['p95_error']:.2f}"
    levels = f"median {band['median']:.2f}, 95% below {p95}, 99% below {band['p99']:.2f}"
    lines = [
        f"score {_spread(score)} at N={score['n']}" + (f" ({count} generated samples)" if count > 1 else ""),
        *(f"  {name.replace('_', ' '):<20} {_spread(part)}" for name, part in score["parts"].items()),
        f"real against real at N={band['n']}: {levels}; {share}",
    ]
    if band["n"] != score["n"]:
        lines.append(f"generated against real at N={band['n']}: {_spread(against)}")
    lines += _points_summary(data["points"])
    lines += sample_distances.summary(data["sample_distances"])
    lines += [f"note: {notice}" for notice in data["notices"]]
    return "\n".join([*lines, f"report: {report.html}", f"        {report.json}"])


def _points_summary(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        name = grouped.label(row["conditions"])
        apart = "" if row["trained"] else ", left out of the training"
        level = f"real: 95% below {row['band']['p95']:.2f}"
        lines.append(f"  at {name}: {_spread(row['score'])} at N={row['n']} ({level}){apart}")
        if row["nearest"] is not None:
            near, where = row["nearest"], grouped.label(row["nearest"]["conditions"])
            lines.append(
                f"    instead of it, nearest trained {where}: {_spread(near['real'])} real, "
                f"{_spread(near['generated'])} generated"
            )
    return ["score at each point:", *lines] if rows else []


def _spread(part: dict[str, Any]) -> str:
    return f"{part['mean']:.2f}" + ("" if part["std"] is None else f" +- {part['std']:.2f}")


def _compare(
    problem: Problem,
    real: Observables,
    fakes: list[Observables],
    pool: Observables,
    real_sample: Sample,
    fake_sample: Sample,
    requested: int,
    repetitions: int,
    notices: list[str],
    clock: Clock,
    distances: sample_distances.Options,
    training: Observables | None = None,
    more_real: Sample | None = None,
    apart: _LeftOut | None = None,
    probed: _Probed | None = None,
) -> tuple[dict[str, Any], list[EmbeddedFigure]]:
    """The part of a report that runs and files have in common."""
    from hpcgan.metrics import plots

    apart, probed = apart or _LeftOut(), probed or _Probed()
    there = grouped.sizes(pool)
    for point in grouped.sizes(real):
        if there.get(point, 0) < 2:
            where = grouped.label(grouped.described(real, point))
            raise InputError(f"real events at {where}: {there.get(point, 0)} are too few for a null band")

    with clock("scores", f"scoring, and {repetitions} comparisons of real against real"):
        found = compare.compare(problem, real, fakes, pool, requested, repetitions)
    if not found.band.complete:
        notices.append(
            f"The null band is at N={found.band.n}, the largest possible with {found.band.pool} real events, "
            f"not at N={found.n}: only the score at N={found.band.n} may be held against it."
        )
    if found.band.blocks is not None:
        notices.append(
            f"Real events share what they are made of within {found.band.blocks} blocks: the null band allows for it, "
            "error bars of figures and single KS tests do not."
        )
    numbers = compare.to_json(found)
    notices += apart.notices
    numbers["points"] = [*by_point.trained_rows(found), *apart.rows]
    for name, distance in numbers["distances"].items():
        distance["unit"] = real[name].unit
    cells = (real_sample, fake_sample) if more_real is None else (real_sample, fake_sample, more_real)
    samples = sample_distances.Samples(found.band.n, real, fakes, pool, training, cells)
    with clock("sample_distances", "distances between samples" if distances.distances else ""):
        numbers["sample_distances"] = sample_distances.measure(samples, distances, clock.log)
    if numbers["sample_distances"] is None and (distances.distances or distances.classifier):
        notices.append(
            f"No distances between samples: they take {sample_distances.LEAST} real events on each side, twice; "
            f"there are {found.band.n}."
        )
    with clock("figures", "drawing"):
        figure = plots.null_distribution(found.band.samples, [score.total for score in found.band_scores], found.band.n)
        caption = (
            f"Score of {len(found.scores)} generated samples (lines) and of {repetitions} random disjoint "
            f"splits of real events, all at N = {found.band.n}."
        )
        figures = [embed("null_band", caption, figure, "score")]
        if problem.conditions:
            everywhere = (compare.join([real, *apart.real]), compare.join([fakes[0], *apart.fake]))
            made = problem.points_figures(*everywhere, [row["conditions"] for row in apart.rows])
            figures += [embed(name, text, drawn, "points") for name, text, drawn in made]
        made = problem.figures(real_sample, fake_sample)
        figures += [embed(name, text, drawn, "physics") for name, text, drawn in [*made, *probed.figures]]
    numbers["measurements"] = problem.measurements(real_sample, fake_sample)
    numbers["probes"] = probed.rows
    return {"notices": notices, **numbers}, figures


@dataclass
class _Probed:
    """What a generator makes at points that its problem asks for: numbers and figures."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: list[tuple[str, str, Figure]] = field(default_factory=list)


def _probe(sampler: Sampler, real: Sample, seed: int, notices: list[str]) -> _Probed:
    """Make `PROBE_EVENTS` events at each of the problem's probes."""
    problem, probed = sampler.problem, _Probed()
    if not problem.conditions:
        return probed
    try:
        trained = training_conditions(problem, sampler.config)
    except InputError as error:
        notices.append(f"Not probed beyond the training events' conditions: {error}")
        return probed
    made = []
    for i, point in enumerate(problem.probes(trained)):
        sample = sampler.sample(PROBE_EVENTS, seed + i, conditions=in_turn([point], problem.schema))
        found = _observables_of_sample(problem, sample)
        values = {name: observable.values for name, observable in grouped.measured(found).items()}
        spreads = {
            name: {"mean": float(x.mean()), "std": float(x.std())} if len(x) else None for name, x in values.items()
        }
        probed.rows.append({"conditions": dict(point), "n": PROBE_EVENTS, "observables": spreads})
        made.append((point, found))
    if made:
        probed.figures = problem.probe_figures(trained, real, made)
    return probed


@dataclass
class _LeftOut:
    """Points that a model was not trained on: table rows, the events compared there (first samples), and notices."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    real: list[Observables] = field(default_factory=list)
    fake: list[Observables] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def _score_left_out(
    sampler: Sampler,
    splits: dict[str, _Loaded],
    split: str,
    left_out: list[dict[str, float]],
    trained: Observables,
    trained_pool: Observables,
    samples: int,
    seed: int,
    repetitions: int,
) -> _LeftOut:
    """Score at each point that was left out, with about as many events as the trained points have each."""
    problem = sampler.problem
    there = {}
    for name, loaded in splits.items():
        fits = by_point.is_left_out(loaded.observables, left_out)
        there[name] = grouped.take(loaded.observables, np.flatnonzero(fits))
    pool = compare.join([there["val"], there["test"]])
    sizes = grouped.sizes(trained)
    of_pool, near_pool = grouped.sizes(pool), grouped.sizes(trained_pool)
    candidates = [grouped.described(trained, point) for point in sizes if point in near_pool]
    made = _LeftOut()
    for point, available in grouped.sizes(there[split]).items():
        where = grouped.described(there[split], point)
        if of_pool.get(point, 0) < 2:
            made.notices.append(f"Not scored at {grouped.label(where)}: too few real events for a null band.")
            continue
        near = by_point.nearest_point(problem, where, candidates)
        near_point = tuple(near[name] for name in sorted(near))
        near_there = near_pool[near_point]
        n = min(available, near_there, round(sum(sizes.values()) / len(sizes)))
        real = grouped.take(there[split], grouped.first_events(there[split], {point: n}))

        def generated(at: Mapping[str, float], n: int) -> list[Observables]:
            asked = in_turn([at], problem.schema)
            made = (sampler.sample(n, seed + i, conditions=asked) for i in range(samples))
            return [_observables_of_sample(problem, sample) for sample in made]

        of_near = [
            grouped.take(trained_pool, grouped.first_events(trained_pool, {near_point: n}, skip=i))
            for i in range(min(samples, near_there // n))
        ]
        fakes = generated(where, n)
        of_point = grouped.take(pool, grouped.events_of(pool, point))
        nearest = (near, of_near, generated(near, n))
        made.rows.append(by_point.left_out_row(problem, real, fakes, of_point, nearest, repetitions))
        made.real.append(real)
        made.fake.append(fakes[0])
    return made


def _training(
    info: CheckpointInfo,
    epochs: list[dict[str, Any]],
    config: dict[str, Any],
    provenance: list[dict[str, Any]],
) -> dict[str, Any]:
    of_checkpoint = next((r for r in epochs if r["epoch"] == info.epoch and r["step"] == info.step), None)
    score = (of_checkpoint or {}).get("score") or {}
    rates = [r["samples_per_second"] for r in epochs if r.get("samples_per_second")]
    return {
        "checkpoint": {
            "epoch": info.epoch,
            "step": info.step,
            "samples": of_checkpoint["samples"] if of_checkpoint else None,
            "score": info.score,
            "score_n": score.get("n"),
        },
        "epochs": epochs[-1]["epoch"] if epochs else 0,
        "samples": epochs[-1]["samples"] if epochs else 0,
        "samples_per_second": float(np.median(rates)) if rates else None,
        "curves": [{key: r.get(key) for key in CURVES} for r in epochs],
        "config": config,
        "provenance": provenance,
    }


def _training_figures(
    epochs: list[dict[str, Any]],
    info: CheckpointInfo,
    band: dict[str, Any],
    loss_label: str = TrainingSection.loss_label,
) -> list[EmbeddedFigure]:
    """Loss and score curves."""
    from hpcgan.metrics import plots

    if not epochs:
        return []
    label = "Samples seen by all ranks"
    selected = next((float(r["samples"]) for r in epochs if r["epoch"] == info.epoch), None)
    mark = None if selected is None else (selected, f"checkpoint (epoch {info.epoch})")
    # None where every step of an epoch was bad (`training.rollback`): a gap in the curve.
    losses = {
        name: [np.nan if (v := r["losses"].get(name)) is None else v for r in epochs] for name in epochs[0]["losses"]
    }
    x = np.array([r["samples"] for r in epochs], dtype=np.float64)
    figures = []
    scored = [r for r in epochs if r.get("score")]
    if scored:
        sizes = {r["score"]["n"] for r in scored}
        lines = {"total": [r["score"]["total"] for r in scored]}
        last = scored[-1]["score"]["parts"]
        shown = list(last) if len(last) <= PARTS_SHOWN else sorted(last, key=lambda p: -last[p])[:PARTS_SHOWN]
        for part in shown:
            lines[part.replace("_", " ")] = [r["score"]["parts"][part] for r in scored]
        levels = None
        if sizes == {band["n"]}:
            levels = {"real against real: median": band["median"], "real against real: 95%": band["p95"]}
        at = ", ".join(str(size) for size in sorted(sizes))
        figure = plots.curves(
            np.array([r["samples"] for r in scored], dtype=np.float64),
            lines,
            label,
            f"Score (N = {at})",
            log_y=True,
            mark=mark,
            levels=levels,
        )
        caption = "Score on validation events after each epoch."
        if len(shown) < len(last):
            caption += f" Of its {len(last)} parts, the {len(shown)} that are largest at the end."
        figures.append(embed("score_curve", caption, figure, "training"))
    figure = plots.curves(x, losses, label, loss_label, mark=mark)
    figures.append(embed("loss_curve", "Losses, averaged over each epoch.", figure, "training"))
    lines = {text: [(r.get("collapse") or {}).get(name) for r in epochs] for name, text in COLLAPSE.items()}
    lines = {text: values for text, values in lines.items() if any(value is not None for value in values)}
    if lines:  # runs of older versions have none
        caption = (
            "Signs of a collapse: mean distances among generated events over those among real ones (1: as diverse; "
            "near 0: alike)"
        )
        if COLLAPSE["saturation"] in lines:
            caption += (
                ", and by how much the discriminator takes real events rather than generated ones for real "
                "(0: it cannot tell; near 1: it is certain, and teaches little)"
            )
        caption += "."
        figures.append(embed("collapse_curve", caption, plots.curves(x, lines, label, "Ratio", mark=mark), "training"))
    return figures


def _write(report: dict[str, Any], figures: list[EmbeddedFigure], out: Path, stem: str, clock: Clock) -> Report:
    whole = {
        "schema": "hpcgan.report",
        "schema_version": SCHEMA_VERSION,
        **stamp(),
        **report,
        "figures": [{"name": f.name, "caption": f.caption, "group": f.group} for f in figures],
        "timing": clock.seconds(),
    }
    page = render(whole, figures)
    paths = out / f"{stem}.html", out / f"{stem}.json"
    write(out, {paths[0].name: page, paths[1].name: json.dumps(whole, indent=1, allow_nan=False) + "\n"})
    return Report(whole, *paths)


@dataclass(frozen=True)
class _Loaded:
    """Events of one file: `order` are those read, at random, and `observables` theirs; `total` are there."""

    source: Source
    order: np.ndarray
    observables: Observables
    total: int

    def without(self, points: list[dict[str, float]]) -> _Loaded:
        """The events of other points than these."""
        kept = np.flatnonzero(~by_point.is_left_out(self.observables, points))
        return _Loaded(self.source, self.order[kept], grouped.take(self.observables, kept), len(kept))


def _read(problem: Problem, path: Path, split: str, limit: int) -> _Loaded:
    problem.validate(path, split)
    source = problem.open(path, split)
    total = len(source)
    if total < 2:
        raise InputError(f"{source.path}: {total} events are too few to compare")
    order = compare.choose(min(total, limit), total)
    return _Loaded(source, order, compare.observables_of(problem, source, order), total)


def _training_events(
    problem: Problem,
    folder: Path,
    loaded: _Loaded | None,
    limit: int,
    left_out: list[dict[str, float]],
    notices: list[str],
) -> Observables | None:
    """Observables of the training events; where they are not at hand, a notice says so."""
    if loaded is not None:
        return loaded.observables
    try:
        loaded = _read(problem, folder, "train", limit)
    except InputError as error:
        notices.append(f"Not checked for memorised training events: {error}")
        return None
    loaded.source.close()
    return (loaded.without(left_out) if left_out else loaded).observables


def _observables_of_sample(problem: Problem, sample: Sample) -> Observables:
    n = len(next(iter(sample.values())))
    return compare.join([problem.observables(take(sample, indices)) for indices in compare.chunks(n)])


def _known(name: str) -> None:
    names = Problems().names()
    if name not in names:
        raise InputError(f"problem '{name}' does not exist; choose one of: {', '.join(names)}")


def _problem(name: str, file: Path) -> Problem:
    _known(name)
    try:
        return Problems().get(name).of_file(file)
    except pydantic.ValidationError as error:
        raise InputError(f"problem '{name}' needs a model configuration ({error.errors()[0]['msg']})") from None


def _notices(n: int, requested: int, reason: str) -> list[str]:
    if n == requested:
        return []
    return [f"Scored at N={n} instead of {requested}: {reason}. Not comparable with scores at another N."]


def _at_least(**limits: tuple[int, int]) -> None:
    for name, (value, least) in limits.items():
        if value < least:
            raise InputError(f"{name}: {value} is too few, give at least {least}")


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSON-lines file; none if it is missing, torn lines left out."""
    found = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
