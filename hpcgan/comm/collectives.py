"""What the backends have in common: everything made from an average, a concatenation and bytes.

Gradient semantics
------------------
Every rank r has a loss L_r of its own, and training follows the gradient of their mean: each rank
differentiates L_r, and `begin_average` averages the result. A value that crosses ranks inside the
forward pass (a synced batch-norm mean, the statistics of a minibatch gathered from all ranks) makes
L_r depend on the inputs of the others. Its backward pass therefore hands each rank what *all* losses
feel of its own contribution, the adjoint for the *sum* of the losses:

- ``y = allreduce(x)``, the mean over ranks: ``dx_s = (1/R) sum_r dy_r``, the average of the upstream
  gradients, the same on all ranks;
- ``y = allgather(x)``: ``dx_s = sum_r dy_r[rows of s]``.

Averaging the parameter gradients afterwards makes it the gradient of the mean of the losses, equal to
that of one rank that holds the whole batch. Both can be differentiated again, as gradient
penalties need.
"""

from __future__ import annotations

import contextlib
import io
import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any

import numpy as np

from hpcgan.comm import import_tensorflow
from hpcgan.comm.base import Comm
from hpcgan.errors import HpcganError
from hpcgan.launch.topology import rank_environment
from hpcgan.launch.world import World, die_with_parent, expected_world


def prepare(env: MutableMapping[str, str]) -> World | None:
    """Make this process ready for MPI, before anything that reads the environment is imported.

    Parameters
    ----------
    env : mutable mapping
        Gets the settings that nobody made.

    Returns
    -------
    World or None
        What the launcher promised.
    """
    expected = expected_world(env)
    if expected is not None:
        die_with_parent()
    env.update(rank_environment(env))
    return expected


class TensorComm(Comm):
    """A communicator of several processes that hold TensorFlow tensors.

    A backend gives the primitives, which are the abstract methods here.
    """

    def __init__(self) -> None:
        # Not at import: a login node without TensorFlow can look at this module, too.
        self._tf: Any = import_tensorflow.tensorflow()
        self._host: str | None = None  # collective on the host that is under way

    # --- primitives ------------------------------------------------------------------------------

    @abstractmethod
    def _average(self, tensor: Any, name: str) -> Any:
        """Mean of a floating-point tensor over the ranks; no gradient."""

    @abstractmethod
    def _concatenate(self, tensor: Any, name: str) -> Any:
        """Rows of all ranks in rank order; no gradient."""

    @abstractmethod
    def _broadcast_bytes(self, data: bytes, length: int) -> bytes:
        """The `length` bytes of rank 0 on all ranks."""

    @abstractmethod
    def _broadcast_length(self, length: int) -> int:
        """A number of rank 0 on all ranks."""

    @abstractmethod
    def _gather_bytes(self, data: bytes) -> list[bytes] | None:
        """The bytes of every rank on rank 0, in rank order; None elsewhere."""

    # --- inside the training step ----------------------------------------------------------------

    def begin_average(self, tensor: Any, name: str) -> Callable[[], Any]:
        mean = self._average(self._floating(tensor, name), name)
        return lambda: mean

    def _floating(self, tensor: Any, name: str) -> Any:
        tensor = self._tf.convert_to_tensor(tensor)
        if not tensor.dtype.is_floating:
            raise TypeError(f"{name}: the tensor is {tensor.dtype.name}; only floating point can be averaged")
        return tensor

    def allreduce(self, tensor: Any, name: str) -> Any:
        tf = self._tf

        @tf.custom_gradient
        def mean_over_ranks(x: Any) -> Any:
            def backward(upstream: Any) -> Any:
                return self.allreduce(upstream, f"{name}.grad")

            return self._average(x, name), backward

        return mean_over_ranks(tf.convert_to_tensor(tensor))

    def allgather(self, tensor: Any, name: str) -> Any:
        tf = self._tf

        @tf.custom_gradient
        def gather(x: Any) -> Any:
            rows = tf.shape(x)[:1]
            counts = self._concatenate(rows, f"{name}.rows")

            def backward(upstream: Any) -> Any:
                # Differentiable, too: the mean over ranks times their number is the sum.
                total = self.allreduce(upstream, f"{name}.grad") * tf.cast(self.size, upstream.dtype)
                begin = tf.reduce_sum(counts[: self.rank])
                return tf.ensure_shape(total[begin : begin + counts[self.rank]], x.shape)

            return self._concatenate(x, name), backward

        return gather(tf.convert_to_tensor(tensor))

    # --- on the host -----------------------------------------------------------------------------

    def broadcast_variables(self, variables: Sequence[Any]) -> None:
        """Overwrite the variables of all ranks by those of rank 0, bit for bit.

        Works on the bytes, hence for every dtype and for Keras 2 and 3 alike.

        Raises
        ------
        HpcganError
            On all ranks, if the variables of one differ from rank 0's in number, shape or dtype.
        """
        values = [np.asarray(variable.numpy()) for variable in variables]
        own_layout = [[list(value.shape), str(value.dtype)] for value in values]
        everybody = self.gather_json(own_layout)
        problem = None
        for rank, theirs in enumerate(everybody or []):
            if theirs != own_layout:
                index = next((i for i, pair in enumerate(zip(own_layout, theirs)) if pair[0] != pair[1]), None)
                index = min(len(own_layout), len(theirs)) if index is None else index
                problem = (
                    f"rank {rank} holds other variables than rank 0, from number {index} on: "
                    f"{theirs[index : index + 1] or 'none'} instead of {own_layout[index : index + 1] or 'none'}; "
                    "do all ranks read the same configuration?"
                )
                break
        problem = self.broadcast_json(problem)
        if problem is not None:
            raise HpcganError(problem)
        data = b"".join(value.tobytes() for value in values)
        with self._on_host("broadcast of variables"):
            received = self._broadcast_bytes(data, sum(value.nbytes for value in values))
        if self.rank == 0:
            return
        start = 0
        for variable, value in zip(variables, values):
            piece = np.frombuffer(received, value.dtype, value.size, start).reshape(value.shape)
            variable.assign(piece)
            start += value.nbytes

    def gather_array(self, array: np.ndarray) -> list[np.ndarray] | None:
        """Collect one array a rank on rank 0; any dtype without Python objects, any shape.

        Raises
        ------
        ValueError
            If the array holds Python objects.
        """
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        parts = self._gather_bytes(file.getvalue())
        if parts is None:
            return None
        return [np.load(io.BytesIO(part), allow_pickle=False) for part in parts]

    def gather_json(self, value: Any) -> list[Any] | None:
        parts = self._gather_bytes(json.dumps(value).encode())
        return None if parts is None else [json.loads(part) for part in parts]

    def broadcast_json(self, value: Any) -> Any:
        data = json.dumps(value).encode() if self.rank == 0 else b""
        with self._on_host("broadcast from rank 0"):
            received = self._broadcast_bytes(data, self._broadcast_length(len(data)))
        return json.loads(received)

    @contextlib.contextmanager
    def _on_host(self, name: str) -> Iterator[None]:
        """A collective outside of graphs, by what it is for."""
        before, self._host = self._host, name
        try:
            yield
        finally:
            self._host = before
