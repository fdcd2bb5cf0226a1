"""Figures of jet images, real against generated, by class (de Oliveira, Paganini and Nachman 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hpcgan.data.schema import Sample, take
from hpcgan.metrics.distances import distances
from hpcgan.metrics.observable import UNWEIGHTED, Observable, SidesWeights, weighted
from hpcgan.problems.base import Observables
from hpcgan.problems.figures import BEYOND, Canvas, Captioned, Figures
from hpcgan.problems.jet_images.files import HALF_SIDE, IMAGE, SIGNAL
from hpcgan.problems.jet_images.quantities import more_observables
from hpcgan.report import plots
from hpcgan.weights import effective, mean, mean_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hpcgan.problems.jet_images.problem import JetsProblem

EXTENT = (-HALF_SIDE, HALF_SIDE, -HALF_SIDE, HALF_SIDE)
AXES = (r"$\eta$", r"$\phi$")
PT = "$p_T$ [GeV]"
CLASSES = ((1, "signal", "Boosted W"), (0, "background", "QCD"))
"""`signal`, name and title of each."""
LABELS = {"jet_mass": "Jet mass", "jet_pt": "Jet $p_T$", "tau21": r"$\tau_{21}$", "lit_pixels": "Lit pixels"}
SHOWN = 3


class JetFigures(Figures):
    """Mean images of both classes and their difference, distributions, spectra of pixels, single jets."""

    canvas: ClassVar[Canvas] = Canvas((HALF_SIDE, -HALF_SIDE, -HALF_SIDE, HALF_SIDE), PT, (r"$\phi$", r"$\eta$"))
    problem: JetsProblem

    def compare(self, real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> list[Captioned]:
        sides = [self._by_class(real, weights[0]), self._by_class(fake, weights[1])]
        classes = [(signal, name, title) for signal, name, title in CLASSES if all(signal in side for side in sides)]
        panels: list[Captioned] = [("distributions", *self._distributions(sides, classes))] if classes else []
        for signal, name, title in classes:
            of_class = [side[signal] for side in sides]
            a, b = (_upright(jets[IMAGE]) for jets, _ in of_class)
            own = (of_class[0][1], of_class[1][1])
            panels += [
                (
                    f"mean_{name}",
                    f"{title}: mean $p_T$ of each pixel; the difference relative to real, and in units of its "
                    f"standard error. {_sentence(_mean_difference(of_class))}",
                    plots.mean_images(a, b, EXTENT, f"Mean {PT}", AXES, log=True, weights=own),
                ),
                _spectrum(name, title, [weighted(more_observables(j[IMAGE], ["pixel_pt"]), w) for j, w in of_class]),
            ]
        if len(classes) == len(CLASSES):
            panels.append(("difference", *_difference(sides)))
        return [*panels, ("jets", *self.singles(real, fake))]

    def singles(self, real: Sample | None, fake: Sample) -> tuple[str, Figure]:
        rows = []
        for kind, sample in (("Real", real or {}), ("Generated", fake)):
            for signal, _, title in CLASSES if sample else ():
                jets = _upright(sample[IMAGE][sample[SIGNAL] == signal][:SHOWN])
                if len(jets) == SHOWN:
                    rows.append((f"{kind}\n{title}", list(jets)))
        columns = [f"Jet {i + 1}" for i in range(SHOWN)]
        caption = "Jets, unselected; empty pixels are white. Each column has a colour scale of its own."
        if not rows:  # too few of any class
            jets = _upright(fake[IMAGE])
            return caption, plots.image_grid(jets[:0], jets, EXTENT, PT, AXES)
        return caption, plots.image_table(rows, columns, EXTENT, PT, AXES)

    def measurements(self, real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> dict[str, Any]:
        """Of each class: sum over the pixels of |difference of the means|, over the sum of the real means.

        `mean_images_by_chance` is what that comes to on average for jets of one distribution.
        """
        sides = [self._by_class(real, weights[0]), self._by_class(fake, weights[1])]
        differences = {
            name: _mean_difference([side[signal] for side in sides]) or (None, None)
            for signal, name, _ in CLASSES
            if all(signal in side for side in sides)
        }
        return {
            "mean_images": {name: difference for name, (difference, _) in differences.items()},
            "mean_images_by_chance": {name: chance for name, (_, chance) in differences.items()},
        }

    def _by_class(self, sample: Sample, weights: np.ndarray | None) -> dict[int, tuple[Sample, np.ndarray | None]]:
        """Jets of each class there is, with their weights."""
        classes = {}
        for signal, _, _ in CLASSES:
            chosen = np.flatnonzero(sample[SIGNAL] == signal)
            if len(chosen):
                classes[signal] = (take(sample, chosen), None if weights is None else weights[chosen])
        return classes

    def _distributions(
        self,
        sides: Sequence[dict[int, tuple[Sample, np.ndarray | None]]],
        classes: Sequence[tuple[int, str, str]],
    ) -> tuple[str, Figure]:
        observables: list[list[Observables]] = [
            [weighted(self.problem.observables(jets), w) for jets, w in (side[signal] for side in sides)]
            for signal, _, _ in classes
        ]
        cells = []
        for name, label in LABELS.items():
            for (_, _, title), (real, fake) in zip(classes, observables, strict=True):
                cells.append((label, real[name], fake[name], f"{title}: {_note(real[name], fake[name])}"))
        caption = (
            "What is measured of the images of each class, with Kolmogorov-Smirnov and Wasserstein distance. " + BEYOND
        )
        return caption, plots.histogram_grid(cells, len(classes), entries="jets")


def _note(real: Observable, fake: Observable) -> str:
    distance = distances(real, fake, bootstrap=0)
    if distance.ks is None or distance.wasserstein is None:
        return "no values to compare"
    return f"KS {distance.ks.value:.3f}, W$_1$ {distance.wasserstein:.3g} {real.unit}".rstrip()


def _mean_difference(sides: Sequence[tuple[Sample, np.ndarray | None]]) -> tuple[float, float] | None:
    """Sum over the pixels of |difference of the means| over the sum of the real means, and that of equal distributions.

    The latter from the errors of the real means: a normal difference with standard deviation s has a mean magnitude of
    sqrt(2 / pi) s. None where real jets are dark, there is one, or generated ones have no distribution.
    """
    real, fake = (mean(jets[IMAGE], weights) for jets, weights in sides)
    whole = float(real.sum())
    n, m = (float(len(jets[IMAGE])) if weights is None else effective(weights) for jets, weights in sides)
    if whole <= 0 or m <= 0 or len(sides[0][0][IMAGE]) < 2:
        return None
    jets, weights = sides[0]
    by_chance = math.sqrt(2.0 / math.pi * (1.0 + n / m)) * float(mean_error(jets[IMAGE], weights).sum())
    return float(np.abs(fake - real).sum()) / whole, by_chance / whole


def _sentence(difference: tuple[float, float] | None) -> str:
    if difference is None:
        return "There are too few jets to say how much the images differ."
    share, by_chance = difference
    return f"Absolute differences sum to {share:.1%} of the real sum, by chance to {by_chance:.1%}."


def _upright(images: np.ndarray) -> np.ndarray:
    """Images (..., phi from the largest down, eta) as figures take them: (..., eta, phi from the smallest up)."""
    return np.swapaxes(images[..., ::-1, :], -1, -2)


def _spectrum(name: str, title: str, sides: Sequence[Observables]) -> Captioned:
    real, fake = (side["pixel_pt"] for side in sides)
    values = np.concatenate([real.values, fake.values])
    high = float(values.max()) if len(values) else 1.0
    edges = np.geomspace(1e-4 * high, 1.001 * high, 41)
    figure = plots.histogram_ratio(real, fake, "Pixel $p_T$", entries="Pixels", edges=edges, log_x=True, log_y=True)
    return f"pixels_{name}", f"{title}: $p_T$ of all lit pixels, over four decades. {BEYOND}", figure


def _difference(sides: Sequence[dict[int, tuple[Sample, np.ndarray | None]]]) -> tuple[str, Figure]:
    panels = []
    for kind, side in zip(("Real", "Generated"), sides, strict=True):
        w, qcd = (mean(jets[IMAGE], weights) for jets, weights in (side[signal] for signal in (1, 0)))
        panels.append((kind, _upright(w - qcd)))
    caption = "Mean image of boosted W bosons minus that of QCD: where the classes differ."
    return caption, plots.signed_images(panels, EXTENT, f"Difference of mean {PT}", AXES)
