"""`Comm` over mpi4py; the only module that imports it.

A second way to the other ranks, on any TensorFlow, including those that Horovod cannot be built for. Collectives are
Python functions that the compiled training step calls, with NumPy arrays, one after the other in the order of the
code, which all ranks share. A thread of Horovod's looks for work every millisecond; here a collective begins at once.
"""

from __future__ import annotations

import importlib
import os
import time
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any

import numpy as np

from hpcgan.comm.collectives import TensorComm, prepare
from hpcgan.comm.libraries import loaded_mpi
from hpcgan.comm.spans import CAPACITY, Span
from hpcgan.errors import HpcganError
from hpcgan.launch.world import check_world

_CHUNK = 1 << 28  # bytes in one call: MPI counts in 32 bits
MISSING = "mpi4py is not installed ({}): run `make setup`, or pip install 'hpcgan[train]'"


class MpiComm(TensorComm):
    """The ranks of a job under mpirun or srun, through mpi4py.

    Parameters
    ----------
    env : mutable mapping, optional
        As for `HorovodComm`.

    Raises
    ------
    HpcganError
        If mpi4py or TensorFlow is not installed, or if MPI reports another world than the launcher promised.
    """

    backend = "mpi"
    supports_half = False  # MPI has no such type

    def __init__(self, env: MutableMapping[str, str] | None = None) -> None:
        expected = prepare(os.environ if env is None else env)
        try:
            super().__init__()
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:  # RuntimeError: no libmpi for the wheel of PyPI
            reason = str(error).strip().splitlines()
            raise HpcganError(MISSING.format(reason[0] if reason else type(error).__name__)) from error
        if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
            raise HpcganError("this MPI cannot be called from several threads (MPI_THREAD_MULTIPLE): use Horovod")
        self._mpi = MPI
        self._world = MPI.COMM_WORLD.Dup()  # apart from the messages of other libraries
        self.rank, self.size = self._world.Get_rank(), self._world.Get_size()
        node = self._world.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = node.Get_rank(), node.Get_size()
        node.Free()
        check_world(expected, self.size, self.rank)
        self._begun: dict[int, Callable[[], np.ndarray]] = {}
        self._last = 0
        self._spans: deque[Span] | None = None

    # --- in the training step --------------------------------------------------------------------

    def begin_average(self, tensor: Any, name: str) -> Callable[[], Any]:
        tensor = self._floating(tensor, name)
        ticket = self._call(lambda x: self._give_ticket(self._begin(x, name)), [tensor], self._tf.int64, [])
        return lambda: self._call(lambda t: self._begun.pop(int(t))(), [ticket], tensor.dtype, tensor.shape)

    def _give_ticket(self, finish: Callable[[], np.ndarray]) -> np.ndarray:
        """A number, which a graph can hand on, for an average that has begun."""
        self._last += 1
        self._begun[self._last] = finish
        return np.array(self._last, np.int64)

    def collective(self) -> str | None:
        return self._host

    def record_spans(self) -> bool:
        self._spans = deque(maxlen=CAPACITY)
        return True

    def take_spans(self) -> list[Span]:
        taken = list(self._spans or ())
        if self._spans is not None:
            self._spans.clear()
        return taken

    def _remember(self, name: str, begun: float, waiting: float) -> None:
        """A collective of a step has ended now."""
        if self._spans is not None:
            self._spans.append(Span(name, begun, waiting, time.time()))

    def _average(self, tensor: Any, name: str) -> Any:
        return self._call(lambda x: self._begin(x, name)(), [tensor], tensor.dtype, tensor.shape)

    def _concatenate(self, tensor: Any, name: str) -> Any:
        return self._call(lambda x: self._rows(x, name), [tensor], tensor.dtype, [None, *tensor.shape[1:]])

    def _call(self, function: Callable[..., np.ndarray], tensors: list[Any], dtype: Any, shape: Any) -> Any:
        """A NumPy function of tensors, now or within the graph that is being traced.

        In a graph, such calls are made one after the other in the order of the code, which all ranks share.
        """
        tf = self._tf
        if tf.executing_eagerly():
            return tf.constant(function(*(tensor.numpy() for tensor in tensors)))
        return tf.ensure_shape(tf.numpy_function(function, tensors, dtype), shape)

    def _begin(self, array: np.ndarray, name: str) -> Callable[[], np.ndarray]:
        """Start to average; the result is waited for by the call of what is returned."""
        begun = time.time()
        contribution = np.asarray(array, order="C")  # `ascontiguousarray` would give a scalar an axis
        total = np.empty_like(contribution)
        flat, summed, step = contribution.reshape(-1), total.reshape(-1), max(1, _CHUNK // contribution.itemsize)
        requests = [
            self._world.Iallreduce(flat[i : i + step], summed[i : i + step], self._mpi.SUM)
            for i in range(0, flat.size, step)
        ]

        def finish(contribution: np.ndarray = contribution) -> np.ndarray:  # mpi4py does not keep what it sends alive
            waiting = time.time()
            with self._on_host(name):
                for request in requests:
                    request.Wait()
            # By multiplication, as Horovod does: the same bits.
            total[...] *= total.dtype.type(1.0 / self.size)
            self._remember(name, begun, waiting)
            return total

        return finish

    def _rows(self, array: np.ndarray, name: str) -> np.ndarray:
        begun = time.time()
        with self._on_host(name):
            counts = np.empty(self.size, np.int64)
            self._world.Allgather(np.array([len(array)], np.int64), counts)
            parts = []
            for rank, count in enumerate(counts):
                part = (
                    np.ascontiguousarray(array)
                    if rank == self.rank
                    else np.empty((count, *array.shape[1:]), array.dtype)
                )
                self._broadcast(part.reshape(-1).view(np.uint8), rank)
                parts.append(part)
        self._remember(name, begun, begun)
        return np.concatenate(parts)

    # --- on the host -----------------------------------------------------------------------------

    def barrier(self) -> None:
        with self._on_host("barrier"):
            self._world.Barrier()

    def close(self) -> None:
        """Wait for the other ranks. MPI itself ends with the process."""
        if not self._mpi.Is_finalized():
            self.barrier()
            self.unwatch()

    def _broadcast(self, buffer: np.ndarray, root: int) -> None:
        for start in range(0, buffer.size, _CHUNK):
            self._world.Bcast(buffer[start : start + _CHUNK], root)

    def _broadcast_length(self, length: int) -> int:
        number = np.array([length], np.int64)
        self._world.Bcast(number, 0)
        return int(number[0])

    def _broadcast_bytes(self, data: bytes, length: int) -> bytes:
        buffer = np.frombuffer(data, np.uint8).copy() if self.rank == 0 else np.empty(length, np.uint8)
        self._broadcast(buffer, 0)
        return buffer.tobytes()

    def _gather_bytes(self, data: bytes) -> list[bytes] | None:
        with self._on_host("gather on rank 0"):
            lengths = np.empty(self.size, np.int64) if self.rank == 0 else None
            self._world.Gather(np.array([len(data)], np.int64), lengths, 0)
            if lengths is None:
                for start in range(0, len(data), _CHUNK):
                    self._world.Send(np.frombuffer(data[start : start + _CHUNK], np.uint8), 0)
                return None
            parts = [data]
            for rank in range(1, self.size):
                buffer = np.empty(int(lengths[rank]), np.uint8)
                for start in range(0, buffer.size, _CHUNK):
                    self._world.Recv(buffer[start : start + _CHUNK], rank)
                parts.append(buffer.tobytes())
            return parts


def build_info() -> dict[str, Any]:
    """The version of mpi4py and the MPI library it has loaded; does not start MPI.

    Raises
    ------
    ImportError, RuntimeError
        mpi4py is not installed, or finds no MPI library.
    """
    import mpi4py

    mpi4py.rc.initialize = False
    importlib.import_module("mpi4py.MPI")
    return {"version": mpi4py.__version__, **loaded_mpi()}
