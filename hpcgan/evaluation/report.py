"""Evaluation of a run, or of anybody's files: one HTML page and one JSON file.

Loading a run imports TensorFlow; comparing files does not.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic

from hpcgan.config import METHODS, Config
from hpcgan.data.schema import Sample, take
from hpcgan.errors import InputError
from hpcgan.evaluation import by_point, compare
from hpcgan.evaluation import distances as sample_distances
from hpcgan.evaluation.conditions import each
from hpcgan.evaluation.curves import training_figures
from hpcgan.evaluation.left_out import LeftOut, score_left_out
from hpcgan.evaluation.loading import observables_of_sample, read, said_of, training_events
from hpcgan.evaluation.output import Clock, Log, check_folder, embed, stamp, write
from hpcgan.evaluation.probes import Probed, probe
from hpcgan.evaluation.protocols import CheckpointInfo, Sampler
from hpcgan.metrics import points as grouped
from hpcgan.metrics.observable import weighted, weights_of
from hpcgan.problems import run_data
from hpcgan.problems.base import Observables, Problem, problem_class
from hpcgan.problems.events import Use
from hpcgan.problems.layouts import problem_of
from hpcgan.report.evaluation_page import render
from hpcgan.report.page import EmbeddedFigure
from hpcgan.runs import records
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.records import Epoch
from hpcgan.system.console import quiet_tensorflow
from hpcgan.weights import check

#: Version of the JSON's layout; grows when a key changes its meaning or goes.
SCHEMA_VERSION = 1
CURVES = ("epoch", "step", "samples", "losses", "collapse", "score", "samples_per_second")  # of an epoch's record
NULL_SPLITS = 2000
#: Real events read from one file, at most, in units of the events on each side.
POOL_FACTOR = 10
#: All events of files, with their weights, and the options that change it.
FILES = Use(select_key="--select", ignore_key="--ignore-weights")


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
    data: Path | None = None,
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
    data : Path, optional
        Real events; default: the run's own data, wherever they lie now (`hpcgan.problems.run_data`).
    log : callable
        Hears of progress and warnings.

    Raises
    ------
    InputError
        No run there, no checkpoint yet, bad data files, or others than the run's.
    """
    run = Path(run)
    directory = RunDirectory(run)
    if not directory.exists:  # said before TensorFlow takes its seconds to load
        raise InputError(f"{run}: not a run directory (no config.yaml in it)")
    out = out or directory.report
    check_folder(out)
    notices: list[str] = []
    if data is None:
        config = run_data.load(directory)
    else:
        config, notice = run_data.given(directory.load_config(), directory, data)
        notices += [] if notice is None else [notice]
    _check_real(config, split)
    quiet_tensorflow()
    from hpcgan.evaluation.sample import load_sampler

    sampler = load_sampler(run, checkpoint, warn=log)
    sampler.config = config
    stem = "report" if (checkpoint, split) == ("best", "test") else f"report-{checkpoint}-{split}"
    return evaluate_sampler(
        sampler,
        records.read(directory.metrics_file, Epoch),
        records.read_lines(directory.provenance_file),
        out=out,
        stem=stem,
        split=split,
        samples=samples,
        events=sampler.config.scoring.events if events is None else events,
        seed=seed,
        repetitions=repetitions,
        distances=distances,
        notices=notices,
        log=log,
    )


def _check_real(config: Config, split: str) -> None:
    """Refuse data that are not those of the run, of the splits that are read.

    Raises
    ------
    InputError
        Naming the file, and what differs.
    """
    try:
        for name in sorted({split, "val", "test"}):
            config.data.require(name)
    except InputError as error:
        raise InputError(f"{error}; --data DIR says where they are, or takes others on purpose") from None


