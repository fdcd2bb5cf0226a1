"""Distributions and means of quantities, real and generated, and the ratio of the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import mplhep
import numpy as np
from hist.intervals import poisson_interval, ratio_uncertainty
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from hpcgan import weights as of_events
from hpcgan.metrics.distances import bin_edges, histogram
from hpcgan.metrics.observable import UNWEIGHTED, Observable, SidesWeights
from hpcgan.report.plots.style import BEFORE, FAKE, REAL, new_figure, styled, with_unit
from hpcgan.weights import counting


def histogram_ratio(
    real: Observable,
    fake: Observable,
    label: str,
    *,
    entries: str = "Events",
    edges: np.ndarray | None = None,
    log_x: bool = False,
    log_y: bool = False,
) -> Figure:
    """`named_histogram_ratio` of real and generated events."""
    sides = {"Real": real, "Generated": fake}
    return named_histogram_ratio(sides, label, entries=entries, edges=edges, log_x=log_x, log_y=log_y)


@styled
def named_histogram_ratio(
    sides: Mapping[str, Observable],
    label: str,
    *,
    entries: str = "Events",
    edges: np.ndarray | None = None,
    log_x: bool = False,
    log_y: bool = False,
) -> Figure:
    """Distribution of one quantity, real and generated, over the ratio generated / real.

    Both are entries per event, so the numbers of events may differ. Error bars are central 68% intervals:
    Garwood's for Poisson counts above, and Clopper-Pearson's for the ratio of two Poisson counts below,
    where triangles mark points outside the panel. Where an event has several entries in a bin, or weights, the counts
    that enter the intervals are the effective ones, (sum c)^2 / sum c^2 over the events' weighted entries c: the
    entries of one event are not independent. Values outside the bins are counted in the outermost ones.

    Parameters
    ----------
    sides : mapping of str to Observable
        Real and generated events, as the legend calls them. A third distribution is a dashed line, without errors or
        ratio.
    label : str
        Name of the quantity; its unit is that of the first side.
    entries : str
        What is counted, for the axis label.
    edges : (bins + 1,) array, optional
        Default: `bin_edges` of the real values.
    log_x, log_y : bool
    """
    (real_name, real), (fake_name, fake), *more = sides.items()
    if edges is None:
        edges = bin_edges(real.values) if len(real.values) else np.linspace(0.0, 1.0, 13)
    a, b = _bin(real, edges), _bin(fake, edges)
    centres, filled = _centres(edges, log_x), b.counts > 0
    figure, main, ratio = _ratio_figure()
    mplhep.histplot(a.per_event, edges, ax=main, histtype="fill", color=REAL, alpha=0.18, flow="none")
    mplhep.histplot(a.per_event, edges, ax=main, histtype="step", color=REAL, label=real_name, flow="none")
    _error_band(main, edges, a.per_event - a.errors[0], a.per_event + a.errors[1])
    heights = [a.per_event, b.per_event]
    for name, before in more:
        heights.append(_bin(before, edges).per_event)
        mplhep.histplot(heights[-1], edges, ax=main, histtype="step", color=BEFORE, ls="--", label=name, flow="none")
    main.errorbar(
        centres[filled],
        b.per_event[filled],
        yerr=b.errors[:, filled],
        fmt="o",
        ms=3.5,
        lw=1.1,
        color=FAKE,
        label=fake_name,
    )
    width = edges[1] - edges[0]
    discrete = np.allclose(edges % 1, 0.5) and np.isclose(width, 1)
    per = "" if discrete else " / bin" if log_x else f" / {width:.3g} {real.unit}".rstrip()
    main.set_ylabel(f"{entries} per event{per}" if entries != "Events" else f"Fraction of events{per}")
    filling = np.concatenate(heights)
    if np.any(filling > 0):
        low, top = filling[filling > 0].min(), filling.max()
        main.set_ylim(*((0.5 * low, top * (top / low) ** 0.25) if log_y else (0, 1.3 * top)))
        main.set_yscale("log" if log_y else "linear")
    if log_x:
        main.set_xscale("log")
    main.legend(loc="upper right", ncols=2)
    _ratio_panel(ratio, centres, *_ratios(a, b))
    ratio.set_xlabel(with_unit(label, real.unit))
    ratio.set_xlim(edges[0], edges[-1])
    if discrete:
        ratio.xaxis.set_major_locator(MaxNLocator(integer=True))
        ratio.xaxis.set_minor_formatter(NullFormatter())
        for axes in (main, ratio):
            axes.tick_params(axis="x", which="minor", bottom=False, top=False)
    return figure


@styled
def families(panels: Sequence[tuple[str, Sequence[tuple[float, str, Observable, Observable]]]], label: str) -> Figure:
    """Distributions of one quantity under several conditions, real (points) and generated (lines).

    Parameters
    ----------
    panels : sequence of (title, curves)
        Drawn side by side on the same axes; a curve is (place of its colour on a scale from 0 to 1, name, real,
        generated).
    label : str
        Name of the quantity; its unit is that of the observables.
    """
    curves = [curve for _, inside in panels for curve in inside]
    values = np.concatenate([real.values for _, _, real, _ in curves])
    edges = bin_edges(values) if len(values) else np.linspace(0.0, 1.0, 13)
    centres = _centres(edges, False)
    figure = new_figure((4.6 * len(panels) + 0.6, 4.4))
    axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for panel, (title, inside) in zip(axes, panels, strict=True):
        for place, name, real, fake in inside:
            colour = mpl.colormaps["plasma"](0.85 * place)
            a, b = _bin(real, edges), _bin(fake, edges)
            panel.errorbar(centres, a.per_event, yerr=a.errors, fmt="o", ms=3.5, lw=1, color=colour)
            panel.stairs(b.per_event, edges, color=colour, lw=1.5, label=name)
        panel.set_title(title)
        panel.set_xlabel(with_unit(label, curves[0][2].unit))
        panel.legend(fontsize=9, loc="upper right", title="Points real, lines generated", title_fontsize=9)
    axes[0].set_xlim(edges[0], edges[-1])
    axes[0].set_ylim(0, 1.3 * axes[0].get_ylim()[1])
    axes[0].set_ylabel(f"Fraction of events / {edges[1] - edges[0]:.3g} {curves[0][2].unit}".rstrip())
    return figure


@styled
def profile_ratio(
    edges: np.ndarray,
    real: np.ndarray,
    fake: np.ndarray,
    label: str,
    value: str,
    *,
    zoom: float | None = None,
    weights: SidesWeights = UNWEIGHTED,
) -> Figure:
    """Mean of a quantity in bins of a coordinate, real and generated, over their ratio.

    Parameters
    ----------
    edges : (bins + 1,) array
        Of the coordinate.
    real, fake : (n, bins), (m, bins) arrays
        The quantity of each event in each bin; bars and bands are standard errors of the mean.
    label, value : str
        Axis labels of the coordinate and of the quantity.
    zoom : float, optional
        Let the ordinate start at this fraction of the smallest mean instead of zero.
    weights : pair of (n,) arrays or None
        Of the events.
    """
    means = [of_events.mean(values, w) for values, w in zip((real, fake), weights, strict=True)]
    errors = [of_events.mean_error(values, w) for values, w in zip((real, fake), weights, strict=True)]
    figure, main, ratio = _ratio_figure()
    centres = _centres(edges, False)
    mplhep.histplot(means[0], edges, ax=main, histtype="step", color=REAL, label="Real", flow="none")
    _error_band(main, edges, means[0] - errors[0], means[0] + errors[0])
    main.errorbar(centres, means[1], yerr=errors[1], fmt="o", ms=3, lw=1.1, color=FAKE, label="Generated")
    low = 0.0 if zoom is None else zoom * float(min(m.min() for m in means))
    top = float(max(m.max() for m in means))
    main.set_ylim(low, (top + 0.25 * (top - low)) or 1.0)
    main.set_ylabel(value)
    main.legend(loc="upper right", ncols=2)
    _ratio_of_means(ratio, centres, means, errors)
    ratio.set_xlabel(label)
    ratio.set_xlim(edges[0], edges[-1])
    return figure


@styled
def spectrum_ratio(
    x: np.ndarray, real: np.ndarray, fake: np.ndarray, label: str, value: str, weights: SidesWeights = UNWEIGHTED
) -> Figure:
    """Mean of a positive function of a positive variable, such as a power spectrum, on logarithmic axes.

    Above, the lines are means and the bands hold the central 68% of the events; below, the ratio of the means with its
    standard error.

    Parameters
    ----------
    x : (bins,) array
    real, fake : (n, bins), (m, bins) arrays
        The function of each event.
    label, value : str
        Axis labels of `x` and of the function.
    weights : pair of (n,) arrays or None
        Of the events.
    """
    figure, main, ratio = _ratio_figure()
    means, errors = [], []
    sides = ((real, weights[0], REAL, "Real", "-"), (fake, weights[1], FAKE, "Generated", "--"))
    for values, w, colour, name, style in sides:
        means.append(of_events.mean(values, w))
        errors.append(of_events.mean_error(values, w))
        low, high = of_events.quantiles(values, [0.16, 0.84], w)
        main.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
        main.plot(x, means[-1], style, color=colour, lw=1.4, label=name)
    main.set(xscale="log", yscale="log", ylabel=value)
    main.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    main.xaxis.set_major_formatter(ScalarFormatter())
    main.xaxis.set_minor_formatter(NullFormatter())
    if not all(np.any(mean > 0) for mean in means):  # nothing that a logarithm could show
        main.set_yscale("linear")
    main.legend(loc="best")
    _ratio_of_means(ratio, x, means, errors)
    ratio.set_xlabel(label)
    ratio.set_xlim(0.9 * x[0], 1.1 * x[-1])
    return figure


@styled
def histogram_grid(
    cells: Sequence[tuple[str, Observable, Observable, str]], columns: int, *, entries: str = "events"
) -> Figure:
    """Distributions of many quantities, real (filled) and generated (line), each on axes of its own.

    Parameters
    ----------
    cells : sequence of (label, real, generated, note)
        Row after row; the note is written above the panel.
    columns : int
    entries : str
        What each side is a fraction of, for the axis label.
    """
    rows = -(-len(cells) // columns)
    figure = new_figure((3.4 * columns + 0.4, 2.7 * rows + 0.4))
    with mpl.rc_context({"font.size": 9}):
        panels = figure.subplots(rows, columns, squeeze=False)
        for panel in panels.flat[len(cells) :]:
            panel.set_axis_off()
        for panel, (label, real, fake, note) in zip(panels.flat, cells, strict=False):
            edges = bin_edges(real.values) if len(real.values) else np.linspace(0.0, 1.0, 13)
            a, b = _bin(real, edges), _bin(fake, edges)
            panel.stairs(a.per_event, edges, fill=True, color=REAL, alpha=0.25, label="Real")
            _error_band(panel, edges, a.per_event - a.errors[0], a.per_event + a.errors[1])
            panel.stairs(b.per_event, edges, color=FAKE, lw=1.4, label="Generated")
            panel.set_xlim(edges[0], edges[-1])
            panel.set_ylim(0, 1.15 * max(float(a.per_event.max()), float(b.per_event.max())) or 1.0)
            panel.set_xlabel(with_unit(label, real.unit))
            panel.set_title(note, fontsize=7.5)
            if not len(fake.values):
                panel.text(0.5, 0.5, "no generated value", transform=panel.transAxes, ha="center", color=FAKE)
        for panel in panels[:, 0]:
            panel.set_ylabel(f"Fraction of {entries}")
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@dataclass(frozen=True)
class Band:
    """A quantity at several values of a coordinate: mean and central 68%, each (n,).

    Attributes
    ----------
    x, mean, low, high : (n,) arrays
    """

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, groups: Sequence[tuple[float, Observable]]) -> Band:
        """From (coordinate, observable); groups without values, or whose weights sum to none, are left out."""
        filled = [(x, o.values, o.value_weights) for x, o in groups if len(o.values)]
        filled = [(x, values, w) for x, values, w in filled if w is None or w.sum() > 0]
        quantiles = [of_events.quantiles(values, [0.16, 0.84], w) for _, values, w in filled]
        return cls(
            np.array([x for x, _, _ in filled], np.float64),
            np.array([of_events.mean(values, w) for _, values, w in filled]),
            np.array([q[0] for q in quantiles]),
            np.array([q[1] for q in quantiles]),
        )


@styled
def dependence(
    panels: Sequence[tuple[str, Band, Band]], label: str, span: tuple[float, float], note: str, *, log_x: bool = True
) -> Figure:
    """Quantities against what was asked for, real (grey) and generated (points), within and beyond a range.

    Parameters
    ----------
    panels : sequence of (label, real, generated)
    label : str
        Of the coordinate.
    span : (float, float)
        A range of the coordinate that is shaded.
    note : str
        What the legend calls the range.
    log_x : bool
    """
    figure = new_figure((4.4 * len(panels) + 0.4, 3.8))
    axes = figure.subplots(1, len(panels), squeeze=False, sharex=True)[0]
    for panel, (name, real, fake) in zip(axes, panels, strict=True):
        panel.axvspan(*span, color="#009E73", alpha=0.10, lw=0, label=note)
        panel.fill_between(real.x, real.low, real.high, color=REAL, alpha=0.25, lw=0)
        panel.plot(real.x, real.mean, color=REAL, lw=1.3, label="Real: mean, central 68%")
        ends = np.stack([fake.mean - fake.low, fake.high - fake.mean])  # the mean of a skew quantity may be outside
        panel.errorbar(
            fake.x,
            fake.mean,
            yerr=np.maximum(ends, 0.0),
            fmt="o",
            ms=4,
            lw=1.2,
            color=FAKE,
            label="Generated: the same",
        )
        if log_x:
            panel.set_xscale("log")
        panel.set(xlabel=label, ylabel=name)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@styled
def null_distribution(band: Sequence[float], scores: Sequence[float], n: int) -> Figure:
    """Real-against-real scores as a histogram, with the generated samples' scores as lines.

    Parameters
    ----------
    band : sequence of float
        Scores of real against real.
    scores : sequence of float
        Scores of generated samples at the same number of events.
    n : int
        That number.
    """
    top = float(np.quantile(band, 0.999))
    edges = np.linspace(0.0, max(top, 1e-3), 41)
    figure = new_figure((7.2, 3.6))
    panel = figure.subplots()
    counts = histogram(np.asarray(band), edges) / len(band)
    mplhep.histplot(counts, edges, ax=panel, histtype="fill", color=REAL, alpha=0.25, flow="none")
    mplhep.histplot(
        counts, edges, ax=panel, histtype="step", color=REAL, flow="none", label=f"real against real, N = {n}"
    )
    for i, score in enumerate(scores):
        panel.axvline(score, color=FAKE, lw=1.2, label="generated against real" if i == 0 else None)
    if max(scores, default=0.0) > 3 * top:
        panel.set_xscale("symlog", linthresh=10.0)
    panel.set_xlim(left=0.0)
    panel.set_ylim(bottom=0.0)
    panel.set(xlabel="Score", ylabel="Fraction of comparisons")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _ratio_figure() -> tuple[Figure, Axes, Axes]:
    figure = new_figure((6.4, 5.2))
    main, ratio = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1), gridspec_kw={"hspace": 0.02})
    figure.align_ylabels([main, ratio])
    return figure, main, ratio


def _ratio_of_means(axes: Axes, x: np.ndarray, means: Sequence[np.ndarray], errors: Sequence[np.ndarray]) -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        values = means[1] / means[0]
        relative = np.sqrt((errors[0] / means[0]) ** 2 + (errors[1] / means[1]) ** 2)
    _ratio_panel(axes, x, values, np.stack([values * relative] * 2))


def _ratio_panel(axes: Axes, x: np.ndarray, values: np.ndarray, errors: np.ndarray) -> None:
    """Points of generated / real around one; triangles where they leave the panel."""
    ends = (np.abs(values - 1) + errors.mean(axis=0))[np.isfinite(values)]
    spread = float(np.quantile(ends, 0.75)) if len(ends) else 0.0
    reach = next((r for r in (0.1, 0.25, 0.5) if spread < r), 1.0)
    axes.axhline(1.0, color=REAL, lw=1)
    inside = np.isfinite(values) & (np.abs(values - 1) <= reach)
    axes.errorbar(x[inside], values[inside], yerr=errors[:, inside], fmt="o", ms=3, lw=1.1, color=FAKE)
    for beyond, marker, y in (
        (values > 1 + reach, "^", 1 + 0.92 * reach),
        (values < 1 - reach, "v", 1 - 0.92 * reach),
    ):
        axes.plot(x[beyond], np.full(np.count_nonzero(beyond), y), marker, ms=5, color=FAKE, mfc="none")
    axes.set_ylim(1 - reach, 1 + reach)
    axes.set_ylabel("Gen. / real")


@dataclass(frozen=True)
class _Bins:
    """Binned entries of `n_events` events; `scale` is by how much counts exceed the independent ones.

    With weights, sums of weights take the place of counts and of the number of events.
    """

    counts: np.ndarray
    scale: np.ndarray
    n_events: float

    @property
    def per_event(self) -> np.ndarray:
        return self.counts / self.n_events

    @property
    def effective(self) -> np.ndarray:
        return self.counts / self.scale

    @property
    def errors(self) -> np.ndarray:
        """Distances to the ends of the intervals of `per_event` (2, bins)."""
        ends = poisson_interval(self.effective) * self.scale
        return np.abs(ends - self.counts) / self.n_events


def _bin(observable: Observable, edges: np.ndarray) -> _Bins:
    n, of_event = observable.n_events, counting(observable.weights)
    total = float(n) if of_event is None else float(of_event.sum())
    if observable.counts is None:
        counts = histogram(observable.values, edges, of_event)
        squares = counts if of_event is None else histogram(observable.values, edges, of_event**2)
    else:
        of_value = None if of_event is None else np.repeat(of_event, observable.counts)
        counts = histogram(observable.values, edges, of_value)
        event = np.repeat(np.arange(n), observable.counts)
        bins = len(edges) - 1
        inside = np.clip(np.searchsorted(edges, observable.values, side="right") - 1, 0, bins - 1)
        entries = np.bincount(event * bins + inside, minlength=n * bins).reshape(-1, bins).astype(np.float64)
        if of_event is not None:
            entries *= of_event[:, None]
        squares = np.sum(entries**2, axis=0)
    typical = 1.0 if of_event is None else float(np.sum(of_event**2)) / total
    return _Bins(counts, np.divide(squares, counts, out=np.full_like(counts, typical), where=counts != 0), total)


def _ratios(real: _Bins, fake: _Bins) -> tuple[np.ndarray, np.ndarray]:
    """Generated / real per event (bins,), and the distances to the ends of its intervals (2, bins)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = fake.per_event / real.per_event
        weight = values / (fake.effective / real.effective)
        return values, np.abs(ratio_uncertainty(fake.effective, real.effective, "poisson-ratio") * weight)


def _error_band(axes: Axes, edges: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    axes.stairs(high, edges, baseline=low, fill=True, color=REAL, alpha=0.45, lw=0)


def _centres(edges: np.ndarray, log: bool) -> np.ndarray:
    centres: np.ndarray = np.sqrt(edges[1:] * edges[:-1]) if log else 0.5 * (edges[1:] + edges[:-1])
    return centres
