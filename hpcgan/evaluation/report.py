"""Evaluation of a run, or of anybody's files: one HTML page and one JSON file.

Loading a run imports TensorFlow; comparing files does only where there is a classifier.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pydantic

from hpcgan.config import settings_of
from hpcgan.data.schema import Sample, take
from hpcgan.errors import InputError
from hpcgan.evaluation import by_point, more_scores
from hpcgan.evaluation import distances as sample_distances
from hpcgan.evaluation import held_out as held_out_loss
from hpcgan.evaluation.compare import EVENTS, Comparison, EvaluationOptions, compare, to_json
from hpcgan.evaluation.conditional import Beyond, match, probe, score_left_out, trained_rows
from hpcgan.evaluation.conditions import each
from hpcgan.evaluation.events import join, notices_of, observables_of_sample, read
from hpcgan.evaluation.more_scores import MoreSamples
from hpcgan.metrics import points
from hpcgan.metrics.observable import weighted, weights_of
from hpcgan.problems import run_data
from hpcgan.problems.base import Observables, Problem, problem_class
from hpcgan.problems.events import Use
from hpcgan.problems.figures import figures_of
from hpcgan.problems.layouts import problem_of
from hpcgan.report.output import Clock, Log, Report, check_folder, embed, listed, stamp, write
from hpcgan.report.page import EmbeddedFigure, render
from hpcgan.runs import pretrained, records
from hpcgan.runs.directory import trained_run
from hpcgan.runs.goodput import PARTS, TimeSpent, time_spent
from hpcgan.runs.records import Epoch
from hpcgan.system.console import quiet_tensorflow
from hpcgan.weights import check

if TYPE_CHECKING:
    from hpcgan.evaluation.sampling import CheckpointInfo, RunSampler

#: Version of the JSON's layout; grows when a key changes its meaning or goes.
SCHEMA_VERSION = 2
#: Of an epoch's record.
CURVES = ("epoch", "step", "samples", "losses", "held_out", "collapse", "score", "samples_per_second")
DEFAULTS = EvaluationOptions()
#: Real events read from one file, at most, in units of the events on each side.
POOL_FACTOR = 10
#: All events of files, with their weights, and the options that change it.
FILES = Use(select_key="--select", ignore_key="--ignore-weights")


@dataclass(frozen=True)
class History:
    """What a run has written: its `epoch` records, its provenance, an entry an attempt, and what its time went to."""

    epochs: list[Epoch] = field(default_factory=list)
    provenance: list[dict[str, Any]] = field(default_factory=list)
    spent: TimeSpent | None = None


def evaluate_run(
    run: Path,
    options: EvaluationOptions = DEFAULTS,
    *,
    checkpoint: Literal["best", "latest"] = "best",
    split: str = "test",
    data: Path | None = None,
    out: Path | None = None,
    log: Log = print,
) -> Report:
    """Score a run's generator against held-out events and write the report.

    Parameters
    ----------
    run : Path
        Run directory.
    options : EvaluationOptions
        How much is compared.
    checkpoint : "best" or "latest"
    split : "test", "val" or "train"
        Real events the generated ones are held against. The null band always comes from validation and
        test events.
    data : Path, optional
        Real events; default: the run's own data, wherever they lie now (`hpcgan.problems.run_data`).
    out : Path, optional
        Folder of the report; default: `report` in the run directory.
    log : callable
        Hears of progress and warnings.

    Raises
    ------
    InputError
        No run there, no checkpoint yet, bad data files, or others than the run's.
    """
    directory = trained_run(run)  # said before TensorFlow takes its seconds to load
    if out is None and pretrained.is_name(run):
        raise InputError(f"{run}: --out is missing: name a folder for the report")
    out = out or directory.report
    check_folder(out)
    notices: list[str] = []
    if data is None:
        config = run_data.load(directory)
    else:
        config, notice = run_data.with_other_data(directory.load_config(), directory, data)
        notices += [] if notice is None else [notice]
    try:
        for name in sorted({split, "val", "test"}):
            config.data.require(name)
    except InputError as error:
        raise InputError(f"{error}; --data DIR says where they are, or takes others on purpose") from None
    quiet_tensorflow()
    from hpcgan.evaluation.sampling import load_sampler

    sampler = dataclasses.replace(load_sampler(run, checkpoint, warn=log), config=config)
    if options.events is None:
        options = dataclasses.replace(options, events=config.scoring.events)
    stem = "report" if (checkpoint, split) == ("best", "test") else f"report-{checkpoint}-{split}"
    history = History(
        records.read(directory.metrics_file, Epoch),
        records.read_lines(directory.provenance_file),
        time_spent(directory),
    )
    return evaluate_sampler(sampler, history, options, page=out / f"{stem}.html", split=split, notices=notices, log=log)


def evaluate_sampler(
    sampler: RunSampler,
    history: History,
    options: EvaluationOptions = DEFAULTS,
    *,
    page: Path,
    split: str = "test",
    notices: Sequence[str] = (),
    log: Log = print,
) -> Report:
    """`evaluate_run` for a sampler at hand; `page` is the HTML file that is written."""
    problem, config = sampler.problem, sampler.config
    folder, left_out = Path(config.data.path), config.data.leave_out if sampler.problem.conditions else []
    report = _Evaluation(problem, options, list(notices), Clock(log))
    use, clock, notices = Use.of(config.data), report.clock, report.notices
    with clock("real_events", f"reading real events of {folder}"):
        limit = POOL_FACTOR * report.requested
        whole = {name: read(problem, folder, name, limit, use) for name in sorted({split, "val", "test"})}
        trained = {name: loaded.without(left_out) for name, loaded in whole.items()}
        held_out = trained[split]
        if held_out.total < 2:
            raise InputError(f"{held_out.source.path}: {held_out.total} events are left of data.leave_out, too few")
        n = min(report.requested, held_out.total)
        inputs = report.inputs(n)
        real = points.take(held_out.observables, np.arange(n))
        pool = join([trained["val"].observables, trained["test"].observables])
    more = MoreSamples.of(problem, held_out.observables, config.scoring.quantities)
    with clock("more_observables", "measuring what is not in the score"):
        of_splits = {name: more.of_loaded(loaded) for name, loaded in trained.items()}
        more.real = points.take(of_splits[split], np.arange(n))
        more.pool = join([of_splits["val"], of_splits["test"]])
    weights = held_out.weights(slice(n))
    conditions: dict[str, Any] = {}
    if problem.conditions:
        conditions["conditions"] = each(take(held_out.source.conditions(), held_out.order[:n]))
    seeds = list(range(options.seed, options.seed + options.samples))
    fakes: list[Observables] = []
    first: Sample = {}
    for seed in seeds:
        with clock("generated_events", f"generating sample {len(fakes) + 1} of {options.samples}, {n} events"):
            sample = sampler.sample(n, seed, **conditions)
            observables = observables_of_sample(problem, sample)
            # An event that is asked for by the conditions of a real one has its weight.
            fakes.append(weighted(observables, weights) if problem.conditions else observables)
            more.add_generated(sample, weights if problem.conditions else None)
            first = first or sample
    report.note_size(n, f"the {split} split has {held_out.total} events")
    if split != "test":
        notices.append(f"Scored on the {split} split, which training or selection has seen: not a held-out score.")
    notices += notices_of(held_out.source, use)
    beyond = Beyond()
    if left_out:
        with clock("left_out", "scoring at the points that were left out of the training"):
            beyond = score_left_out(sampler, whole, split, left_out, real, pool, options)
    real_sample = held_out.sample(slice(n))
    with clock("probes"):
        probe(sampler, beyond, real_sample, options.seed, weights)
    cells: tuple[Sample, ...] = (real_sample, first)
    more_weights = None
    if _wants_cells(inputs):
        other = trained["val" if split != "val" else "test"]
        more_weights = other.weights(slice(n))
        cells = (*cells, other.sample(slice(n)))
    training = None
    if options.distances.distances:
        with clock("training_events", f"reading training events of {folder}"):
            try:
                if "train" not in trained:
                    config.data.require("train")
                    trained["train"] = read(problem, folder, "train", limit, use).without(left_out)
                training = trained["train"].observables
                more.add_training(trained["train"])
            except InputError as error:
                notices.append(f"Not checked for memorised training events: {error}")
    for loaded in trained.values():
        loaded.source.close()
    samples = sample_distances.Samples(n, real, fakes, pool, training, cells, more_weights)
    numbers, figures = report.compare(samples, beyond, more)
    settings = config.dump()
    numbers["training"] = _training(sampler.checkpoint, config.scoring.criterion, history, settings)
    loss = settings_of(settings["method"]).loss_label
    with clock("held_out"):
        numbers["held_out"] = _held_out(sampler, loss, real_sample, weights)
    with clock("figures"):
        from hpcgan.report.training_curves import training_figures

        figures += training_figures(history.epochs, sampler.checkpoint.epoch, numbers["band"], loss)
    sides = {
        "real": {"label": f"{split} events of {folder}", "path": str(folder), "split": split, "events": held_out.total},
        "fake": {"label": f"{options.samples} x {n} generated events", "seeds": seeds},
    }
    return report.write(page, {"title": settings["name"], "problem": settings["problem"], **sides, **numbers}, figures)


def compare_files(
    real: Path,
    fake: Path,
    options: EvaluationOptions = DEFAULTS,
    *,
    problem: str | None = None,
    use: Use = FILES,
    out: Path | None = None,
    log: Log = print,
) -> Report:
    """Hold a file of generated events against a file of real ones.

    Parameters
    ----------
    real, fake : Path
        Files in the layout of the problem's training data. The null band comes from all events of `real`.
    options : EvaluationOptions
        How much is compared. What was trained on is not known here, so that memorisation is not looked for.
    problem : str, optional
        What the files hold; default: what the real one says, or its layout.
    use : Use
        Which real events are used, and how events count. What is selected of real events is of generated ones as well,
        where these differ in it.
    out : Path, optional
        Folder of the report; default: `NAME-report` beside the generated file.
    log : callable
        As for `evaluate_run`.

    Raises
    ------
    InputError
        Unknown problem, or a file that is missing, broken or too small.
    """
    if problem is not None:
        problem_class(problem)  # before anything else, whether there is one
    real, fake = Path(real), Path(fake)
    for path in (real, fake):
        if not path.is_file():
            raise InputError(f"{path}: no such file")
    out = out or fake.with_name(f"{fake.stem}-report")
    check_folder(out)
    problem = problem or problem_of(real)
    try:
        subject = problem_class(problem).of_files(real, fake)
    except pydantic.ValidationError as error:
        raise InputError(f"problem '{problem}' needs a model configuration ({error.errors()[0]['msg']})") from None
    report = _Evaluation(subject, options, [], Clock(log))
    with report.clock("real_events", f"reading {real}"):
        of_real = read(subject, real, "test", POOL_FACTOR * report.requested, use)
    with report.clock("generated_events", f"reading {fake}"):
        of_fakes = dataclasses.replace(use, select=_mixed(subject, fake, use.select))
        limit = options.samples * min(report.requested, of_real.total)
        of_fake = read(subject, fake, "test", limit, of_fakes)
    n = min(report.requested, of_real.total, of_fake.total)
    on_real, count = np.arange(n), min(options.samples, of_fake.total // n)
    on_fakes = [np.arange(i * n, (i + 1) * n) for i in range(count)]
    left_out: list[str] = []
    if subject.conditions:
        try:
            on_real, on_fakes, left_out = match(
                of_real.observables, of_fake.observables, report.requested, options.samples
            )
        except ValueError as error:
            raise InputError(f"{fake}: {error}") from None
        n = len(on_real)
    report.note_size(n, f"{real} has {of_real.total} events, {fake} {of_fake.total}")
    inputs = report.inputs(n)
    report.notices.extend([*left_out, *notices_of(of_real.source, use), *notices_of(of_fake.source, use)])
    if real.samefile(fake):
        report.notices.append("Real and generated events are the same file.")
    more = MoreSamples.of(subject, of_real.observables)
    with report.clock("more_observables", "measuring what is not in the score"):
        more.pool, more_fake = more.of_loaded(of_real), more.of_loaded(of_fake)
        more.real = points.take(more.pool, on_real)
        more.fakes = [points.take(more_fake, events_of_sample) for events_of_sample in on_fakes]
    others = np.setdiff1d(np.arange(len(of_real.order)), on_real)[:n]
    cells: tuple[Sample, ...] = (of_real.sample(on_real), of_fake.sample(on_fakes[0]))
    if _wants_cells(inputs):
        cells = (*cells, of_real.sample(others))
    samples = sample_distances.Samples(
        n,
        points.take(of_real.observables, on_real),
        [points.take(of_fake.observables, events_of_sample) for events_of_sample in on_fakes],
        of_real.observables,
        cells=cells,
        more_weights=of_real.weights(others),
    )
    numbers, figures = report.compare(samples, Beyond(), more)
    of_real.source.close()
    of_fake.source.close()
    sides = {
        "real": {"label": f"real: {real}", "path": str(real), "split": None, "events": of_real.total},
        "fake": {"label": f"generated: {fake}", "path": str(fake), "events": of_fake.total},
    }
    content = {"title": fake.name, "problem": problem, **sides, **numbers, "held_out": None, "training": None}
    return report.write(out / "report.html", content, figures)


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
    lines += more_scores.summary(data)
    if data["held_out"] is not None:
        loss = data["held_out"]
        lines.append(f"loss of the real events: {loss['mean']:.2f} +- {loss['error']:.2f} ({loss['loss']})")
    lines += _points_summary(data["points"])
    lines += by_point.summary(data)
    lines += sample_distances.summary(data["sample_distances"])
    lines += [f"note: {notice}" for notice in data["notices"]]
    return "\n".join(lines)


def _points_summary(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        name = points.label(row["conditions"])
        apart = "" if row["trained"] else ", left out of the training"
        level = f"real: 95% below {row['band']['p95']:.2f}"
        lines.append(f"  at {name}: {_spread(row['score'])} at N={row['n']} ({level}){apart}")
        if row["nearest"] is not None:
            nearest, where = row["nearest"], points.label(row["nearest"]["conditions"])
            lines.append(
                f"    instead of it, nearest trained {where}: {_spread(nearest['real'])} real, "
                f"{_spread(nearest['generated'])} generated"
            )
    return ["score at each point:", *lines] if rows else []


def _spread(part: dict[str, Any]) -> str:
    return f"{part['mean']:.2f}" + ("" if part["std"] is None else f" +- {part['std']:.2f}")


@dataclass(frozen=True)
class _Evaluation:
    """A report on its way: what it is about, and what its reader has to know."""

    problem: Problem
    options: EvaluationOptions
    notices: list[str]
    clock: Clock

    @property
    def requested(self) -> int:
        """Events on each side."""
        return EVENTS if self.options.events is None else self.options.events

    def inputs(self, n: int) -> tuple[sample_distances.Inputs, ...]:
        """What classifiers are trained on for `n` events on each side."""
        return self.options.distances.inputs(self.problem, n)

    def note_size(self, n: int, reason: str) -> None:
        """Say so if fewer events are compared than were asked for."""
        if n != self.requested:
            self.notices.append(
                f"Scored at N={n} instead of {self.requested}: {reason}. Not comparable with scores at another N."
            )

    def compare(
        self, samples: sample_distances.Samples, beyond: Beyond, more: MoreSamples
    ) -> tuple[dict[str, Any], list[EmbeddedFigure]]:
        """The part of a report that runs and files have in common: numbers and figures."""
        problem, real, fakes = self.problem, samples.real, samples.fakes
        repetitions, n = self.options.repetitions, len(next(iter(samples.cells[0].values())))
        distances = dataclasses.replace(self.options.distances, classifier=self.inputs(n))
        _check_points(real, samples.pool)
        for side, name in ((real, "real"), *((fake, "generated") for fake in fakes)):
            weights = weights_of(side)
            if weights is not None:
                check(weights, f"the {name} events that are compared", "compare more with --events")
        with self.clock("scores", f"scoring, and {repetitions} comparisons of real against real"):
            comparison = compare(problem, real, fakes, samples.pool, self.requested, repetitions)
        self._note_band(comparison)
        numbers = to_json(comparison)
        self.notices.extend(beyond.notices)
        numbers["points"] = [*trained_rows(comparison.band, comparison.band_scores), *beyond.rows]
        for name, distance in numbers["distances"].items():
            distance["unit"] = real[name].unit
        with self.clock("more_scores", "scoring what is not in the score" if more.names else ""):
            numbers |= more_scores.measure(samples, more, repetitions)
        with self.clock("by_point", "distances at each point of the conditions" if problem.conditions else ""):
            scored = [*numbers["points"], *((numbers["more_scores"] or {}).get("points", []))]
            numbers["by_point"] = by_point.measure(samples, more, comparison, scored, distances, self.clock.log)
        samples = dataclasses.replace(samples, n=comparison.band.n)
        with self.clock("sample_distances", "distances between samples" if distances.distances else ""):
            numbers["sample_distances"] = sample_distances.measure(samples, distances, self.clock.log)
        self._note_distances(samples, numbers["sample_distances"])
        of_classifier: list[EmbeddedFigure] = []
        if "images" in self.inputs(n) and numbers["sample_distances"] is not None:
            with self.clock("image_classifier"):
                on_images, figure = self._classify_images(samples)
                numbers["by_point"] = by_point.with_classifier(numbers["by_point"], on_images.pop("points"))
                numbers["sample_distances"]["classifier"]["images"] = on_images
                of_classifier.append(figure)
        if "conditions" in self.inputs(n) and numbers["sample_distances"] is not None:
            with self.clock("condition_classifier"):
                numbers["sample_distances"]["between_conditions"] = sample_distances.classify_conditions(
                    problem, samples, distances, self.clock.log
                )
        real_sample, fake_sample = samples.cells[:2]
        sides = (weights_of(real), weights_of(fakes[0]))
        with self.clock("figures", "drawing"):
            figures = [_band_figure(comparison), *of_classifier]
            if problem.conditions:
                everywhere = (join([real, *beyond.real]), join([fakes[0], *beyond.fake]))
                left_out = [row["conditions"] for row in beyond.rows]
                figures += [embed(*figure, "points") for figure in figures_of(problem).points(*everywhere, left_out)]
            of_problem = [*figures_of(problem).compare(real_sample, fake_sample, sides), *beyond.figures]
            figures += [embed(*figure, "physics") for figure in of_problem]
        numbers["measurements"] = figures_of(problem).measurements(real_sample, fake_sample, sides)
        numbers["probes"] = beyond.probes
        return {"notices": self.notices, **numbers}, figures

    def _classify_images(self, samples: sample_distances.Samples) -> tuple[dict[str, Any], EmbeddedFigure]:
        """The numbers of classifiers on images, and where they look."""
        from hpcgan.report import plots

        numbers, suspects = sample_distances.classify_images(self.problem, samples, self.clock.log)
        canvas = figures_of(self.problem).canvas
        figure = plots.attention(
            suspects.real,
            suspects.events,
            suspects.attention,
            canvas.extent,
            canvas.value,
            canvas.axes,
            linear=canvas.linear,
        )
        caption = (
            f"Where the classifier on images looks: the {len(suspects.events)} generated events of its test that it "
            "takes least for real ones. Attention: gradient of its output times input, absolute values."
        )
        return numbers, embed("attention", caption, figure, "classifier")

    def _note_band(self, comparison: Comparison) -> None:
        band, splits = comparison.band, comparison.band.splits
        if not band.complete:
            self.notices.append(
                f"The null band is at N={band.n}, the largest possible with {splits.pool} real events, "
                f"not at N={comparison.n}: only the score at N={band.n} may be held against it."
            )
        if splits.blocks is not None:
            self.notices.append(
                f"Real events share what they are made of within {splits.blocks} blocks: the null band allows for it, "
                "error bars of figures and single KS tests do not."
            )

    def _note_distances(self, samples: sample_distances.Samples, measured: dict[str, Any] | None) -> None:
        distances = self.options.distances
        if measured is None and (distances.distances or self.inputs(samples.n)):
            enough = sample_distances.of_single_events(samples).n
            by_weight = " that can be drawn by weight" if enough < samples.n else ""
            self.notices.append(
                f"No distances between samples: they take {sample_distances.LEAST} real events on each side, twice; "
                f"there are {enough}{by_weight}."
            )
        elif measured is not None and measured["n"] < samples.n:
            self.notices.append(
                f"Distances between samples compare single events: {measured['n']} on each side, drawn "
                "by |weight|, none of them twice."
            )

    def write(self, page: Path, content: dict[str, Any], figures: list[EmbeddedFigure]) -> Report:
        """Write the page, and the JSON file beside it."""
        data = {
            "schema": "hpcgan.report",
            "schema_version": SCHEMA_VERSION,
            **stamp(),
            **content,
            "figures": listed(figures),
            "timing": self.clock.seconds(),
        }
        report = Report(data, page, page.with_suffix(".json"))
        files: dict[str, bytes | str] = {
            page.name: render(
                "evaluation.html.j2",
                data,
                figures,
                self.notices,
                distance_titles=sample_distances.NAMES,
                parts_of_time=PARTS,
            ),
            report.json.name: json.dumps(data, indent=1, allow_nan=False) + "\n",
        }
        write(page.parent, files, results(report))
        return report


def _wants_cells(inputs: Sequence[sample_distances.Inputs]) -> bool:
    """Whether a classifier needs more real events than those of the score, to hold real ones against real ones."""
    return not {"cells", "images", "conditions"}.isdisjoint(inputs)


def _check_points(real: Observables, pool: Observables) -> None:
    """Refuse a point of the conditions at which there are too few real events for a null band."""
    available = points.sizes(pool)
    for point in points.sizes(real):
        if available.get(point, 0) < 2:
            where = points.label(points.described(real, point))
            raise InputError(f"real events at {where}: {available.get(point, 0)} are too few for a null band")


def _band_figure(comparison: Comparison) -> EmbeddedFigure:
    from hpcgan.report import plots

    band = comparison.band
    figure = plots.null_distribution(band.samples, [score.total for score in comparison.band_scores], band.n)
    caption = (
        f"Score of {len(comparison.scores)} generated samples (lines) and of {len(band.samples)} random disjoint "
        f"splits of real events, all at N = {band.n}."
    )
    return embed("null_band", caption, figure, "score")


def _mixed(problem: Problem, fake: Path, select: Mapping[str, float | list[float]]) -> dict[str, float | list[float]]:
    """What of a selection generated events differ in: they may state a single label for all."""
    source = problem.open(fake, "test", cache_mb=0)
    try:
        labels = source.labels()
        return {name: v for name, v in select.items() if name in labels and len(np.unique(source.label(name))) > 1}
    finally:
        source.close()


def _held_out(sampler: RunSampler, loss: str, real: Sample, weights: np.ndarray | None) -> dict[str, Any] | None:
    """The loss of the real events, where the method's says how good its samples are."""
    if sampler.held_out_losses is None:
        return None
    values = held_out_loss.of_sample(sampler.held_out_losses, sampler.problem, real, sampler.batch_size)
    return dataclasses.asdict(held_out_loss.summary(loss, values, weights))


def _training(
    info: CheckpointInfo,
    criterion: str,
    history: History,
    config: dict[str, Any],
) -> dict[str, Any]:
    epochs = history.epochs
    of_checkpoint = next((r for r in epochs if r.epoch == info.epoch and r.step == info.step), None)
    rates = [r.samples_per_second for r in epochs if r.samples_per_second]
    return {
        "checkpoint": {
            "epoch": info.epoch,
            "step": info.step,
            "samples": of_checkpoint.samples if of_checkpoint else None,
            "score": info.score,
            "criterion": criterion,
            "score_n": of_checkpoint.score.n if of_checkpoint and of_checkpoint.score else None,
        },
        "epochs": epochs[-1].epoch if epochs else 0,
        "samples": epochs[-1].samples if epochs else 0,
        "samples_per_second": float(np.median(rates)) if rates else None,
        "time": None if history.spent is None else history.spent.plain(),
        "curves": [{key: value for key, value in records.plain(r).items() if key in CURVES} for r in epochs],
        "config": config,
        "provenance": history.provenance,
    }
