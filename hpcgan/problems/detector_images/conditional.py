"""RPV-SUSY images for given gluino and neutralino masses (Farrell et al. 2019, section 5)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from hpcgan.data.schema import Sample, Schema, TensorSpec
from hpcgan.data.source import Source
from hpcgan.errors import InputError
from hpcgan.physics.pythia import check_masses
from hpcgan.problems.detector_images import files as hdf5
from hpcgan.problems.detector_images.rpv import MASSES, ConditionedModel, RpvProblem

#: (m - centre) / scale is what the networks see, GeV.
ENCODING = {"mGlu": (1400.0, 500.0), "mNeu": (250.0, 1400.0)}
MAX_POINTS = 100
"""Mass points in a file: events are compared point by point, so there must be many of each."""


class ConditionalModel(ConditionedModel):
    """The networks of `rpv` with the two masses: beside the noise in the generator, and in the discriminator."""

    @property
    def conditions(self) -> tuple[str, ...]:
        return MASSES


class ConditionalProblem(RpvProblem):
    """Images as of `rpv`, each with its gluino mass `mGlu` and neutralino mass `mNeu` in GeV."""

    name: ClassVar[str] = "conditional"
    Model: ClassVar[type[ConditionalModel]] = ConditionalModel
    figures: ClassVar[str] = "hpcgan.problems.detector_images.conditional_figures:ConditionalFigures"
    model: ConditionalModel

    @property
    def schema(self) -> Schema:
        return {**super().schema, **{name: TensorSpec((), "GeV", role="condition") for name in MASSES}}

    def check_events(self, source: Source) -> None:
        masses = source.conditions()
        rows = np.stack([masses[name] for name in MASSES], axis=1)
        points, first = np.unique(rows, axis=0, return_index=True)
        for event in np.sort(first).tolist():
            try:
                check_masses(*rows[event].tolist())
            except InputError as error:
                raise InputError(
                    f"{source.path}: {hdf5.GROUP}/mGlu, mNeu of event {event}: {error}; "
                    f"problem '{self.name}' is for signal events with known masses (of a mixture, data.select={{y: 1}} "
                    "takes the signal)"
                ) from None
        if len(points) > MAX_POINTS:
            raise InputError(
                f"{source.path}: {len(points)} different mass points; problem '{self.name}' compares events point by "
                f"point and takes at most {MAX_POINTS}"
            )

    def encode_conditions(self, conditions: Sample) -> Sample:
        """Masses to c = [(m_gluino - 1400) / 500, (m_neutralino - 250) / 1400] (masses in GeV)."""
        return {
            name: ((conditions[name] - centre) / scale).astype(conditions[name].dtype)
            for name, (centre, scale) in ENCODING.items()
        }

    def check_conditions(self, conditions: Sample) -> None:
        rows = np.stack([np.asarray(conditions[name], np.float64) for name in MASSES], axis=1)
        for row in np.unique(rows, axis=0).tolist():
            check_masses(*row)
