"""Pileup on signal events: what real and generated pileup do to the jets (Farrell et al. 2019, section 6, figure 5).

The pileup of a test pool, and that of a generator, are added to the same signal events, jets are found, and what
changed is compared. Real against real is the same comparison with the test pool's and the validation pool's pileup.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hpcgan.errors import InputError
from hpcgan.evaluation.events import join
from hpcgan.metrics.distances import bin_edges, histogram, mean_error
from hpcgan.metrics.null_band import paired_null_band
from hpcgan.metrics.observable import Observable, weighted
from hpcgan.overlay.inputs import Images, open_generated, open_real, open_signal, settings_of
from hpcgan.problems.base import Observables
from hpcgan.problems.detector_images import files
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem
from hpcgan.problems.events import Use
from hpcgan.problems.pileup.files import check_mu
from hpcgan.report.output import Clock, Log, Report, check_folder, embed, listed, stamp, write
from hpcgan.report.page import render
from hpcgan.weights import check

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1
EXCHANGES = 1000
CHUNK = 1024  # events in memory at a time, about
SHOWN = 9
FILES = Use(select_key="--select", ignore_key="--ignore-weights")
FEW_BLOCKS = 8

#: Quantities of which the shift is given: one value an event.
SHIFTED = {"jet_multiplicity": "Jet multiplicity", "summed_jet_mass": "Summed jet mass"}

SIGNAL_ALONE, WITH_REAL, WITH_GENERATED = "Signal alone", "With real pileup", "With generated pileup"


@dataclass(frozen=True)
class OverlayOptions:
    """What is overlaid, besides the two inputs.

    Attributes
    ----------
    real_pileup : Path, optional
        Folder with the pools ``test.h5`` and ``val.h5``; default: the data of the run, wherever they are.
    events : int
        Signal events, the first of the file; as many as there are, where there are fewer.
    use : Use
        Which signal events are used, and how they count.
    checkpoint : "best" or "latest"
        Of a run.
    seed : int
        Of generated events.
    repetitions : int
        Real-against-real comparisons.
    """

    real_pileup: Path | None = None
    events: int = 4096
    use: Use = FILES
    checkpoint: Literal["best", "latest"] = "best"
    seed: int = 1
    repetitions: int = EXCHANGES


DEFAULTS = OverlayOptions()


def overlay(
    pileup: Path, signal: Path, mu: int, out: Path, options: OverlayOptions = DEFAULTS, *, log: Log = print
) -> Report:
    """Overlay real and generated pileup on signal events and write the report.

    Parameters
    ----------
    pileup : Path
        A run of `problem: pileup`, a file of generated pileup, or a pool.
    signal : Path
        A file of signal images.
    mu : int
        Events of a pileup.
    out : Path
        Folder of the report.
    options : OverlayOptions
    log : callable
        Hears of progress and warnings.

    Raises
    ------
    InputError
        Numbers out of range; files that are missing, broken, of another grid, unit or kind, or too small; a run of
        another problem or another mu.
    """
    check_mu(mu, "--mu")
    if options.events < 2:
        raise InputError(f"--events {options.events}: give at least 2")
    check_folder(out)
    clock = Clock(log)
    with contextlib.ExitStack() as stack:
        signals = open_signal(signal, options.use)
        stack.callback(signals.reader.close)
        problem, config = settings_of(pileup, mu)
        real_pileup = options.real_pileup
        if real_pileup is None:
            if config is None:
                raise InputError("--real-pileup is missing: a folder made by 'hpcgan data pileup', to compare with")
            for split in ("test", "val"):
                config.data.require(split)
            real_pileup = config.data.path
        n = min(options.events, signals.n or options.events)
        real, other = open_real(real_pileup, problem, mu, n)
        stack.callback(real.reader.close)
        stack.callback(other.reader.close)
        generated = open_generated(pileup, problem, mu, options.checkpoint, options.seed, log)
        stack.callback(generated.reader.close)
        n = min(n, generated.n or n)
        if n < 2:
            raise InputError(f"{signal if signals.n == n else pileup}: holds {n} event, too few to compare")
        if signals.weights is not None:
            where = f"{signal}: data set 'weight' of the first {n} events"
            check(
                signals.weights[:n], where, f"take more with --events, or ignore weights with {options.use.ignore_key}"
            )
        with clock("jets", f"overlaying on {n} signal events and finding jets"):
            observables, images = _reconstruct(
                {"signal": signals, "real": real, "other": other, "generated": generated}, n
            )
    with clock("score", f"scoring, and {options.repetitions} comparisons of real against real"):
        numbers = _compare(observables, options.repetitions, options.seed)
    notices = _notices(n, options.events, signals, generated, real, numbers["band"]["blocks"])
    with clock("figures", "drawing"):
        figures = [
            embed(name, caption, figure, "overlay") for name, caption, figure in _figures(observables, images, mu)
        ]
    whole = {
        "schema": "hpcgan.overlay",
        "schema_version": SCHEMA_VERSION,
        **stamp(),
        "mu": mu,
        "events": n,
        "signal": {"label": signals.label, "path": str(signal), "events": signals.n},
        "real": {"label": real.label, "path": str(real_pileup)},
        "fake": {"label": generated.label, "path": str(pileup), "seed": options.seed},
        "notices": notices,
        **numbers,
        "figures": listed(figures),
        "timing": clock.seconds(),
    }
    files: dict[str, bytes | str] = {f"{figure.name}.png": figure.png for figure in figures}
    files["overlay.json"] = json.dumps(whole, indent=1, allow_nan=False) + "\n"
    files["overlay.html"] = render("overlay.html.j2", whole, figures, notices)
    pictures = [out / name for name in files if name.endswith(".png")]
    report = Report(whole, out / "overlay.html", out / "overlay.json", pictures)
    write(out, files, results(report))
    return report


def summary(report: Report) -> str:
    """What a terminal shows of a report: a few lines."""
    return "\n".join([results(report), f"report: {report.html}", f"        {report.json}"])


def results(report: Report) -> str:
    """The lines of `summary` without the names of the files."""
    data = report.data
    lines = [f"pileup of mu = {data['mu']} on {data['events']} signal events; shift of the mean by"]
    for name, label in SHIFTED.items():
        quantity = data["quantities"][name]
        unit = f" {quantity['unit']}" if quantity["unit"] else ""
        parts = [
            f"{_spread(quantity[key])}{unit} {what}"
            for key, what in (
                ("shift_real", "(real)"),
                ("shift_generated", "(generated)"),
                ("difference", "difference"),
            )
        ]
        lines.append(f"  {label.lower():<20} {', '.join(parts)}")
    score, band = data["score"], data["band"]
    lines.append(
        f"score {score['total']:.2f} at N={score['n']}: generated against real pileup, on the same signal events"
    )
    lines += [f"  {name.replace('_', ' '):<20} {part:.2f}" for name, part in score["parts"].items()]
    lines.append(
        f"real against real: median {band['median']:.2f}, 95% below {band['p95']:.2f} +- {band['p95_error']:.2f}, "
        f"99% below {band['p99']:.2f}; {data['share_above']:.1%} as high as the generated, or higher"
    )
    lines += [f"note: {notice}" for notice in data["notices"]]
    return "\n".join(lines)


def _spread(part: dict[str, Any]) -> str:
    return f"{part['mean']:+.3g}" + ("" if part["error"] is None else f" +- {part['error']:.2g}")


def _reconstruct(inputs: dict[str, Images], n: int) -> tuple[dict[str, Observables], dict[str, np.ndarray]]:
    """Jets of the signal alone and with each pileup, and the first images of each."""
    step = inputs["generated"].reader.step
    size = step * max(1, CHUNK // step)
    jets = RpvProblem(RpvModel())
    parts: dict[str, list[Observables]] = {name: [] for name in inputs}
    first_images: dict[str, np.ndarray] = {}
    for first in range(0, n, size):
        count = min(size, n - first)
        alone = _checked(inputs["signal"], first, count)
        for name, images in inputs.items():
            overlaid = alone if name == "signal" else alone + _checked(images, first, count)
            parts[name].append(jets.observables({"hist": overlaid}))
            first_images.setdefault(name, overlaid[:SHOWN])
    observables = {name: join(pieces) for name, pieces in parts.items()}
    weights = inputs["signal"].weights
    if weights is not None:
        observables = {name: weighted(side, weights[:n]) for name, side in observables.items()}
    for name in ("real", "other"):
        of = inputs[name].reader.blocks
        blocks = None if of is None else of(0, n)
        side = observables[name].items()
        observables[name] = {key: dataclasses.replace(value, blocks=blocks) for key, value in side}
    return observables, first_images


def _checked(images: Images, first: int, count: int) -> np.ndarray:
    sums = images.reader.read(first, count)
    files.check_images(sums, str(images.path), first)
    return sums


def _compare(observables: dict[str, Observables], repetitions: int, seed: int) -> dict[str, Any]:
    problem = RpvProblem(RpvModel())
    signal, real, generated = observables["signal"], observables["real"], observables["generated"]
    score = problem.score(real, generated)
    band = paired_null_band(real, observables["other"], problem.score, repetitions, seed)
    quantities = {name: _shifts(signal[name], real[name], generated[name]) for name in SHIFTED}
    return {
        "quantities": quantities,
        "score": dataclasses.asdict(score),
        "band": band.to_json(),
        "share_above": band.share_above(score),
    }


def _shifts(signal: Observable, real: Observable, generated: Observable) -> dict[str, Any]:
    """Means, how far they move, and the curves, of a quantity with one value an event."""
    values = {"real": real.values - signal.values, "generated": generated.values - signal.values}
    w = signal.weights
    edges = bin_edges(np.concatenate([signal.values, real.values]))
    return {
        "unit": signal.unit,
        "signal": _mean(signal),
        "with_real": _mean(real),
        "with_generated": _mean(generated),
        "shift_real": _mean(Observable(values["real"], blocks=real.blocks, weights=w)),
        "shift_generated": _mean(Observable(values["generated"], weights=w)),
        "difference": _mean(Observable(generated.values - real.values, blocks=real.blocks, weights=w)),
        "curves": {
            "edges": edges.tolist(),
            **{
                name: histogram(side.values, edges, side.value_weights).tolist()
                for name, side in (("signal", signal), ("with_real", real), ("with_generated", generated))
            },
        },
    }


def _mean(observable: Observable) -> dict[str, float | None]:
    mean, error = mean_error(observable)
    return {"mean": mean, "error": error}


def _notices(n: int, requested: int, signals: Images, generated: Images, real: Images, blocks: int | None) -> list[str]:
    notices = list(signals.notices)
    if n < requested:
        limits = [f"{images.path} has {images.n} events" for images in (signals, generated) if images.n is not None]
        notices.append(f"N = {n} instead of {requested}: {', '.join(limits)}. Not comparable with scores at another N.")
    if generated.path.is_file() and real.path.samefile(generated.path):
        notices.append("Real and generated pileup come from the same file.")
    if blocks is not None and blocks < FEW_BLOCKS:
        notices.append(
            f"The pools have {blocks} independent blocks only, so that the null band rests on {2 ** (blocks - 1)} "
            "different exchanges, and errors of real pileup are rough; a larger pool has more."
        )
    return notices


def _figures(
    observables: dict[str, Observables], images: dict[str, np.ndarray], mu: int
) -> list[tuple[str, str, Figure]]:
    from hpcgan.problems.detector_images.figures import AXES, EXTENT
    from hpcgan.report import plots

    signal, real, generated = (observables[name] for name in ("signal", "real", "generated"))

    def sides(name: str) -> dict[str, Observable]:
        return {WITH_REAL: real[name], WITH_GENERATED: generated[name], SIGNAL_ALONE: signal[name]}

    figures = []
    for name, label in SHIFTED.items():
        edges = bin_edges(np.concatenate([signal[name].values, real[name].values]))
        caption = f"{label} of the signal alone and with pileup of mu = {mu} (figure 5 of Farrell et al. 2019)."
        figures.append((name, caption, plots.named_histogram_ratio(sides(name), label, edges=edges)))
        unit, weights = signal[name].unit, signal[name].weights
        shifts = {
            f"{kind} pileup": Observable(side[name].values - signal[name].values, unit=unit, weights=weights)
            for kind, side in (("Real", real), ("Generated", generated))
        }
        caption = f"What pileup adds to the {label.lower()} of each event."
        figures.append((f"{name}_shift", caption, plots.named_histogram_ratio(shifts, f"Shift of {label.lower()}")))
    figure = plots.named_histogram_ratio(sides("jet_pt"), "Jet $p_T$", entries="Jets", log_y=True)
    figures.append(("jet_pt", "Transverse momentum of every jet.", figure))
    figure = plots.image_grid(images["real"], images["generated"], EXTENT, "Energy [MeV]", AXES)
    figures.append(("images", "The same signal events with real and with generated pileup, unselected.", figure))
    return figures
