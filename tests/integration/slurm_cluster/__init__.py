"""A real Slurm of several nodes on one machine, for tests.

slurmctld and one slurmd a node, with a munged of their own: nothing under /etc is read or changed, and several
clusters can live beside one another. Needs root and Debian's slurm-wlm, munge and libpmix2
(`tools/slurm.sh` installs them).

    with SlurmCluster(folder) as cluster:
        subprocess.run(["sbatch", ...], env=cluster.env)

or, to look at it by hand:

    eval "$(python tests/integration/slurm_cluster start FOLDER)"
    python tests/integration/slurm_cluster stop FOLDER
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

#: Programs a cluster needs.
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "munged", "unshare")
#: Folders Debian puts daemons in, which are not on everybody's PATH.
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


class SlurmError(RuntimeError):
    """The cluster does not start, or does not get where it was waited for."""


def missing() -> str | None:
    """Why no cluster can be started here; None if one can."""
    absent = [name for name in PROGRAMS if _which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (tools/slurm.sh installs them)"
    if os.geteuid() != 0:
        return "slurmd of several nodes on one machine needs root"
    return None


class SlurmCluster:
    """A cluster in a folder.

    Parameters
    ----------
    folder : Path
        Everything the daemons write goes here. Not below /tmp: nodes have a /tmp of their own.
    nodes, cpus : int
        Number of nodes n1, n2 ... and CPUs of each (of which the machine may have fewer).

    Attributes
    ----------
    env : dict
        Environment in which Slurm's commands speak to this cluster.
    """

    def __init__(self, folder: Path, nodes: int = 4, cpus: int = 2) -> None:
        self.folder = folder.resolve()
        if Path("/tmp") in self.folder.parents:
            raise SlurmError(f"{self.folder}: nodes have a /tmp of their own; take a folder elsewhere")
        self.nodes = [f"n{i + 1}" for i in range(nodes)]
        self._cpus = cpus
        self._conf = self.folder / "slurm.conf"
        self._pids = self.folder / "pids.json"
        self._processes: list[subprocess.Popen[bytes]] = []
        self.env = {
            **{
                k: v
                for k, v in os.environ.items()
                if not k.startswith(("SLURM_", "SBATCH_", "OMPI_", "PMIX_", "PRTE_"))
            },
            "SLURM_CONF": str(self._conf),
            "PATH": f"{os.environ.get('PATH', '')}:{_SBIN}",
        }

    def __enter__(self) -> SlurmCluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- the whole cluster -----------------------------------------------------------------------

    def start(self) -> None:
        """Start all daemons and wait until every node is idle.

        Raises
        ------
        SlurmError
            Something is missing or does not come up; with the end of its log.
        """
        reason = missing()
        if reason:
            raise SlurmError(reason)
        for name in ("state", "logs", "spool", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        ports = _free_ports(1 + len(self.nodes))
        self._configure(ports)
        self._start_munged()
        self._start("slurmctld", ["slurmctld", "-D", "-c"])
        for node in self.nodes:
            self.start_node(node)
        self.wait_for_nodes()

    def stop(self) -> None:
        """End all jobs and daemons."""
        if "slurmctld" in self._running():
            with contextlib.suppress(subprocess.SubprocessError, OSError):
                subprocess.run(["scancel", "--full", "-u", "root"], env=self.env, timeout=10, capture_output=True)
                self._wait_for_empty_queue(15.0)
        for name in [n for n in self._running() if n != "munged"] + ["munged"]:
            self._kill(name, signal.SIGTERM, 5.0)
        for process in self._processes:
            process.poll()
        self.end_strays()

    def _wait_for_empty_queue(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            done = subprocess.run(["squeue", "-h"], env=self.env, timeout=10, capture_output=True, text=True)
            if not done.stdout.strip():
                return
            time.sleep(0.3)

    def end_strays(self) -> None:
        """Kill processes of jobs whose slurmd was killed."""
        marker = f"SLURM_CONF={self.folder}".encode()
        for path in Path("/proc").iterdir():
            if path.name.isdigit() and int(path.name) != os.getpid():
                with contextlib.suppress(OSError):
                    variables = (path / "environ").read_bytes().split(b"\0")
                    in_job = any(v.startswith(b"SLURM_JOB_ID=") for v in variables)
                    if in_job and any(v.startswith(marker) for v in variables):
                        os.kill(int(path.name), signal.SIGKILL)

    def account(self) -> str:
        """The queue, the nodes, and the end of what each daemon has written."""
        told = []
        for command in (["squeue", "--long"], ["sinfo", "--Node", "--long"]):
            done = subprocess.run(command, env=self.env, timeout=20, capture_output=True, text=True)
            told.append(done.stdout + done.stderr)
        return "\n".join([*told, *self._logs(3000)])

    def _logs(self, length: int) -> list[str]:
        logs = sorted((self.folder / "logs").iterdir())
        return [f"{path.name}: {path.read_text(errors='replace')[-length:]}" for path in logs]

    # --- nodes -----------------------------------------------------------------------------------

    def start_node(self, node: str) -> None:
        """Start a node's slurmd, with a /tmp of its own, in which PMIx of several nodes would collide."""
        private = self.folder / "tmp" / node
        private.mkdir(exist_ok=True)
        inner = 'mount --bind "$1" /tmp && shift && exec "$@"'
        self._start(
            node,
            [
                "unshare",
                "--mount",
                "sh",
                "-c",
                inner,
                "sh",
                str(private),
                _which("slurmd") or "slurmd",
                "-D",
                "-N",
                node,
            ],
        )

    def node_runs(self, node: str) -> bool:
        """Whether a node's slurmd is there."""
        return node in self._running()

    def kill_node(self, node: str) -> None:
        """Kill a node's slurmd as a crash would. Its job steps live on, as they share this machine."""
        self._kill(node, signal.SIGKILL, 5.0)

    def wait_for_nodes(self, state: str = "idle", timeout: float = 90.0) -> None:
        """Until all nodes are in a state.

        Raises
        ------
        SlurmError
            They do not get there.
        """
        end = time.monotonic() + timeout
        seen = ""
        while time.monotonic() < end:
            done = subprocess.run(
                ["sinfo", "-h", "-N", "-p", "main", "-o", "%N %t"],
                env=self.env,
                capture_output=True,
                text=True,
                timeout=20,
            )
            seen = done.stdout + done.stderr
            states = dict(line.split() for line in done.stdout.splitlines())
            if set(states) == set(self.nodes) and set(states.values()) == {state}:
                return
            time.sleep(0.2)
        logs = "\n".join(self._logs(500))
        raise SlurmError(f"nodes did not become {state} in {timeout:.0f} s:\n{seen}\n{logs}")

    # --- daemons ---------------------------------------------------------------------------------

    def _configure(self, ports: list[int]) -> None:
        host = socket.gethostname().split(".")[0]
        first, *others = ports
        lines = [
            "ClusterName=hpcgan",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={first}",
            # Open MPI names shared memory after node, job and step: not those of a cluster beside this one.
            f"FirstJobId={1 + os.getpid() % 60000 * 1000}",
            "AuthType=auth/munge",
            # Credentials expire soon: a requeued job waits until its old ones have.
            f"AuthInfo=socket={self.folder}/munge.socket,cred_expire=5",
            "CredType=cred/munge",
            "SlurmUser=root",
            "SlurmdUser=root",
            f"StateSaveLocation={self.folder}/state",
            f"SlurmdSpoolDir={self.folder}/spool/%n",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmdPidFile={self.folder}/slurmd.%n.pid",
            f"SlurmctldLogFile={self.folder}/logs/slurmctld.log",
            f"SlurmdLogFile={self.folder}/logs/%n.log",
            "ProctrackType=proctrack/pgid",
            "TaskPlugin=task/none",
            "MpiDefault=none",
            "ReturnToService=2",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core",
            "SlurmdParameters=config_overrides",
            "SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=200000",
            "SlurmdTimeout=10",
            "SlurmctldTimeout=30",
            "KillWait=5",
            "MinJobAge=600",
            "MaxArraySize=1001",
            "JobRequeue=1",
            "PreemptType=preempt/partition_prio",
            "PreemptMode=REQUEUE",
            "JobCompType=jobcomp/filetxt",
            f"JobCompLoc={self.folder}/logs/finished.txt",
        ]
        for node, port in zip(self.nodes, others, strict=True):
            lines.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={self._cpus} "
                f"Sockets=1 CoresPerSocket={self._cpus} ThreadsPerCore=1 RealMemory=2000 State=UNKNOWN"
            )
        names = ",".join(self.nodes)
        lines += [
            f"PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20",
            f"PartitionName=urgent Nodes={names} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF",
        ]
        self._conf.write_text("\n".join(lines) + "\n")
        (self.folder / "plugstack.conf").write_text("")
        (self.folder / "cgroup.conf").write_text("")

    def _start_munged(self) -> None:
        key = self.folder / "munge.key"
        if not key.exists():
            key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        command = [
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={self.folder}/munge.socket",
            f"--pid-file={self.folder}/munged.pid",
            f"--seed-file={self.folder}/munged.seed",
            f"--log-file={self.folder}/logs/munged.log",
        ]
        self._start("munged", command)
        end = time.monotonic() + 10
        while not (self.folder / "munge.socket").exists():
            if time.monotonic() > end:
                log = self.folder / "logs" / "munged.out"
                raise SlurmError(f"munged does not start: {log.read_text(errors='replace')[-500:]}")
            time.sleep(0.05)

    def _start(self, name: str, command: list[str]) -> None:
        path = _which(command[0]) or command[0]
        with open(self.folder / "logs" / f"{name}.out", "ab") as log:
            process = subprocess.Popen(
                [path, *command[1:]],
                env=self.env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        self._pids.write_text(json.dumps({**self._running(), name: process.pid}))

    def _running(self) -> dict[str, int]:
        try:
            pids: dict[str, int] = json.loads(self._pids.read_text())
        except FileNotFoundError:
            return {}
        living = {name: pid for name, pid in pids.items() if _alive(pid)}
        return living if len(living) == len(pids) else {**self._restarted(), **living}

    def _restarted(self) -> dict[str, int]:
        """Daemons that somebody has killed and started again, as `hpcgan chaos` does."""
        daemons = {}
        marker = f"SLURM_CONF={self._conf}".encode()
        for path in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                name = (path / "comm").read_text().strip() if path.name.isdigit() else ""
                if name in ("slurmctld", "slurmd") and marker in (path / "environ").read_bytes().split(b"\0"):
                    words = (path / "cmdline").read_bytes().decode().split("\0")
                    if name == "slurmctld" or "-N" in words:
                        daemons[name if name == "slurmctld" else words[words.index("-N") + 1]] = int(path.name)
        return daemons

    def _kill(self, name: str, signum: int, timeout: float) -> None:
        pid = self._running().get(name)
        if pid is None:
            return
        os.kill(pid, signum)
        end = time.monotonic() + timeout
        while _alive(pid):
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SBIN}")


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # ours, perhaps: take its exit status, else it stays a zombie
        os.waitpid(pid, os.WNOHANG)
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
