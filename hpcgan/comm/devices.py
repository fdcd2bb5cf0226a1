"""Give a rank its GPU and its threads. To be called before TensorFlow touches a device.

No GPU was at hand when this was written: the pinning is tested with a stand-in for `tf.config` only.
"""

from __future__ import annotations

import os
from typing import Any

from hpcgan.comm import import_tensorflow
from hpcgan.comm.base import Comm
from hpcgan.errors import HpcganError


def configure_devices(comm: Comm, threads: int, tensorflow: Any = None) -> list[str]:
    """Pin this rank to the GPU of its `local_rank`, grow memory on demand, set the thread pools.

    Parameters
    ----------
    comm : Comm
        Tells `local_rank` and `local_size`.
    threads : int
        Threads within an operation; one operation runs at a time, so that a step takes its operations
        in the same order every time.
    tensorflow : module, optional
        TensorFlow, or what stands in for it.

    Returns
    -------
    list of str
        Names of the GPUs this rank uses: none or one.

    Raises
    ------
    HpcganError
        If the node has GPUs but fewer than ranks, or TensorFlow has already started.
    """
    tf: Any = tensorflow if tensorflow is not None else import_tensorflow.tensorflow()
    try:
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        gpus = list(tf.config.list_physical_devices("GPU"))
        if not gpus:
            return []
        # Under srun --gpus-per-task a rank sees its own GPU only; otherwise it sees those of the node.
        if len(gpus) == 1 and comm.local_size > 1 and comm.size > 1:
            index = 0 if _own_gpu_only() else comm.local_rank
        else:
            index = comm.local_rank
        if index >= len(gpus):
            raise HpcganError(
                f"rank {comm.rank} is number {comm.local_rank} of {comm.local_size} on its node, which has "
                f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}: start at most one rank a GPU, or hide them "
                "(CUDA_VISIBLE_DEVICES=-1) to run on cores"
            )
        gpu = gpus[index]
        tf.config.set_visible_devices(gpu, "GPU")
        tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:
        raise HpcganError(f"devices must be configured before TensorFlow is used: {error}") from error
    return [gpu.name]


def _own_gpu_only() -> bool:
    """Whether the scheduler shows this rank one GPU of its own."""
    return "SLURM_GPUS_PER_TASK" in os.environ or os.environ.get("SLURM_GPU_BIND", "") not in ("", "none")
