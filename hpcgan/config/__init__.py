"""The configuration: one YAML, one schema, the same names on the command line.

Sections are pydantic models. Every error is one line with the path of the key, and the valid choices.
"""

from __future__ import annotations

from hpcgan.config.base import (
    LARGEST_RATE,
    Decrement,
    Fraction,
    ModelSection,
    NonNegative,
    Option,
    Positive,
    Rate,
    Section,
)
from hpcgan.config.job import JobSection
from hpcgan.config.reading import keys, load, of_training, read, schema
from hpcgan.config.schema import (
    METHODS,
    STARTING,
    AdamConfig,
    CheckpointConfig,
    CommConfig,
    Config,
    DataConfig,
    GradientPenaltyConfig,
    InstanceNoiseConfig,
    LikelihoodConfig,
    R1Config,
    RollbackConfig,
    ScheduleConfig,
    ScheduleSection,
    ScoringConfig,
    TrainingConfig,
    TrainingSection,
)
from hpcgan.config.studies import ScalingSection, SweepSection

__all__ = [
    "LARGEST_RATE", "METHODS", "STARTING", "AdamConfig", "CheckpointConfig", "CommConfig", "Config",
    "DataConfig", "Decrement", "Fraction", "GradientPenaltyConfig", "InstanceNoiseConfig", "JobSection",
    "LikelihoodConfig", "ModelSection", "NonNegative", "Option", "Positive", "R1Config", "Rate",
    "RollbackConfig", "ScalingSection", "ScheduleConfig", "ScheduleSection", "ScoringConfig", "Section",
    "SweepSection", "TrainingConfig", "TrainingSection", "keys", "load", "of_training", "read", "schema",
]  # fmt: skip
