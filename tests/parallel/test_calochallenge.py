"""The CaloChallenge's comparison on two ranks finds what one rank finds."""

from __future__ import annotations

import functools
import json

import h5py
import needs
import numpy as np
import pytest

needs.tensorflow()


@pytest.mark.world_size(2)
def test_two_ranks_find_what_one_finds(comm, monkeypatch, tmp_path_factory):
    from hpcgan.calochallenge import protocol, report
    from hpcgan.calochallenge.inputs import Files
    from hpcgan.comm.base import SerialComm
    from hpcgan.metrics.frechet import resampled_fpd
    from hpcgan.metrics.kernel import resampled_kpd

    monkeypatch.setattr(protocol, "resampled_fpd", functools.partial(resampled_fpd, sizes=(50, 200), batches=2))
    monkeypatch.setattr(protocol, "resampled_kpd", functools.partial(resampled_kpd, batch=50))
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(1)
    for name, n in (("real", 40), ("fake", 20)):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["incident_energies"] = rng.uniform(1e3, 1e5, (n, 1))
            file["showers"] = rng.gamma(0.5, 100.0, (n, 368))
    inputs = Files(folder / "real.h5", folder / "fake.h5")
    options = protocol.Options(trainings=2, units=4, epochs=2)
    told: list[str] = []
    together = report.compare(inputs, folder / "together", options, comm, told.append)
    assert any("classifier" in text for text in told)  # each rank has some of the work
    if comm.rank:
        assert together is None
        return
    alone = report.compare(inputs, folder / "alone", options, SerialComm(), lambda text: None)
    assert together is not None
    assert alone is not None
    assert together.data["comparisons"] == json.loads(json.dumps(alone.data["comparisons"]))
    assert together.data["ranks"] == 2