def evaluate_sampler(
    sampler: Sampler,
    epochs: Sequence[Epoch],
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
    notices: Sequence[str] = (),
    log: Log = print,
) -> Report:
    """`evaluate_run` for a sampler at hand; `epochs` are its run's `epoch` records."""
    _at_least(samples=(samples, 1), events=(events, 2), repetitions=(repetitions, 1))
    problem, folder, use = sampler.problem, Path(sampler.config.data.path), Use.of(sampler.config.data)
    left_out = sampler.config.data.leave_out if problem.conditions else []
    clock = Clock(log)
    with clock("real_events", f"reading real events of {folder}"):
        splits = {
            name: read(problem, folder, name, POOL_FACTOR * events, use) for name in sorted({split, "val", "test"})
        }
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
    weights = held_out.weights(np.arange(n))
    if problem.conditions:
        asked["conditions"] = each(take(held_out.source.conditions(), held_out.order[:n]))
    fakes: list[Observables] = []
    first: Sample = {}
    for i in range(samples):
        with clock("generated_events", f"generating sample {i + 1} of {samples}, {n} events"):
            sample = sampler.sample(n, seed + i, **asked)
            made = observables_of_sample(problem, sample)
            # An event that is asked for by the conditions of a real one has its weight.
            fakes.append(weighted(made, weights) if problem.conditions else made)
            first = first or sample
    notices = [*notices, *_notices(n, events, f"the {split} split has {held_out.total} events")]
    if split != "test":
        notices.append(f"Scored on the {split} split, which training or selection has seen: not a held-out score.")
    notices += said_of(held_out.source, use)
    apart = LeftOut()
    if left_out:
        with clock("left_out", "scoring at the points that were left out of the training"):
            apart = score_left_out(sampler, whole, split, left_out, real, pool, samples, seed, repetitions)
    real_sample = held_out.source.read(held_out.order[:n])
    with clock("probes"):
        probed = probe(sampler, real_sample, seed, notices, weights)
    more_real = more_weights = None
    if "cells" in distances.classifier:
        other = splits["val" if split != "val" else "test"]
        more_real, more_weights = other.source.read(other.order[:n]), other.weights(np.arange(min(n, len(other.order))))
    training = None
    if distances.distances:
        with clock("training_events", f"reading training events of {folder}"):
            trained_on, limit = sampler.config.data, POOL_FACTOR * events
            training = training_events(problem, trained_on, splits.get("train"), limit, use, left_out, notices)
    for loaded in splits.values():
        loaded.source.close()
    material = _Material(
        problem,
        real,
        fakes,
        pool,
        real_sample,
        first,
        training=training,
        more_real=more_real,
        more_weights=more_weights,
        apart=apart,
        probed=probed,
    )
    data, figures = _compare(material, events, repetitions, distances, notices, clock)
    info = sampler.checkpoint
    config = sampler.config.dump()
    data["training"] = _training(info, epochs, config, provenance)
    with clock("figures"):
        figures += training_figures(epochs, info, data["band"], METHODS[config.get("method", "gan")].loss_label)
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
    use: Use = FILES,
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
    use : Use
        Which real events are used, and how events count. What is selected of real events is of generated ones as well,
        where these differ in it.
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
        problem_class(problem)  # before anything else, whether there is one
    real, fake = Path(real), Path(fake)
    for path in (real, fake):
        if not path.is_file():
            raise InputError(f"{path}: no such file")
    out = out or fake.with_name(f"{fake.stem}-report")
    check_folder(out)
    problem = problem or problem_of(real)
    subject = _problem(problem, real)
    clock = Clock(log)
    with clock("real_events", f"reading {real}"):
        of_real = read(subject, real, "test", POOL_FACTOR * events, use)
    with clock("generated_events", f"reading {fake}"):
        of_fakes = dataclasses.replace(use, select=_mixed(subject, fake, use.select))
        of_fake = read(subject, fake, "test", samples * min(events, of_real.total), of_fakes)
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
    notices += [*said_of(of_real.source, use), *said_of(of_fake.source, use)]
    if real.samefile(fake):
        notices.append("Real and generated events are the same file.")
    material = _Material(
        subject,
        grouped.take(of_real.observables, on_real),
        [grouped.take(of_fake.observables, events_of_sample) for events_of_sample in on_fakes],
        of_real.observables,
        of_real.source.read(of_real.order[on_real]),
        of_fake.source.read(of_fake.order[on_fakes[0]]),
        more_real=of_real.source.read(of_real.order[n : 2 * n]) if "cells" in distances.classifier else None,
        more_weights=of_real.weights(np.arange(len(of_real.order))[n : 2 * n]),
    )
    data, figures = _compare(material, events, repetitions, distances, notices, clock)
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
        out,
        "report",
        clock,
    )


def summary(report: Report) -> str:
    """What a terminal shows of a report: a few lines."""
    return "\n".join([results(report), f"report: {report.html}", f"        {report.json}"])


def results(report: Report) -> str:
    """The lines of `summary` without the names of the files."""
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
    return "\n".join(lines)


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


