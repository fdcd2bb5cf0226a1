"""The data of a training on its nodes' own storage (`data.stage`): one rank of each node copies, the others wait."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from hpcgan.comm.agreement import agreed
from hpcgan.comm.base import Comm
from hpcgan.config import Config
from hpcgan.data.staging import KEY, Copies, Original, Store, size_text
from hpcgan.errors import HpcganError, InputError, Interrupted
from hpcgan.problems import run_data
from hpcgan.problems.base import problem_class
from hpcgan.problems.run_data import RunData
from hpcgan.runs.records import NodeCopy
from hpcgan.system.files import warn

SLICE_S = 0.25
"""For which a rank copies between two moments at which all ranks hear of one another."""

SAY_EVERY_S = 60.0
"""Between two lines on how far a long copy is."""


@dataclass(frozen=True)
class Staged:
    """Where a rank reads the data of a training.

    Attributes
    ----------
    config : Config
        That of the training, `data.path` being where this rank reads.
    source : RunData or None
        What the configuration's own `data.path` holds, on all ranks; None if that is where they read.
    copies : tuple of NodeCopy
        Of each node, on rank 0.
    """

    config: Config
    source: RunData | None = None
    copies: tuple[NodeCopy, ...] = ()


@contextlib.contextmanager
def staged(config: Config, comm: Comm, is_stopped: Callable[[], bool] = lambda: False) -> Iterator[Staged]:
    """The data on each node's own storage, where `data.stage` asks for it; on all ranks together.

    A rank copies for all that see the same folder of the same machine, whatever a launcher calls a node. In this
    context nobody removes the copies; at its end they go if `data.stage_keep` is false and nobody else reads them,
    unless a rank failed alone, as the others may still read.

    Parameters
    ----------
    config : Config
    comm : Comm
    is_stopped : callable
        Whether this rank was asked to stop.

    Raises
    ------
    HpcganError
        On all ranks, naming the node: the data are missing, or cannot be copied.
    Interrupted
        On all ranks: one was asked to stop while they were copied.
    """
    if config.data.stage is None:
        yield Staged(config)
        return
    source, names, is_file = _source(config, comm)
    base = config.data.path.parent if is_file else config.data.path
    originals = [Original(base / name, name, fingerprint) for name, fingerprint in names.items()]
    began = time.monotonic()
    with agreed(comm):
        store = Store(config.data.stage)
        store.make()
        place = store.place
    places = comm.broadcast_json(comm.gather_json(place))
    copies = Copies(store, originals)
    copier = copies if places.index(place) == comm.rank else None
    folder = copies.folder / originals[0].name if is_file else copies.folder
    is_together = False
    with contextlib.ExitStack() as held:
        with agreed(comm):
            if copier is not None:
                held.enter_context(copier.held())
        _warn_of_doubts(comm, None if copier is None else store.doubt(originals[0].path))
        _copy(copier, comm, is_stopped)
        own = None
        if copier is not None:
            own = [store.node, str(copies.folder), copies.size, time.monotonic() - began]
        everyone = tuple(NodeCopy(*entry) for entry in comm.gather_json(own) or () if entry)
        try:
            yield Staged(config.with_data(folder, {}), source, everyone)
            is_together = True
        except HpcganError as error:
            is_together = error.collective or comm.size == 1
            raise
        finally:
            held.close()
            if copier is not None and is_together and not config.data.stage_keep:
                with contextlib.suppress(OSError):
                    store.remove(copies.name)


def _source(config: Config, comm: Comm) -> tuple[RunData, dict[str, str], bool]:
    """As rank 0 sees them: the data, fingerprints by the names of copies, and whether `data.path` is a file."""
    seen = None
    with agreed(comm):
        if comm.is_root:
            data = run_data.identify(config)
            seen = {"data": data.plain(), "names": _names(config, data), "is_file": config.data.path.is_file()}
    seen = comm.broadcast_json(seen)
    return RunData.of_plain(seen["data"]), seen["names"], seen["is_file"]


def _names(config: Config, data: RunData) -> dict[str, str]:
    """Fingerprints of the files that a training reads, by their paths in the folder of the data.

    Raises
    ------
    InputError
        A file is elsewhere.
    """
    problem, path = problem_class(config.problem)(config.model), config.data.path
    base, names = path.parent if path.is_file() else path, {}
    for split in run_data.TRAINED_ON:
        for name, file in problem.files(path, split).items():
            if not file.is_relative_to(base):
                raise InputError(f"{KEY}: {file} is not in the folder of the data, {base}; leave {KEY} out")
            names[str(file.relative_to(base))] = data.files[split][name].fingerprint
    return names


def _warn_of_doubts(comm: Comm, doubt: str | None) -> None:
    """Say once what speaks against a copy."""
    doubts = [text for text in comm.gather_json(doubt) or () if text]
    if doubts:
        warn(f"{doubts[0]}: a copy gains nothing there")


def _copy(copier: Copies | None, comm: Comm, is_stopped: Callable[[], bool]) -> None:
    """Copy, or wait for those that do."""
    copying: Generator[int, None, None] = (n for n in range(0)) if copier is None else copier.make()
    told = time.monotonic()
    with contextlib.closing(copying):
        while True:
            with agreed(comm):
                done = _advance(copying)
            comm.beat(f"copying data to {KEY}")
            own = [done is None, is_stopped(), done or 0, 0 if copier is None else copier.size]
            ranks = comm.broadcast_json(comm.gather_json(own))
            if all(is_done for is_done, *_ in ranks):
                return
            if any(is_stopped for _, is_stopped, *_ in ranks):
                raise Interrupted(
                    f"stopped on request while data were copied ({KEY}); run the same command to go on", collective=True
                )
            if comm.is_root and time.monotonic() - told > SAY_EVERY_S:
                told = time.monotonic()
                print(f"copying data: {_progress(ranks)}", flush=True)
            if done is None:
                time.sleep(SLICE_S)


def _progress(ranks: Sequence[tuple[bool, bool, int, int]]) -> str:
    """How far the slowest copy is; a copy that another job makes has no size here.

    Each rank says whether it is done, whether it was stopped, and its bytes copied and to be copied.
    """
    shares = [(copied / size, copied, size) for is_done, _, copied, size in ranks if size and not is_done]
    if not shares:
        return "another job's copy is waited for"
    _, copied, size = min(shares)
    return f"{size_text(copied)} of {size_text(size)}"


def _advance(copying: Iterator[int]) -> int | None:
    """Copy for a moment; the bytes that are copied, or None when all are."""
    end = time.monotonic() + SLICE_S
    for done in copying:
        if time.monotonic() > end:
            return done
    return None


def summary(copies: tuple[NodeCopy, ...]) -> str:
    """One line on the copies of all nodes."""
    new = [copy for copy in copies if copy.copied_bytes]
    folders = sorted({copy.folder for copy in copies})
    parts = []
    if new:
        most, seconds = max(copy.copied_bytes for copy in new), max(copy.seconds for copy in new)
        parts.append(f"copied to {_nodes(len(new))} ({size_text(most)} in {seconds:.1f} s)")
    if len(new) < len(copies):
        parts.append(f"already on {_nodes(len(copies) - len(new))}")
    return f"data {', '.join(parts)}: {folders[0]}{' and others' * (len(folders) > 1)}"


def _nodes(count: int) -> str:
    return f"{count} node{'s' * (count != 1)}"


def forecast(config: Config) -> str:
    """What a training with `data.stage` would copy to this node, in one line."""
    setting = config.data.stage
    if setting is None:
        return f"{KEY}: nothing is copied"
    try:
        names = _names(config, run_data.identify(config))
        base = config.data.path.parent if config.data.path.is_file() else config.data.path
        originals = [Original(base / name, name, fingerprint) for name, fingerprint in names.items()]
        copies = Copies(Store(setting), originals)
        missing = copies.missing()
    except HpcganError as error:
        return f"{KEY} on this node: {error}"
    if not missing:
        return f"{KEY}: {len(originals)} files are in {copies.folder} already, on this node"
    size = sum(original.path.stat().st_size for original in missing)
    return f"{KEY}: {len(missing)} of {len(originals)} files, {size_text(size)}, are to be copied to {copies.folder}"
