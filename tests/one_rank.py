"""Several ranks against one that has all samples."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

#: Weights by name, and the metrics of each step.
Trained = tuple[dict[str, np.ndarray], list[dict[str, float]]]


def on(size: int, *values: Any, faults: bool = False) -> Any:
    """Values of a test's parameters, on a number of ranks; some only with `--faults`."""
    marks = [pytest.mark.world_size(size), *([pytest.mark.faults] if faults else [])]
    return pytest.param(size, *values, marks=marks)


#: Whether tests compile what they need not (`--faults`).
thorough = False


def unless_thorough(compiled: bool = False) -> contextlib.AbstractContextManager[None]:
    """Without graphs, but for what has to be `compiled`, and with `--faults`."""
    return contextlib.nullcontext() if compiled or thorough else eagerly()


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Without graphs: of networks as small as those of tests they take longer to make than a few steps."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def steps(gan: Any, problem: Any, comm: Any, batches: Iterable[dict[str, np.ndarray]]) -> Trained:
    """What a step with each of the batches, in physical units, comes to; `comm`'s ranks share a batch evenly."""
    metrics: list[dict[str, float]] = []
    for step, whole in enumerate(batches):
        n = len(next(iter(whole.values())))
        mine, first = n // comm.size, comm.rank * (n // comm.size)
        real = problem.encode({name: values[first : first + mine] for name, values in whole.items()})
        draws, rates = gan.draws(step, first, mine), dict.fromkeys(("generator", "discriminator"), 1e-3)
        done = gan.step(step, real, draws, learning_rates=rates, samples=n * (step + 1), attention=False)
        metrics.append(done.metrics)
    return {f"{n}/{k}": v.numpy() for n, net in gan.networks.items() for k, v in net.named.items()}, metrics


def assert_as_one_rank(
    comm: Any, ours: Trained, theirs: Callable[[], Trained], rtol: float, floor: float = 0.0
) -> None:
    """Rank 0 works out what one rank comes to and compares; all others have to have its bits.

    Weights agree to `rtol` of the largest of an array, or of `floor`.
    """
    weights, metrics = ours
    mine = hashlib.sha256(repr(metrics).encode() + b"".join(w.tobytes() for w in weights.values())).hexdigest()
    everybody = comm.gather_json([list(weights), mine])
    if comm.is_root:
        assert everybody == [[list(weights), mine]] * comm.size
        with eagerly():
            whole = theirs()
        assert weights.keys() == whole[0].keys()
        for name, value in whole[0].items():
            scale = max(np.abs(value).max(), floor)
            np.testing.assert_allclose(weights[name], value, rtol=rtol, atol=rtol * scale, err_msg=name)
        for said, expected in zip(metrics, whole[1], strict=True):
            assert said == pytest.approx(expected, rel=rtol, abs=1e-12)
    comm.barrier()


def averaged(comm: Any, tensors: Iterable[Any], name: str) -> list[Any]:
    """The mean of each over the ranks, in a collective of its own."""
    return [comm.begin_average(tensor, f"{name}.{number}")() for number, tensor in enumerate(tensors)]
