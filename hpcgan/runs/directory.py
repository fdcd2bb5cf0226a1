"""The run directory: what is where, and its configuration. A run is a directory; every other tool reads it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hpcgan import config as configuration
from hpcgan import yamlio
from hpcgan.config import Config
from hpcgan.errors import EnvironmentFailure, InputError
from hpcgan.runs import pretrained
from hpcgan.system.files import NOT_THE_USERS, write_atomic


class RunDirectory:
    """Paths of one run.

    Parameters
    ----------
    path : Path
        The directory; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.provenance_file = self.path / "provenance.jsonl"
        self.data_file = self.path / "data.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.report = self.path / "report"
        self.attempts = self.path / "attempts"
        self.jobs_file = self.path / "jobs.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.profile = self.path / "profile"
        self.verdict_file = self.path / "verdict.json"
        self.commands = self.path / "commands"

    @property
    def exists(self) -> bool:
        """True if there is a run here."""
        return self.config_file.is_file()

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration as plain values.

        Raises
        ------
        InputError
            There is no run here, or its configuration is broken.
        """
        try:
            raw = yamlio.load(self.config_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{self.path}: not a run directory (no config.yaml in it)") from None
        except (OSError, ValueError) as error:  # ValueError: of what is no YAML, and no UTF-8
            raise InputError(f"{self.config_file}: cannot be read: {str(error).splitlines()[0]}") from None
        if not isinstance(raw, dict):
            raise InputError(f"{self.config_file}: is empty or not a mapping")
        return raw

    def load_config(self) -> Config:
        """The validated configuration.

        Raises
        ------
        InputError
            As `read_config`, or this version knows the configuration no more.
        """
        raw = self.read_config()
        try:
            return configuration.load(raw)
        except InputError as error:
            raise InputError(f"{self.config_file}: {error}") from None

    def check_config(self, config: Config, existing: Config) -> None:
        """Refuse to continue a run with another configuration.

        Raises
        ------
        InputError
            Some identity key differs; the message names it.
        """
        differing = differences(existing.identity(), config.identity())
        if differing:
            first = "; ".join(f"{key}: {old!r} there, {new!r} now" for key, old, new in differing[:3])
            more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
            raise InputError(
                f"{self.path}: holds a run of another configuration ({first}{more}); "
                "give another directory with --run, or leave --run out"
            )

    def create(self, config: Config) -> None:
        """Make the directory and write the resolved configuration.

        Raises
        ------
        EnvironmentFailure
            The disk is full, or the file system fails.
        InputError
            It cannot be written because of its path or its rights.
        """
        try:
            for folder in (self.path, self.checkpoints, self.samples, self.report, self.attempts):
                folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.config_file, config.to_yaml())
        except OSError as error:
            kind = EnvironmentFailure if error.errno in NOT_THE_USERS else InputError
            raise kind(f"{self.path}: cannot write the run directory: {error.strerror}") from None


def trained_run(path: str | os.PathLike[str]) -> RunDirectory:
    """A run that is read: that of a run directory, or of `pretrained:NAME` (`hpcgan.runs.pretrained`).

    Raises
    ------
    InputError
        There is no run.
    """
    run = RunDirectory(pretrained.resolve(path))
    if not run.exists:
        raise InputError(f"{run.path}: not a run directory (no config.yaml in it)")
    return run


def owner_of(path: Path) -> tuple[RunDirectory, Path | None]:
    """The run that a path means, and the one of its checkpoints, if it means that."""
    path = pretrained.resolve(path)
    if (path / "manifest.json").is_file():
        return RunDirectory(path.absolute().parent.parent), path
    return RunDirectory(path), None


def differences(old: Any, new: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Dotted keys of which two nested mappings have different values, with both."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            difference
            for key in sorted({*old, *new})
            for difference in differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
        ]
    return [] if old == new else [(prefix, old, new)]