@dataclass(frozen=True)
class _Material:
    """What a report compares.

    Attributes
    ----------
    problem : Problem
    real : Observables
    fakes : list of Observables
        Of generated samples, each of as many events as `real`.
    pool : Observables
        Of the real events that the null band is made of.
    real_sample, fake_sample : Sample
        The events of `real` and of the first of `fakes`.
    training : Observables, optional
        Of training events, in which copies are looked for.
    more_real : Sample, optional
        Other real events, for a classifier of cells.
    more_weights : array, optional
        Their weights.
    apart : LeftOut
    probed : Probed
    """

    problem: Problem
    real: Observables
    fakes: list[Observables]
    pool: Observables
    real_sample: Sample
    fake_sample: Sample
    training: Observables | None = None
    more_real: Sample | None = None
    more_weights: np.ndarray | None = None
    apart: LeftOut = field(default_factory=LeftOut)
    probed: Probed = field(default_factory=Probed)


def _compare(
    material: _Material,
    requested: int,
    repetitions: int,
    distances: sample_distances.Options,
    notices: list[str],
    clock: Clock,
) -> tuple[dict[str, Any], list[EmbeddedFigure]]:
    """The part of a report that runs and files have in common."""
    from hpcgan.report import plots

    problem, real, fakes, pool = material.problem, material.real, material.fakes, material.pool
    apart, probed = material.apart, material.probed
    there = grouped.sizes(pool)
    for point in grouped.sizes(real):
        if there.get(point, 0) < 2:
            where = grouped.label(grouped.described(real, point))
            raise InputError(f"real events at {where}: {there.get(point, 0)} are too few for a null band")

    for side, name in ((real, "real"), *((fake, "generated") for fake in fakes)):
        weights = weights_of(side)
        if weights is not None:
            check(weights, f"the {name} events that are compared", "compare more with --events")
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
    cells = tuple(c for c in (material.real_sample, material.fake_sample, material.more_real) if c is not None)
    samples = sample_distances.Samples(found.band.n, real, fakes, pool, material.training, cells, material.more_weights)
    with clock("sample_distances", "distances between samples" if distances.distances else ""):
        numbers["sample_distances"] = sample_distances.measure(samples, distances, clock.log)
    if numbers["sample_distances"] is None and (distances.distances or distances.classifier):
        enough = sample_distances.of_single_events(samples).n
        drawn = " that can be drawn by weight" if enough < found.band.n else ""
        notices.append(
            f"No distances between samples: they take {sample_distances.LEAST} real events on each side, twice; "
            f"there are {enough}{drawn}."
        )
    elif numbers["sample_distances"] is not None and numbers["sample_distances"]["n"] < found.band.n:
        notices.append(
            f"Distances between samples compare single events: {numbers['sample_distances']['n']} on each side, drawn "
            "by |weight|, none of them twice."
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
        sides = (weights_of(real), weights_of(fakes[0]))
        made = problem.figures(material.real_sample, material.fake_sample, sides)
        figures += [embed(name, text, drawn, "physics") for name, text, drawn in [*made, *probed.figures]]
    numbers["measurements"] = problem.measurements(material.real_sample, material.fake_sample, sides)
    numbers["probes"] = probed.rows
    return {"notices": notices, **numbers}, figures


def _mixed(problem: Problem, fake: Path, select: Mapping[str, float | list[float]]) -> dict[str, float | list[float]]:
    """What of a selection generated events differ in: they may state a single label for all."""
    source = problem.open(fake, "test", cache_mb=0)
    try:
        there = source.labels()
        return {name: v for name, v in select.items() if name in there and len(np.unique(source.label(name))) > 1}
    finally:
        source.close()


def _training(
    info: CheckpointInfo,
    epochs: Sequence[Epoch],
    config: dict[str, Any],
    provenance: list[dict[str, Any]],
) -> dict[str, Any]:
    of_checkpoint = next((r for r in epochs if r.epoch == info.epoch and r.step == info.step), None)
    rates = [r.samples_per_second for r in epochs if r.samples_per_second]
    return {
        "checkpoint": {
            "epoch": info.epoch,
            "step": info.step,
            "samples": of_checkpoint.samples if of_checkpoint else None,
            "score": info.score,
            "score_n": of_checkpoint.score.n if of_checkpoint and of_checkpoint.score else None,
        },
        "epochs": epochs[-1].epoch if epochs else 0,
        "samples": epochs[-1].samples if epochs else 0,
        "samples_per_second": float(np.median(rates)) if rates else None,
        "curves": [{key: value for key, value in records.plain(r).items() if key in CURVES} for r in epochs],
        "config": config,
        "provenance": provenance,
    }


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
    made = Report(whole, *paths)
    files: dict[str, bytes | str] = {paths[0].name: page}
    files[paths[1].name] = json.dumps(whole, indent=1, allow_nan=False) + "\n"
    write(out, files, results(made))
    return made


def _problem(name: str, file: Path) -> Problem:
    try:
        return problem_class(name).of_file(file)
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
