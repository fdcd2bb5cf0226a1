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
from hpcgan.config.reading import keys, load, of_training, read, schema, validated
from hpcgan.config.registries import METHODS, settings_of
from hpcgan.config.schema import (
    STARTING,
    CheckpointConfig,
    CommConfig,
    Config,
    DataConfig,
    ScoringConfig,
    TrackingConfig,
)
from hpcgan.config.studies import ScalingSection, SweepSection
from hpcgan.config.training import AdamConfig, RateChange, RollbackConfig, ScheduleSection, TrainingSection

__all__ = [
    "LARGEST_RATE", "METHODS", "STARTING", "AdamConfig", "CheckpointConfig", "CommConfig", "Config",
    "DataConfig", "Decrement", "Fraction", "JobSection", "ModelSection", "NonNegative", "Option", "Positive",
    "Rate", "RateChange", "RollbackConfig", "ScalingSection", "ScheduleSection",
    "ScoringConfig", "Section", "SweepSection", "TrackingConfig", "TrainingSection", "keys", "load", "of_training",
    "read", "schema", "settings_of", "validated",
]  # fmt: skip
