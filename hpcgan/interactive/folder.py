"""The folder of a cluster: who its processes are, how it stands, and what is left of one that has ended.

`cluster.json` says who belongs to the cluster (`describe` of the kernel that started it, the controller and
the launcher of the engines, or the number of their Slurm job), and has its ranks once it is up. The controller says in
`status.json` what goes on, notebooks touch `mark`, and a file `stop` asks the controller to end everything.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from hpcgan.errors import HpcganError, InputError
from hpcgan.interactive.processes import until
from hpcgan.launch import slurm
from hpcgan.launch.process import descendants
from hpcgan.system import home
from hpcgan.system.files import write_atomic
from hpcgan.system.liveness import Identity

#: Seconds that engines have to end: one that trains writes a checkpoint.
STOP_S = 60.0
#: Seconds that the controller has to end, and after which a process that was killed is given up.
CONTROLLER_S = 10.0
#: Seconds in which a folder must be gone.
REMOVE_S = 5.0

About = dict[str, Any]
#: `unknown`: it runs on another host, of which nothing can be told from here.
Life = Literal["lives", "dead", "lost", "unknown"]


def clusters() -> Path:
    """Where clusters are kept: `HPCGAN_CLUSTERS`, else `~/.hpcgan/clusters`. Compute nodes must see it, too."""
    home.provide(os.environ)  # ipyparallel looks for it, too
    return Path(os.environ.get("HPCGAN_CLUSTERS") or Path(os.environ["HOME"]) / ".hpcgan" / "clusters").absolute()


def make(about: About) -> tuple[Path, About]:
    """A new folder for a cluster that this process starts, and what is written there, `about` included.

    Raises
    ------
    InputError
        It cannot be made, or nothing can be written there.
    """
    folder = clusters() / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    try:
        folder.mkdir(parents=True, mode=0o700)
        about = {
            **about,
            "host": socket.gethostname(),
            "starter": describe(os.getpid()),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        write(folder, about)
    except OSError as error:
        remove(folder)
        raise InputError(f"{folder}: cannot be made ({error.strerror}); HPCGAN_CLUSTERS names another place") from None
    return folder, about


def describe(pid: int) -> dict[str, Any]:
    """Who a process on this machine is, for `lives`."""
    return Identity.of(pid).plain()


def lives(process: object) -> bool | None:
    """Whether a process that `describe` has described still runs; None where that cannot be told from here."""
    who = Identity.read(process)
    if who is None:
        return False
    alive = who.lives()
    return False if alive is None and who.is_of_earlier_boot() else alive


def write(folder: Path, about: About) -> None:
    write_atomic(folder / "cluster.json", json.dumps(about) + "\n")


def read(folder: Path, name: str = "cluster.json") -> About:
    """What is written there; nothing if it cannot be read."""
    try:
        about = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def existing() -> list[Path]:
    """Folders of clusters, whether they live or not, the newest one last."""
    root = clusters()
    try:
        entries = list(root.iterdir()) if root.is_dir() else []
    except OSError as error:
        raise InputError(f"{root}: cannot be read ({error.strerror})") from None
    return sorted(f for f in entries if re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", f.name) and f.is_dir())


def controller_lives(about: Mapping[str, Any]) -> bool | None:
    """Whether a cluster's controller runs; one that is being started counts as such. None: cannot be told from here."""
    return lives(about.get("controller") or about.get("starter"))


def engines_live(about: Mapping[str, Any]) -> bool | None:
    """Whether the engines' launcher runs here; None for those of a Slurm job, and where it cannot be told."""
    engines = about.get("engines")
    if not isinstance(engines, Mapping):
        return False
    return None if "job" in engines else lives(engines)


def life(about: Mapping[str, Any]) -> Life:
    """How a cluster is; `lost` is one whose controller has gone, and whose engines are still there."""
    alive = controller_lives(about)
    if alive is None:
        return "unknown"
    if alive:
        return "lives"
    job = (about.get("engines") or {}).get("job")
    if job is not None:
        with contextlib.suppress(HpcganError):  # Slurm does not answer: it may be there
            status = slurm.job_state(job)
            return "lost" if status is not None and status.state in slurm.PRESENT else "dead"
        return "lost"
    return "lost" if engines_live(about) else "dead"


def tidy(*, own: bool) -> None:
    """Remove the folders of clusters of which nothing is left, as far as that can be told from here.

    Parameters
    ----------
    own : bool
        Also those that a living process has started, which may still want to read why its cluster has ended.
    """
    for folder in existing():
        about = read(folder)
        if life(about) == "dead" and (own or lives(about.get("starter")) is False):
            remove(folder)


def remove(folder: Path) -> None:
    """Remove it; a process that has just ended may still hold a file, which some file systems keep until then."""

    def gone() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    until(gone, REMOVE_S, 0.2)


def end_engines(about: Mapping[str, Any], hurry: Callable[[], bool] = lambda: False) -> None:
    """End engines, which write a checkpoint if they train; the hard way after a minute, or at once when hurried.

    Raises
    ------
    HpcganError
        Slurm refuses, or the job is still there long after it was cancelled.
    """
    engines = about.get("engines")
    if isinstance(engines, Mapping) and "job" in engines:
        _end_job(str(engines["job"]), hurry)
    else:
        end_process(engines, STOP_S, hurry)


def end_process(process: object, grace: float, hurry: Callable[[], bool] = lambda: False) -> None:
    """SIGTERM to a process, and SIGKILL to it and all that it has started if it is there after `grace` seconds.

    Parameters
    ----------
    process
        From `describe`; one that does not live, or of which that cannot be told from here, is left alone.
    """
    if not isinstance(process, Mapping) or not lives(process):
        return
    pid = int(process["pid"])
    _send(pid, signal.SIGTERM)
    if until(lambda: not lives(process), grace, 0.05, hurry):
        return
    for one in [*descendants(pid), pid]:
        _send(one, signal.SIGKILL)
    until(lambda: not lives(process), CONTROLLER_S, 0.05)


def _end_job(job: str, hurry: Callable[[], bool]) -> None:
    def gone() -> bool:
        status = slurm.job_state(job)
        return status is None or status.state not in slurm.PRESENT

    status = slurm.job_state(job)
    if status is not None and status.state == "RUNNING" and not hurry():
        slurm.ask_to_stop(job)
        until(gone, STOP_S, 0.5, hurry)
    if not gone():
        slurm.cancel([job])
        if not until(gone, STOP_S, 0.5):
            raise HpcganError(f"job {job} is still there {STOP_S:.0f} s after it was cancelled: see 'squeue'")


def _send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
