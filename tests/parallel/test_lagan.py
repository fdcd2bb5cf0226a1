"""LAGAN's step on several ranks against one rank that has all images: dropout, flips and nearness over all ranks."""

import jet_data
import needs
import numpy as np
import one_rank
import pytest
from one_rank import assert_as_one_rank, on, unless_thorough

tf = needs.tensorflow()
pytest.importorskip("horovod")

from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.methods.gan import Gan  # noqa: E402
from hpcgan.methods.settings import GanSettings  # noqa: E402
from hpcgan.problems.jet_images.problem import JetsModel, JetsProblem  # noqa: E402

BATCH = 4
PUBLISHED = {
    "generator_steps": 2,
    "discriminator_update": "apart",
    "batch_norm": "synced",
    "label_flip": 0.3,
    "label_flip_unit": "sample",
}


def steps(comm, size, architecture, **training):
    """Weights, statistics and metrics after two steps; the ranks share batches of `size` * BATCH."""
    model = JetsModel(architecture=architecture, latent_dim=5, class_flip=(0.3, 0.4))
    config = GanSettings(batch_size=size * BATCH // comm.size, dtype="float64", **{**PUBLISHED, **training})
    problem = JetsProblem(model)
    batches = (
        {name: values.astype(np.float64) for name, values in jet_data.jets(size * BATCH, seed=step).items()}
        for step in range(2)
    )
    return one_rank.steps(Gan(problem, config, comm, seed=1), problem, comm, batches)


@pytest.mark.parametrize(
    ("size", "backend", "architecture", "training"),
    [
        on(2, "horovod", "lagan", {}),
        on(2, "mpi", "fc", {"generator_steps": 1, "discriminator_update": "joint"}),
        on(3, "mpi", "lagan", {}, faults=True),
        on(3, "horovod", "dcgan", {}, faults=True),
    ],
)
def test_the_step_is_that_of_one_rank_with_the_whole_batch(comm_of, size, backend, architecture, training):
    comm = comm_of(backend)
    with unless_thorough():
        ours = steps(comm, size, architecture, **training)
    assert all(metrics["auxiliary_loss"] > 0.1 for metrics in ours[1])
    assert_as_one_rank(comm, ours, lambda: steps(SerialComm(), size, architecture, **training), rtol=1e-8, floor=1e-3)
