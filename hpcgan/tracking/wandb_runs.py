"""Runs of Weights & Biases: files in the run directory, which `wandb sync` brings to a server at any later time.

Each attempt that has something to tell writes a folder `RUN/wandb/offline-run-*-KEY` of its own. All have the same key,
by which `wandb sync` takes them for parts of one run. `WANDB_MODE=online` talks to the server at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcgan.config import TrackingConfig
from hpcgan.runs.curves import Point
from hpcgan.tracking.base import Status, Tracker


class WandbTracker(Tracker):
    """The run of Weights & Biases of a run directory."""

    package = "wandb"

    def __init__(self, settings: TrackingConfig, folder: Path) -> None:
        super().__init__(settings, folder)
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to its makers, whom nodes often cannot reach
        os.environ.setdefault("WANDB_SILENT", "true")  # errors are raised all the same
        import wandb

        self._wandb: Any = wandb
        self.place = f"{settings.uri or os.environ.get('WANDB_BASE_URL', 'wandb')} {settings.project}"
        self._key = ""
        self._run: Any = None
        self._failed = False

    def find(self, key: str) -> bool:
        self._key = key
        return True  # the files are all there is to ask, and may have been synced and removed

    def begin(self, key: str, started: float) -> None:
        self._key = key

    def describe(self, parameters: Mapping[str, str], facts: Mapping[str, str]) -> None:
        config = {**parameters, **{f"hpcgan.{name}": text for name, text in facts.items()}}
        self._started().config.update(config, allow_val_change=True)

    def log(self, points: Sequence[Point]) -> None:
        run = self._started()
        for point in points:
            run.log({**point.values, "samples": point.samples, "_timestamp": point.time}, step=point.samples)

    def upload(self, path: Path, name: str) -> None:
        # In a folder of the run's name: wandb has a `config.yaml` of its own, and would write into this one's.
        folder = self.folder.absolute()
        self._started().save(str(folder / name), base_path=str(folder.parent), policy="now", glob=False)

    def state(self, status: Status, when: float) -> None:
        self._failed = status == "failed"
        if status == "interrupted":
            self._started().mark_preempting()

    def discard(self, key: str) -> None:
        self.close()
        for folder in self._files(key):
            target = self.folder / "wandb" / "replaced"
            target.mkdir(exist_ok=True)
            folder.rename(target / folder.name)

    def address(self) -> str:
        folders = ", ".join(folder.name for folder in self._files(self._key)) or "nothing yet"
        return f"{self.folder / 'wandb'}: {folders}"

    def close(self) -> None:
        if self._run is not None:
            self._run.finish(exit_code=int(self._failed))
            self._run = None

    def _files(self, key: str) -> list[Path]:
        return sorted((self.folder / "wandb").glob(f"*run-*-{key}"))

    def _started(self) -> Any:
        """The run; begun when there is something to tell, since each beginning makes a folder."""
        if self._run is None:
            self._run = self._wandb.init(
                project=self.settings.project,
                id=self._key,
                name=self.name,
                dir=str(self.folder.absolute()),
                mode=os.environ.get("WANDB_MODE", "offline"),
                resume="allow",
                settings=self._wandb.Settings(
                    console="off", disable_git=True, save_code=False, x_disable_stats=True, symlink=False,
                    **({"base_url": self.settings.uri} if self.settings.uri else {}),
                ),
            )  # fmt: skip
            self._run.define_metric("*", step_metric="samples")
        return self._run
