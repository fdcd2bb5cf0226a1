"""What a generator is asked for: the conditions of a problem."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from hpcgan.data.schema import Sample, Schema
from hpcgan.errors import InputError


class Conditions(ABC):
    """What a problem says of its conditions, the tensors of its schema with the role `condition`."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def schema(self) -> Schema: ...

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the tensors with the role of a condition: what a generator is asked for."""
        return tuple(name for name, spec in self.schema.items() if spec.role == "condition")

    @property
    def point_conditions(self) -> tuple[str, ...]:
        """Conditions of which there are points with many events each (masses, but not an energy that is drawn)."""
        return self.conditions

    def encode_conditions(self, conditions: Sample) -> Sample:
        """`encode` for the conditions alone, which a generator is given."""
        if self.conditions:
            raise InputError(
                f"problem '{self.name}' has conditions ({', '.join(self.conditions)}), so its class has to define "
                "encode_conditions"
            )
        return {}

    def conditions_of_file(self, conditions: Sample, path: Path) -> Sample:
        """Conditions (n, ...) of an HDF5 file, in physical units, as this problem means them; by default as they are.

        Raises
        ------
        InputError
            The file means something that the problem does not know.
        """
        return conditions

    def check_conditions(self, conditions: Sample) -> None:
        """Refuse conditions (n, ...), in physical units, that no event can have.

        Raises
        ------
        InputError
            Names the condition and its value.
        """
