"""How events change with the masses, real against generated (Farrell et al. 2019, figure 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hpcgan.metrics import points
from hpcgan.problems.base import Observables
from hpcgan.problems.detector_images.figures import ImageFigures
from hpcgan.problems.figures import Captioned
from hpcgan.report import plots

PANELS = 4
CURVES = 5


class ConditionalFigures(ImageFigures):
    """The summed jet mass at several gluino masses in one panel, a panel for each neutralino mass."""

    def points(self, real: Observables, fake: Observables, left_out: Sequence[Mapping[str, float]]) -> list[Captioned]:
        sizes = points.sizes(fake)
        here = [point for point in points.sizes(real) if point in sizes]
        lightest, heaviest = min(m_glu for m_glu, _ in here), max(m_glu for m_glu, _ in here)
        panels = []
        for m_neu in _spread_out(sorted({m_neu for _, m_neu in here}), PANELS):
            curves = []
            for m_glu in _spread_out(sorted(g for g, n in here if n == m_neu), CURVES):
                masses = {"mGlu": m_glu, "mNeu": m_neu}
                events = [points.events_of(side, (m_glu, m_neu)) for side in (real, fake)]
                sides = [side["summed_jet_mass"].take(which) for side, which in zip((real, fake), events, strict=True)]
                apart = ", left out" if masses in [dict(point) for point in left_out] else ""
                name = rf"$m_{{\tilde g}}$ = {m_glu:g} GeV{apart}"
                place = (m_glu - lightest) / ((heaviest - lightest) or 1.0)
                curves.append((place, name, sides[0], sides[1]))
            panels.append((rf"$m_{{\tilde\chi}}$ = {m_neu:g} GeV", curves))
        caption = (
            "Sum of the masses of an event's jets at several gluino and neutralino masses: real events as points, with "
            "statistical errors, generated events as lines. Values beyond the axis are counted in the outermost bins."
        )
        return [("mass_dependence", caption, plots.families(panels, "Summed jet mass"))]


def _spread_out(values: Sequence[float], most: int) -> list[float]:
    """At most so many of the values, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[i] for i in np.linspace(0, len(values) - 1, most).round().astype(int)]
