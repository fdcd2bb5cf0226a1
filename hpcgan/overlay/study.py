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
from hpcgan.evaluation.compare import join
from hpcgan.evaluation.output import Clock, Log, check_folder, embed, stamp, write
from hpcgan.metrics.distances import bin_edges, histogram, mean_error
from hpcgan.metrics.null_band import paired_null_band
from hpcgan.metrics.observable import Observable, weighted
from hpcgan.overlay import page as overlay_page
from hpcgan.overlay.inputs import Images, open_generated, open_real, open_signal, settings_of
from hpcgan.problems.base import Observables
from hpcgan.problems.detector_images import files
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem
from hpcgan.problems.events import Use
from hpcgan.problems.pileup.files import check_mu
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
class Report:
    """A written report.

    Attributes
    ----------
    data : dict
        Content of the JSON file.
    html, json : Path
    pictures : list of Path
    """

    data: dict[str, Any]
    html: Path
    json: Path
    pictures: list[Path]


def overlay(
    pileup: Path,
    signal: Path,
    mu: int,
    out: Path,
    *,
    real_pileup: Path | None = None,
    events: int = 4096,
    use: Use = FILES,
    checkpoint: Literal["best", "latest"] = "best",
    seed: int = 1,
    repetitions: int = EXCHANGES,
    log: Log = print,
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
    log : callable
        Hears of progress and warnings.

    Raises
    ------
    InputError
        Numbers out of range; files that are missing, broken, of another grid, unit or kind, or too small; a run of
        another problem or another mu.
    """
    check_mu(mu, "--mu")
    if events < 2:
        raise InputError(f"--events {events}: give at least 2")
    check_folder(out)
    clock = Clock(log)
    with contextlib.ExitStack() as stack:
        signals = open_signal(signal, use)
        stack.callback(signals.close)
        problem, config = settings_of(pileup, mu)
        if real_pileup is None:
            if config is None:
                raise InputError("--real-pileup is missing: a folder made by 'hpcgan data pileup', to compare with")
            for split in ("test", "val"):
                config.data.require(split)
            real_pileup = config.data.path
        n = min(events, signals.n or events)
        real, other = open_real(real_pileup, problem, mu, n)
        stack.callback(real.close)
        stack.callback(other.close)
        generated = open_generated(pileup, problem, mu, checkpoint, seed, log)
        stack.callback(generated.close)
        n = min(n, generated.n or n)
        if n < 2:
            raise InputError(f"{signal if signals.n == n else pileup}: holds {n} event, too few to compare")
        if signals.weights is not None:
            where = f"{signal}: data set 'weight' of the first {n} events"
            check(signals.weights[:n], where, f"take more with --events, or ignore weights with {use.ignore_key}")
        with clock("jets", f"overlaying on {n} signal events and finding jets"):
            found, shown = _reconstruct({"signal": signals, "real": real, "other": other, "generated": generated}, n)
    with clock("score", f"scoring, and {repetitions} comparisons of real against real"):
        numbers = _compare(found, repetitions, seed)
    notices = _notices(n, events, signals, generated, real, numbers["band"]["blocks"])
    with clock("figures", "drawing"):
        figures = [embed(name, caption, figure, "overlay") for name, caption, figure in _figures(found, shown, mu)]
    whole = {
        "schema": "hpcgan.overlay",
        "schema_version": SCHEMA_VERSION,
        **stamp(),
        "mu": mu,
        "events": n,
        "signal": {"label": signals.label, "path": str(signal), "events": signals.n},
        "real": {"label": real.label, "path": str(real_pileup)},
        "fake": {"label": generated.label, "path": str(pileup), "seed": seed},
        "notices": notices,
        **numbers,
        "figures": [{"name": f.name, "caption": f.caption, "group": f.group} for f in figures],
        "timing": clock.seconds(),
    }
    files: dict[str, bytes | str] = {f"{figure.name}.png": figure.png for figure in figures}
    files["overlay.json"] = json.dumps(whole, indent=1, allow_nan=False) + "\n"
    files["overlay.html"] = overlay_page.render(whole, figures)
    pictures = [out / name for name in files if name.endswith(".png")]
    made = Report(whole, out / "overlay.html", out / "overlay.json", pictures)
    write(out, files, results(made))
    return made


def summary(report: Report) -> str:
    """What a terminal shows of a report: a few lines."""
    return "\n".join([results(report), f"report: {report.html}", f"        {report.json}"])


def results(report: Report) -> str:
    """The lines of `summary` without the names of the files."""
    data = report.data
    lines = [f"pileup of mu = {data['mu']} on {data['events']} signal events; shift of the mean by"]
    for name, label in SHIFTED.items():
        found = data["quantities"][name]
        unit = f" {found['unit']}" if found["unit"] else ""
        parts = [
            f"{_spread(found[key])}{unit} {what}"
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
    step = inputs["generated"].step
    size = step * max(1, CHUNK // step)
    jets = RpvProblem(RpvModel())
    parts: dict[str, list[Observables]] = {name: [] for name in inputs}
    shown: dict[str, np.ndarray] = {}
    for first in range(0, n, size):
        count = min(size, n - first)
        alone = _checked(inputs["signal"], first, count)
        for name, images in inputs.items():
            made = alone if name == "signal" else alone + _checked(images, first, count)
            parts[name].append(jets.observables({"hist": made}))
            shown.setdefault(name, made[:SHOWN])
    found = {name: join(pieces) for name, pieces in parts.items()}
    weights = inputs["signal"].weights
    if weights is not None:
        found = {name: weighted(side, weights[:n]) for name, side in found.items()}
    for name in ("real", "other"):
        of = inputs[name].blocks
        blocks = None if of is None else of(0, n)
        found[name] = {key: dataclasses.replace(value, blocks=blocks) for key, value in found[name].items()}
    return found, shown


def _checked(images: Images, first: int, count: int) -> np.ndarray:
    made = images.read(first, count)
    files.check_images(made, str(images.path), first)
    return made


def _compare(found: dict[str, Observables], repetitions: int, seed: int) -> dict[str, Any]:
    problem = RpvProblem(RpvModel())
    signal, real, generated = found["signal"], found["real"], found["generated"]
    score = problem.score(real, generated)
    band = paired_null_band(real, found["other"], problem.score, repetitions, seed)
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
        there = [f"{images.path} has {images.n} events" for images in (signals, generated) if images.n is not None]
        notices.append(f"N = {n} instead of {requested}: {', '.join(there)}. Not comparable with scores at another N.")
    if generated.path.is_file() and real.path.samefile(generated.path):
        notices.append("Real and generated pileup come from the same file.")
    if blocks is not None and blocks < FEW_BLOCKS:
        notices.append(
            f"The pools have {blocks} independent blocks only, so that the null band rests on {2 ** (blocks - 1)} "
            "different exchanges, and errors of real pileup are rough; a larger pool has more."
        )
    return notices


def _figures(found: dict[str, Observables], shown: dict[str, np.ndarray], mu: int) -> list[tuple[str, str, Figure]]:
    from hpcgan.problems.detector_images.figures import AXES, EXTENT
    from hpcgan.report import plots

    signal, real, generated = found["signal"], found["real"], found["generated"]
    names = (WITH_REAL, WITH_GENERATED)
    made = []
    for name, label in SHIFTED.items():
        edges = bin_edges(np.concatenate([signal[name].values, real[name].values]))
        figure = plots.histogram_ratio(
            real[name], generated[name], label, edges=edges, names=names, before=(SIGNAL_ALONE, signal[name])
        )
        caption = f"{label} of the signal alone and with pileup of mu = {mu} (figure 5 of Farrell et al. 2019)."
        made.append((name, caption, figure))
        a, b = (
            Observable(side[name].values - signal[name].values, unit=signal[name].unit, weights=signal[name].weights)
            for side in (real, generated)
        )
        figure = plots.histogram_ratio(a, b, f"Shift of {label.lower()}", names=("Real pileup", "Generated pileup"))
        made.append((f"{name}_shift", f"What pileup adds to the {label.lower()} of each event.", figure))
    figure = plots.histogram_ratio(
        real["jet_pt"],
        generated["jet_pt"],
        "Jet $p_T$",
        entries="Jets",
        log_y=True,
        names=names,
        before=(SIGNAL_ALONE, signal["jet_pt"]),
    )
    made.append(("jet_pt", "Transverse momentum of every jet.", figure))
    figure = plots.image_grid(shown["real"], shown["generated"], EXTENT, "Energy [MeV]", AXES)
    made.append(("images", "The same signal events with real and with generated pileup, unselected.", figure))
    return made
