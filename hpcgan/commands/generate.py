"""`hpcgan generate`: samples of a trained run, as a file in the layout of the training data."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hpcgan.errors import EXIT_DONE, HpcganError, InputError

if TYPE_CHECKING:
    import h5py

    from hpcgan.data.schema import Sample
    from hpcgan.problems.base import Problem

CHUNK = 4096  # samples in memory at a time, about


class Sampler(Protocol):
    """What generation needs of a trained run (`hpcgan.evaluation.sample.RunSampler`)."""

    problem: Problem

    @property
    def batch_size(self) -> int: ...

    def sample(self, n: int, seed: int, first: int = 0) -> Sample: ...


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "generate",
        help="samples of a trained run as a file",
        description="Sample a run's generator into a file of the same layout as the training data.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("-n", "--events", type=int, required=True, metavar="N", help="number of events")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="HDF5 file to write")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the noise (default: 1)")
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="default: best")
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def run(args: argparse.Namespace) -> int:
    """Generate and write."""
    if args.events < 1:
        raise InputError(f"-n {args.events}: give at least 1")
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}: must not be negative")
    check_target(args.out, args.force)
    import sys

    from rich.console import Console
    from rich.progress import Progress

    import hpcgan
    from hpcgan.evaluation.sample import load_sampler

    console = Console(stderr=True)
    sampler = load_sampler(
        args.run, args.checkpoint, warn=lambda text: print(text, file=sys.stderr, flush=True)
    )
    info = sampler.checkpoint
    attributes = {
        "generated_by": f"hpcgan {hpcgan.__version__}",
        "run": str(args.run),
        "step": info.step,
        "epoch": info.epoch,
        "seed": args.seed,
        **({} if info.score is None else {"validation_score": info.score}),
    }
    started = time.monotonic()
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("generating", total=args.events)
        generate(
            sampler,
            args.events,
            args.seed,
            args.out,
            attributes,
            lambda done: bar.update(task, completed=done),
        )
    rate = args.events / (time.monotonic() - started)
    print(f"{args.out}: {args.events} events from epoch {info.epoch} ({rate:.0f} events/s)")
    return EXIT_DONE


def check_target(path: Path, force: bool) -> None:
    """Refuse a file that cannot be written, before any work is done.

    Raises
    ------
    InputError
        The file exists (and `force` is not set), is a folder, or its folder does not exist or is read-only.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give --out a file name")
    if path.exists() and not force:
        raise InputError(f"{path}: exists already; choose another name, or --force to replace it")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")
    if not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"{path}: the folder is not writable")


def generate(
    sampler: Sampler,
    n: int,
    seed: int,
    path: Path,
    attributes: Mapping[str, Any],
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write the first `n` samples of the sequence of a seed, some thousands in memory at a time.

    The file appears under its name when it is complete.

    Parameters
    ----------
    sampler : Sampler
    n, seed : int
    path : Path
        Replaced if it exists.
    attributes : mapping
        Handed to the problem's `write`.
    progress : callable
        Hears the number of samples done.

    Raises
    ------
    HpcganError
        The file cannot be written.
    """
    size = sampler.batch_size * max(1, CHUNK // sampler.batch_size)
    folder = path.absolute().parent
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{path.name}.") as temporary:
            parts = []
            for first in range(0, n, size):
                count = min(size, n - first)
                parts.append(Path(temporary) / f"{first}.h5")
                sampler.problem.write(parts[-1], sampler.sample(count, seed, first), attributes)
                progress(first + count)
            whole = parts[0] if len(parts) == 1 else join_files(parts, Path(temporary) / "joined.h5")
            os.replace(whole, path)
    except OSError as error:
        raise HpcganError(f"{path}: cannot be written ({error.strerror or error})") from None


def join_files(parts: Sequence[Path], path: Path) -> Path:
    """Concatenate HDF5 files of one layout along the first axis of every data set.

    Attributes are those of the first part; an attribute `events` becomes the total.
    """
    import h5py

    with h5py.File(path, "w", libver="earliest") as whole:
        counts = []
        for part in parts:
            with h5py.File(part, "r") as file:
                counts.append(next(len(dataset) for dataset in _datasets(file).values()))
        start = 0
        for part, count in zip(parts, counts, strict=True):
            with h5py.File(part, "r") as file:
                if start == 0:
                    _copy_layout(file, whole, sum(counts))
                for name, dataset in _datasets(file).items():
                    whole[name][start : start + count] = dataset[...]
            start += count
    return path


def _datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    import h5py

    found: dict[str, h5py.Dataset] = {}
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    return found


def _copy_layout(source: h5py.File, target: h5py.File, n: int) -> None:
    """Groups, attributes and data sets of another file, the latter with `n` rows and no content."""
    import h5py

    def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            made: h5py.Group | h5py.Dataset = target.create_dataset(
                name,
                shape=(n, *item.shape[1:]),
                dtype=item.dtype,
                chunks=item.chunks,
                compression=item.compression,
                compression_opts=item.compression_opts,
                shuffle=item.shuffle,
                fletcher32=item.fletcher32,
            )
        else:
            made = target.require_group(name)
        for key, value in item.attrs.items():
            made.attrs[key] = n if key == "events" else value

    for key, value in source.attrs.items():
        target.attrs[key] = value
    source.visititems(copy)
