"""A conditional model on several ranks: the step of one rank, and a score that the ranks do not change."""

import needs
import numpy as np
import pytest
import tiny
from one_rank import assert_as_one_rank, unless_thorough

tf = needs.tensorflow()
pytest.importorskip("horovod")

from recorded import recorded  # noqa: E402

from hpcgan import config as configuration  # noqa: E402
from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.evaluation.epoch import Scorer  # noqa: E402
from hpcgan.evaluation.sampling import load_sampler  # noqa: E402
from hpcgan.methods.gan import Gan  # noqa: E402
from hpcgan.methods.sampler import Sampler  # noqa: E402
from hpcgan.methods.settings import GanSettings  # noqa: E402
from hpcgan.problems.detector_images.conditional import ConditionalModel, ConditionalProblem  # noqa: E402
from hpcgan.runs.directory import RunDirectory  # noqa: E402
from hpcgan.training import attempt  # noqa: E402
from hpcgan.training.requests import StopRequest  # noqa: E402

BATCH = 3
DETECTOR = {
    "architecture": "detector", "intensity": "pt", "scale_mev": 6000.0, "exponent": 1 / 3, "hidden_units": 4,
}  # fmt: skip


def problem_of(**model):
    return ConditionalProblem(ConditionalModel(filters=2, latent_dim=3, normalisation="none", **model))


def train(comm, problem, whole, steps=2):
    """Weights and metrics after some steps; `comm`'s ranks share batches of `whole` ranks' size."""
    mine = whole * BATCH // comm.size
    settings = {"r1": {"weight": 0.1, "every": 2}, "label_flip": 0.3}
    gan = Gan(problem, GanSettings(batch_size=mine, dtype="float64", **settings), comm, seed=1)
    first, results = comm.rank * mine, []
    for step in range(steps):
        events = whole * BATCH * step + first + np.arange(mine)
        points = np.array(tiny.POINTS)[events % 3].T
        images = tiny.images(whole * BATCH * steps)[events].astype(np.float64)
        real = problem.encode({"hist": images, "mGlu": points[0], "mNeu": points[1]})
        rates = {"generator": 1e-3, "discriminator": 1e-3}
        draws = gan.draws(step, first, mine)
        with unless_thorough():
            result = gan.step(step, real, draws, learning_rates=rates, samples=12 * step + 12, attention=False)
        results.append(result.metrics)
    return {f"{n}/{k}": v.numpy() for n, net in gan.networks.items() for k, v in net.named.items()}, results


@pytest.mark.world_size(2)
@pytest.mark.parametrize(
    "model",
    [
        pytest.param({}, id="dcgan channels", marks=pytest.mark.faults),
        pytest.param({"conditioning": "projection"}, id="dcgan projection"),
        pytest.param(DETECTOR, id="detector channels"),
        pytest.param({**DETECTOR, "conditioning": "projection"}, id="detector projection", marks=pytest.mark.faults),
    ],
)
def test_a_step_with_masses_is_that_of_one_rank(comm, model):
    ours = train(comm, problem_of(**model), 2)
    assert_as_one_rank(comm, ours, lambda: train(SerialComm(), problem_of(**model), 2), rtol=1e-9)


@pytest.mark.world_size(2)
def test_scores_by_point_and_samples_do_not_depend_on_the_number_of_ranks(comm, tmp_path_factory):
    folder = comm.broadcast_json(str(tmp_path_factory.mktemp("data")) if comm.is_root else None)
    from pathlib import Path

    data, run = Path(folder) / "data", RunDirectory(Path(folder) / "run")
    if comm.is_root:
        tiny.write_conditional_data(data)
    comm.barrier()
    problem = problem_of()
    source = problem.open(data, "val")
    gan = Gan(problem, GanSettings(batch_size=4), SerialComm(), seed=1)
    sampler = Sampler(problem, gan.networks["generator"], statistics="moving", batch_size=4)
    asked = []

    def generate(epoch, index, conditions):
        asked.append((index, conditions["mGlu"].tolist()))
        made = sampler.batch(1, "score", epoch, index, conditions)
        return {**made, "hist": made["hist"] * np.float32(0.2)}

    ours, alone = (Scorer(problem, source, c, 29, 4, samples=2)(generate, 1) for c in (comm, SerialComm()))
    source.close()
    assert ours == alone
    ours = ours.score
    assert ours.n == 29
    assert [point["n"] for point in ours.details["points"]] == [10, 10, 9]
    # Each batch, of both samples, has the masses of the real events of its number; the last one starts over.
    wanted = np.array([1400.0, 1600.0, 1800.0])[np.arange(29) % 3]
    for index, m_glu in asked:
        assert m_glu == wanted[(4 * (index % 8) + np.arange(4)) % 29].tolist()

    raw = {
        "problem": "conditional",
        "data": {"path": str(data), "leave_out": [{"mGlu": 1600}]},
        "model": {"filters": 2, "latent_dim": 3},
        "training": {"epochs": 1, "batch_size": 5},
        "scoring": {"events": 20},
    }
    with unless_thorough():
        attempt.train(configuration.load(raw), run, comm, StopRequest())
    if comm.is_root:
        (record,) = recorded(run.metrics_file, "epoch")
        assert record["samples"] == 60
        assert [point["n"] for point in record["score"]["details"]["points"]] == [10, 10]
    comm.barrier()
    made = load_sampler(run.path).sample(7, seed=1)
    rows = comm.gather_json([float(made["hist"].sum()), made["mGlu"].tolist()])
    if comm.is_root:
        assert rows[0] == rows[1]
