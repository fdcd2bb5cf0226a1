"""Methods, comm backends and trackers, found by name without importing them: nothing here loads TensorFlow.

`method:`, `comm.backend:` and `tracking.to:` of a configuration are names here, of entry points of the groups below, or
the place `package.module:Class` of somebody's own.
"""

from __future__ import annotations

from hpcgan.config.training import TrainingSection
from hpcgan.plugins import Plugins

#: How networks are trained. Each is a schema of the `training:` section, which names the class that trains by it
#: (`TrainingSection.trainer`).
METHODS = Plugins(
    "hpcgan.methods",
    "method",
    {"gan": "hpcgan.methods.settings:GanSettings", "nll": "hpcgan.methods.settings:LikelihoodSettings"},
    lambda cls: issubclass(cls, TrainingSection) and hasattr(cls, "trainer") and hasattr(cls, "networks"),
)

#: Ways to the other ranks: subclasses of `hpcgan.comm.base.Comm` that are made without arguments.
BACKENDS = Plugins(
    "hpcgan.backends",
    "comm.backend",
    {
        "horovod": "hpcgan.comm.horovod:HorovodComm",
        "mpi": "hpcgan.comm.mpi:MpiComm",
        "serial": "hpcgan.comm.base:SerialComm",
    },
    lambda cls: hasattr(cls, "begin_average"),
)

#: Where runs are shown: subclasses of `hpcgan.tracking.base.Tracker`.
TRACKERS = Plugins(
    "hpcgan.trackers",
    "tracking.to",
    {
        "mlflow": "hpcgan.tracking.mlflow_runs:MlflowTracker",
        "wandb": "hpcgan.tracking.wandb_runs:WandbTracker",
    },
    lambda cls: hasattr(cls, "upload") and hasattr(cls, "discard"),
)


def settings_of(method: str) -> type[TrainingSection]:
    """The schema of the `training:` section of a method.

    Raises
    ------
    InputError
        There is no such method.
    """
    settings: type[TrainingSection] = METHODS.get(method)
    return settings
