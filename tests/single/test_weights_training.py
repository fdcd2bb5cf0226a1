"""Trainings on weighted and on selected events: which events are seen, what is said, and what is refused."""

import h5py
import needs
import numpy as np
import pytest
import tiny

tf = needs.tensorflow()

from recorded import recorded  # noqa: E402

from hpcgan import api  # noqa: E402
from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.data.pipeline import Pipeline  # noqa: E402
from hpcgan.errors import InputError, Interrupted  # noqa: E402
from hpcgan.runs import (  # noqa: E402
    checkpoint,
)
from hpcgan.runs.directory import RunDirectory  # noqa: E402
from hpcgan.training import attempt  # noqa: E402
from hpcgan.training.inputs import Inputs  # noqa: E402
from hpcgan.training.requests import StopRequest  # noqa: E402

pytestmark = pytest.mark.usefixtures("warm", "eager")


def data(folder, **columns):
    """`tiny` data with other columns."""
    tiny.write_data(folder)
    for split in ("train", "val", "test"):
        with h5py.File(folder / f"{split}.h5", "a") as file:
            group = file["all_events"]
            for name, of in columns.items():
                group[name][:] = of(np.arange(len(group["y"])))
    return folder


def train(folder, run, *overrides, stop=None):
    return tiny.train(tiny.config(folder, "training.epochs=1", "scoring.events=10", *overrides), run, stop)


def arrays(run):
    return checkpoint.load_latest(run.checkpoints, pytest.fail).arrays


def same(one, other):
    a, b = arrays(one), arrays(other)
    assert a.keys() == b.keys()
    return all(np.array_equal(a[name], b[name]) for name in a)


def scores(run):
    return [record["score"]["total"] for record in recorded(run.metrics_file, "epoch")]


def test_equal_weights_are_none_and_zero_weights_are_a_selection(tmp_path, capfd):
    plain = data(tmp_path / "plain", y=lambda i: i % 2, weight=lambda i: 0 * i + 1)
    equal = data(tmp_path / "equal", y=lambda i: i % 2, weight=lambda i: 0 * i + 2.5)
    zero = data(tmp_path / "zero", y=lambda i: i % 2, weight=lambda i: i % 2)
    of_plain = train(plain, tmp_path / "a")
    shown = capfd.readouterr()
    assert "weights of events" not in shown.out + shown.err
    assert shown.err.count("are a mixture of y = 0 (30 events), 1 (30 events)") == 1
    assert "data.select={y: 1}" in shown.err
    assert same(of_plain, train(equal, tmp_path / "b"))
    capfd.readouterr()
    of_zero = train(zero, tmp_path / "c")
    shown = capfd.readouterr()
    assert "have equal weights, 30 have the weight 0 and are left out" in shown.out
    assert "7 steps an epoch of 30 events" in shown.out
    assert "mixture" not in shown.err
    of_selected = train(plain, tmp_path / "d", "data.select={y: 1}")
    assert same(of_zero, of_selected)
    assert scores(of_zero) == scores(of_selected)
    assert not same(of_zero, of_plain)
    # Ignored, they are as if they were equal.
    assert same(of_plain, train(zero, tmp_path / "e", "data.weights=ignore"))


def test_weighted_events_are_seen_as_often_as_they_weigh(tmp_path, monkeypatch, capfd):
    folder = data(tmp_path / "data", weight=lambda i: np.where(i % 3, 1.0, np.where(i % 2, -4.0, 4.0)))
    seen, read = [], Pipeline._batch

    def batch(self, order, epoch, position, step):
        seen.append(self._sharding.shard(order, position))
        return read(self, order, epoch, position, step)

    monkeypatch.setattr(Pipeline, "_batch", batch)
    with h5py.File(folder / "val.h5", "a") as file:
        file["all_events/weight"][...] = np.abs(file["all_events/weight"][:])
    with h5py.File(folder / "train.h5", "a") as file:
        file["all_events/weight"][3] = 4.0  # 20 events of |weight| 4, 9 of them negative: a sum of 48
    run = train(folder, tmp_path / "run")
    counts = np.bincount(np.concatenate(seen), minlength=60)
    assert counts.sum() == 60
    heavy = np.arange(60) % 3 == 0
    assert set(counts[heavy]) == {2}  # 60 * 4 / 120
    assert counts[~heavy].sum() == 20
    assert counts[~heavy].max() == 1
    shown = capfd.readouterr()
    assert "the weights of events are used: 60 events of" in shown.out
    assert "15.0% of the events have a negative weight (30.0% of the sum of |weight|)" in shown.err
    assert "|weight|" in shown.err
    assert len(scores(run)) == 1


def test_a_weighted_training_resumes_in_the_middle_of_an_epoch(tmp_path):
    folder = data(tmp_path / "data", weight=lambda i: 0.2 + (i % 7))
    whole = train(folder, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(folder, tmp_path / "parts", stop=tiny.StopAt(6))
    parts = train(folder, tmp_path / "parts")
    assert same(whole, parts)
    assert scores(whole) == scores(parts)


@pytest.mark.parametrize(
    ("split", "of", "overrides", "message"),
    [
        ("train", lambda i: np.where(i % 2, 1.0, -1.0), [], "the weights of 60 events sum to 0"),
        ("val", lambda i: -1.0 - i, [], "the weights of 20 events sum to"),
        (
            "val",
            lambda i: np.where(i < 10, -1.0, 5.0),
            [],
            "'weight' of the first 10 events: .*scoring.events",
        ),
        ("train", lambda i: np.where(i < 58, 0.0, 1.0), [], "2 events are fewer than a global batch of 4"),
        ("train", lambda i: np.where(i == 9, np.nan, 1.0), [], "the weight of event 9 is nan"),
        ("train", lambda i: 0 * i + 1.0, ["data.select={y: 0}"], r"no event has y = 0; there are: 1 \(60 events\)"),
    ],
)
def test_what_is_refused_before_anything_is_written(tmp_path, split, of, overrides, message):
    folder = data(tmp_path / "data")
    with h5py.File(folder / f"{split}.h5", "a") as file:
        file["all_events/weight"][:] = of(np.arange(len(file["all_events/weight"])))
    made = tiny.config(folder, "training.epochs=1", "scoring.events=10", *overrides)
    run = RunDirectory(tmp_path / "run")
    for start in (
        lambda: api.preflight(made, run, 1),
        lambda: attempt.train(made, run, SerialComm(), StopRequest()),
    ):
        with pytest.raises(InputError, match=message) as error:
            start()
        assert f"{split}.h5" in str(error.value)
        assert "\n" not in str(error.value)
    assert not run.exists


def test_what_networks_measure_is_weighted(tmp_path):
    folder = data(tmp_path / "data", weight=lambda i: np.where(i < 30, 9.0, 1.0))
    made = tiny.config(folder)
    with Inputs.open(made, ["train"]) as inputs:
        sharding = inputs.sharding(0, 1)
        encoded = np.concatenate([sample["hist"] for sample in inputs.encoded(sharding, at_once=7)])
        expected = inputs.problem.encode(inputs.training.read(sharding.resampled(0)))["hist"]
        np.testing.assert_array_equal(encoded, expected)
        assert np.count_nonzero(sharding.resampled(0) < 30) == pytest.approx(54, abs=5)
