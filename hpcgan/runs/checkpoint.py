"""Checkpoints: complete or absent, and checked when read. No TensorFlow here.

A checkpoint is a directory `step-<step>` (`step-<step>-<n>` where the step was saved before) with `arrays.npz`
(NumPy's format, never pickles) and `manifest.json` (counters, score, size and SHA-256 of the arrays, and a hash
of the manifest itself). It is written under a temporary name, synced and renamed, so a crash at any point
leaves the earlier ones alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcgan.errors import EnvironmentFailure, HpcganError, InputError
from hpcgan.system.files import sha256, sync, sync_folder

FORMAT = 2
_NAME = re.compile(r"step-(\d{9,})(?:-(\d+))?")
_TEMPORARY = re.compile(r"\.step-\d+\.[0-9a-f]+\.tmp")


class BrokenCheckpoint(HpcganError):
    """A checkpoint that does not match its checksums or cannot be read."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read and verified."""

    path: Path
    step: int
    meta: dict[str, Any]
    score: float | None
    arrays: dict[str, np.ndarray]


def save(
    folder: Path,
    step: int,
    arrays: Mapping[str, np.ndarray],
    meta: Mapping[str, Any],
    score: float | None,
    compressed: bool = False,
) -> Path:
    """Write one checkpoint; `compressed` takes long, and is for what is kept for good.

    Raises
    ------
    EnvironmentFailure
        The file system refuses (full disk ...); no earlier checkpoint is touched.
    """
    # Never replaced in place: no file system has one operation for that, and the step may be all there is.
    versions = [version for other, version in _entries(folder) if other == step]
    final = _path(folder, step, max(versions) + 1 if versions else 0)
    temporary = folder / f".step-{step}.{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        # In memory first: a zip file that a full disk cuts short complains once more when it is collected.
        archive = io.BytesIO()
        names: dict[str, Any] = dict(arrays)  # NumPy's types take them for its options
        (np.savez_compressed if compressed else np.savez)(archive, **names)
        payload = archive.getbuffer()
        with open(temporary / "arrays.npz", "wb") as file:
            file.write(payload)
            file.flush()
            sync(file.fileno())
        content = {
            "format": FORMAT,
            "step": step,
            "score": score,
            "meta": dict(meta),
            "bytes": payload.nbytes,
            "sha256": hashlib.sha256(payload).hexdigest(),
        }
        with open(temporary / "manifest.json", "w", encoding="utf-8") as file:
            json.dump({**content, "self": _self_hash(content)}, file, indent=1)
            file.flush()
            sync(file.fileno())
        sync_folder(temporary)
        os.rename(temporary, final)
        sync_folder(folder)
    except OSError as error:
        raise EnvironmentFailure(
            f"{final}: cannot write the checkpoint ({error.strerror}); "
            + ("earlier checkpoints are intact" if steps(folder) else "there is no earlier one")
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, ascending (complete ones, unverified)."""
    return sorted({step for step, _ in _entries(folder)})


def newest_step(folder: Path) -> int:
    """Step of the newest checkpoint in a folder, -1 if there is none."""
    return max(steps(folder), default=-1)


def path_of(folder: Path, step: int) -> Path:
    """Directory of the checkpoint of a step, the newest if it was saved more than once."""
    return _path(folder, step, max((v for other, v in _entries(folder) if other == step), default=0))


def _entries(folder: Path) -> list[tuple[int, int]]:
    """(step, how often it had been saved before) of all checkpoints, in the order they were made."""
    if not folder.is_dir():
        return []
    matches = [_NAME.fullmatch(entry.name) for entry in folder.iterdir() if entry.is_dir()]
    return sorted((int(match[1]), int(match[2] or 0)) for match in matches if match)


def _path(folder: Path, step: int, version: int) -> Path:
    return folder / (f"step-{step:09d}-{version}" if version else f"step-{step:09d}")


def read_manifest(path: Path) -> dict[str, Any]:
    """Manifest of a checkpoint, verified against its own hash.

    Raises
    ------
    BrokenCheckpoint
    """
    try:
        content = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        stated = content.pop("self")
    except (OSError, ValueError, KeyError, AttributeError):
        raise BrokenCheckpoint(f"{path}: the manifest is missing or damaged") from None
    if stated != _self_hash(content):
        raise BrokenCheckpoint(f"{path}: the manifest does not match its checksum")
    if content.get("format") != FORMAT:
        raise BrokenCheckpoint(f"{path}: written in format {content.get('format')}, this version reads {FORMAT}")
    return dict(content)


def load(path: Path) -> Checkpoint:
    """Read and verify one checkpoint.

    Raises
    ------
    BrokenCheckpoint
    """
    manifest = read_manifest(path)
    file = path / "arrays.npz"
    try:
        if file.stat().st_size != manifest["bytes"] or sha256(file) != manifest["sha256"]:
            raise BrokenCheckpoint(f"{file}: damaged, it does not match its checksum")
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile):
        raise BrokenCheckpoint(f"{file}: missing or unreadable") from None
    return Checkpoint(path, manifest["step"], manifest["meta"], manifest["score"], arrays)


def load_latest(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that verifies; `warn` hears of each damaged one. None if there is none at all.

    Raises
    ------
    HpcganError
        There are checkpoints, but all are damaged.
    """
    return _first_valid(folder, reversed(_entries(folder)), warn)


def load_best(folder: Path, warn: Callable[[str], None]) -> Checkpoint:
    """The checkpoint of the lowest score; the latest where none was scored.

    Raises
    ------
    InputError
        There is none yet.
    HpcganError
        All are damaged.
    """
    scored: list[tuple[float, tuple[int, int]]] = []
    for entry in _entries(folder):
        try:
            score = read_manifest(_path(folder, *entry))["score"]
        except BrokenCheckpoint as error:
            warn(str(error))
            continue
        if score is not None:
            scored.append((score, entry))
    order = [entry for _, entry in sorted(scored)] or list(reversed(_entries(folder)))
    best = _first_valid(folder, iter(order), warn)
    if best is None:
        raise InputError(f"{folder}: no checkpoint yet; train first with 'hpcgan train'")
    return best


def _first_valid(folder: Path, order: Iterator[tuple[int, int]], warn: Callable[[str], None]) -> Checkpoint | None:
    broken = 0
    for entry in order:
        try:
            return load(_path(folder, *entry))
        except BrokenCheckpoint as error:
            warn(f"{error}; falling back to another checkpoint")
            broken += 1
    if broken:
        raise InputError(f"{folder}: none of the {broken} checkpoints is intact; train anew with another --run")
    return None


def prune(folder: Path, keep: int, best: int | None) -> None:
    """Remove all but the checkpoints of the newest `keep` steps and of the best, and what crashes left behind."""
    stay = [*steps(folder)[-keep:], *([] if best is None else [best])]
    paths = {path_of(folder, step) for step in stay}
    for step, version in _entries(folder):
        path = _path(folder, step, version)
        if path not in paths:
            # Renamed first: a half-removed checkpoint must not look like one.
            os.rename(path, folder / f".step-{step}.{secrets.token_hex(4)}.tmp")
    for entry in folder.iterdir():
        if _TEMPORARY.fullmatch(entry.name):
            shutil.rmtree(entry, ignore_errors=True)


def _self_hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
