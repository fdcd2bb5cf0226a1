"""Detector images for given conditions: how the networks of `rpv` take them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hpcgan.problems.detector_images.rpv import RpvModel


class ConditionedModel(RpvModel):
    """The networks of `rpv` with the conditions that a subclass names in `conditions`."""

    conditioning: Literal["channels", "projection"] = Field(
        "channels",
        description="the discriminator sees conditions as constant channels, or multiplies them with its features "
        "(Miyato and Koyama, arXiv:1802.05637)",
    )

    @property
    def channel_conditions(self) -> tuple[str, ...]:
        return self.conditions if self.conditioning == "channels" else ()

    @property
    def projected_conditions(self) -> tuple[str, ...]:
        return self.conditions if self.conditioning == "projection" else ()
