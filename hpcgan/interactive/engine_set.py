"""How the engines of a cluster are started; `folder` says how they are ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcgan.config import JobSection, flags
from hpcgan.errors import InputError
from hpcgan.interactive import folder as folders
from hpcgan.interactive import processes
from hpcgan.launch import slurm
from hpcgan.launch.topology import Topology, plan
from hpcgan.suggest import did_you_mean

#: What engines can be: ranks of an mpirun here, or of a Slurm job.
ENGINES = ("mpi", "slurm")
#: The key of `job:` that follows from the number of engines and nodes: another value is refused.
DECIDED = "ranks_per_node"
#: Keys of `job:` that jobs of engines do not heed.
UNHEEDED = ("requeues", "retries")

_MODULE = "hpcgan.interactive.engines"


@dataclass(frozen=True)
class EngineSet:
    """The engines of a cluster, which are to be started.

    Attributes
    ----------
    n : int
    job : JobSection
        Of a Slurm job with its nodes and ranks; of an mpirun here only `threads` counts.
    layout : Topology or None
        Of an mpirun on this machine; None: they are a Slurm job.
    site : Path or None
        Shell file with the site's settings, of a Slurm job.
    """

    n: int
    job: JobSection
    layout: Topology | None = None
    site: Path | None = None

    @property
    def nodes(self) -> int | None:
        """Those of their job."""
        return self.job.nodes if self.layout is None else None

    def start(self, folder: Path, arguments: Sequence[str]) -> dict[str, Any]:
        """Start them, with arguments of `hpcgan.interactive.engines`; who they are, for the cluster's folder.

        Raises
        ------
        HpcganError
            sbatch refuses: what it says.
        """
        argv = [*(["--threads", str(self.job.threads)] if self.job.threads else []), *arguments]
        if self.layout is not None:
            process = processes.start(_MODULE, ["--ranks", str(self.n), *argv], folder / "engines.log")
            return folders.describe(process.pid)
        program = slurm.Program(argv, _MODULE)
        script = slurm.render(self.job, "hpcgan-engines", program, site=self.site, ending="warned")
        return {"job": slurm.submit(script, folder, "engines-%j.log")}


def engine_set(engines: str, n: int, job: JobSection) -> EngineSet:
    """What starts `n` engines of a kind, checked.

    Raises
    ------
    InputError
        One line that names the option.
    """
    if engines not in ENGINES:
        raise InputError(f"engines '{engines}': choose one of {', '.join(ENGINES)}{did_you_mean(engines, ENGINES)}")
    if type(n) is not int or n < 1:
        raise InputError(f"n={n!r}: give at least 1 engine")
    if engines == "mpi":
        options = job.model_dump(exclude_defaults=True, exclude={"threads"})
        if options.get("nodes") == 1:
            del options["nodes"]
        if options:
            names = ", ".join(f"nodes={job.nodes}" if name == "nodes" else name for name in sorted(options))
            raise InputError(f"{names}: only for engines='slurm'; 'mpi' starts them on this machine")
        return EngineSet(n, job, plan(n, threads=job.threads))
    nodes = job.nodes or n
    if n % nodes:
        raise InputError(f"n={n}, nodes={nodes}: the engines must be spread evenly over the nodes")
    if job.ranks_per_node not in (None, n // nodes):
        raise InputError(f"ranks_per_node={job.ranks_per_node}: is not n={n} over nodes={nodes}; leave it out")
    job = flags.section("job", JobSection, job, nodes=nodes, ranks_per_node=n // nodes)
    return EngineSet(n, job, site=slurm.site_file(job))
