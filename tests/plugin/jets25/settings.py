"""The `training:` section of `method: moments`. No TensorFlow: configurations are read where there is none."""

from __future__ import annotations

from typing import ClassVar

from hpcgan.config import AdamConfig, TrainingSection


class MomentsSettings(TrainingSection):
    """A generator without a discriminator."""

    trainer: ClassVar[str] = "jets25.moments:Moments"
    networks: ClassVar[tuple[str, ...]] = ("generator",)

    generator: AdamConfig = AdamConfig()
