"""Samples that several ranks make together: the file of one rank, of one checkpoint."""

from pathlib import Path

import needs
import numpy as np
import pytest
import tiny
import untrained

needs.tensorflow()
pytest.importorskip("horovod")

from hpcgan import config as configuration  # noqa: E402
from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.errors import InputError  # noqa: E402
from hpcgan.evaluation import sample_file  # noqa: E402
from hpcgan.evaluation.conditions import each, of_rows  # noqa: E402
from hpcgan.evaluation.sampling import load_sampler  # noqa: E402
from hpcgan.problems.detector_images import files as hdf5  # noqa: E402
from hpcgan.runs import checkpoint  # noqa: E402


@pytest.fixture
def folder(comm, tmp_path_factory):
    """The same for all ranks."""
    return Path(comm.broadcast_json(str(tmp_path_factory.mktemp("made")) if comm.is_root else None))


@pytest.mark.world_size(2)
@pytest.mark.parametrize("problem", ["conditional", "rpv"])
def test_two_ranks_write_the_file_of_one(each_comm, folder, monkeypatch, problem):
    comm = each_comm
    raw = {
        "problem": problem,
        "data": {"path": str(folder / "nothing"), "augment": ["phi_rotation"]},
        "model": {"filters": 2, "latent_dim": 3},
        "training": {"epochs": 1, "batch_size": 4, "augment_generated": True},
        "scoring": {"statistics": "batch" if problem == "rpv" else "moving"},
    }
    config = configuration.load(raw)
    if comm.is_root:
        untrained.make_run(folder / "run", config)
    else:  # another checkpoint may be there by the time it looks: it must not look
        monkeypatch.setattr(checkpoint, "load_best", lambda *_: pytest.fail("a rank reads for itself"))
    comm.barrier()
    monkeypatch.setattr(sample_file, "ROUND_BYTES", 2 * 8 * 64 * 64 * 4)  # two batches of each of two ranks
    sampler = load_sampler(folder / "run", comm=comm)
    for n in (3, 16, 37):  # the second rank has nothing to do; one full round; a last batch that is cut
        rows = np.stack([np.linspace(1400, 1800, n), np.full(n, 850.0)], axis=1)
        asked = {"conditions": each(of_rows(sampler.problem, rows))} if problem == "conditional" else {}
        together, alone = (folder / name / f"{n}.h5" for name in ("together", "alone"))
        if comm.is_root:
            together.parent.mkdir(exist_ok=True)
            alone.parent.mkdir(exist_ok=True)
        sample_file.write_samples(sampler, sample_file.SampleFile(together, n, 1, {"seed": 1}), comm=comm, **asked)
        if comm.is_root:
            sample_file.write_samples(
                sampler, sample_file.SampleFile(alone, n, 1, {"seed": 1}), comm=SerialComm(), **asked
            )
            assert together.read_bytes() == alone.read_bytes()
            with hdf5.open_images(together) as file:
                assert len({image.tobytes() for image in file.read()}) == n
                if asked:
                    assert file.column("mGlu") == pytest.approx(rows[:, 0])
    comm.barrier()


@pytest.mark.world_size(2)
def test_a_run_that_rank_0_cannot_read_is_bad_input_on_all(comm, folder):
    config = tiny.config(folder / "nothing")
    if comm.is_root:
        untrained.make_run(folder / "run", config)
        for path in (folder / "run" / "checkpoints").iterdir():
            path.rename(folder / path.name)
    comm.barrier()
    with pytest.raises(InputError, match="no checkpoint yet"):
        load_sampler(folder / "run", comm=comm)
    with pytest.raises(InputError, match="not a run directory"):
        load_sampler(folder / "nothing", comm=comm)
