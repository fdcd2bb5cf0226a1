"""Where trials of a sweep run."""

from hpcgan.plugins import Plugins
from hpcgan.sweep.executors.base import Executor, command

__all__ = ["EXECUTORS", "Executor", "command"]

EXECUTORS = Plugins(
    "hpcgan.executors",
    "executor",
    {
        "ipyparallel": "hpcgan.sweep.executors.ipyparallel:IpyparallelExecutor",
        "local": "hpcgan.sweep.executors.local:LocalExecutor",
        "slurm": "hpcgan.sweep.executors.slurm:SlurmExecutor",
    },
    lambda cls: issubclass(cls, Executor),
)
