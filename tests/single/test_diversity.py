"""Diversity of generated samples, against distances by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from hpcgan.comm.base import SerialComm
from hpcgan.data.schema import TensorSpec
from hpcgan.evaluation.epoch import DIVERSITY_EVENTS as EVENTS
from hpcgan.evaluation.epoch import Diversity, DiversityMeter

SCHEMA = {"x": TensorSpec((1, 2)), "y": TensorSpec(()), "energy": TensorSpec((), role="condition")}
#: Encoding doubles everything, so it must not matter.
PROBLEM = SimpleNamespace(
    schema=SCHEMA, conditions=("energy",), encode=lambda sample: {k: 2.0 * v for k, v in sample.items()}
)


def sample(x, y):
    x = np.asarray(x, np.float64)
    return {"x": x.reshape(-1, 1, 2), "y": np.asarray(y, np.float64), "energy": np.arange(len(x)) ** 3.0}


class Events:
    """A source that holds a sample."""

    def __init__(self, held):
        self.held = held

    def __len__(self):
        return len(self.held["y"])

    def read(self, indices):
        return {k: v[indices] for k, v in self.held.items()}

    def conditions(self):
        return {"energy": self.held["energy"]}

    def weights(self):
        return self.held.get("weight")


#: Three points of a triangle with sides 3, 4 and 5; y says nothing.
TRIANGLE = sample([[0, 0], [3, 0], [0, 4]], [7.0, 7.0, 7.0])


def diversity(real, fake, batch=3):
    def generate(epoch, index, asked):
        wanted = (index * batch + np.arange(batch)) % len(real["y"])  # a whole batch, with the real events' conditions
        assert asked["energy"].tolist() == real["energy"][wanted].tolist()
        return {k: v[index * batch : (index + 1) * batch] for k, v in fake.items()}

    return DiversityMeter(PROBLEM, Events(real), SerialComm(), batch)(generate, 1)


def test_the_same_samples_are_as_diverse():
    assert diversity(TRIANGLE, TRIANGLE) == Diversity(1.0, 1.0)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_ratios_of_mean_distances_by_hand(batch):
    """Points 0, 0 and 6 apart: pairs 0, 6, 6 over 3, 4, 5; the nearest 0, 0, 6 over 3, 3, 4."""
    fake = sample([[0, 0], [0, 0], [6, 0]], [1.0, 1.0, 1.0])
    found = diversity(TRIANGLE, fake, batch)
    assert found.pairs == pytest.approx(12 / 12)
    assert found.nearest == pytest.approx(6 / 10)


def test_a_collapse_is_none_and_half_the_size_is_half():
    assert diversity(TRIANGLE, sample(np.ones((3, 2)), np.ones(3))) == Diversity(0.0, 0.0)
    half = diversity(TRIANGLE, {k: 0.5 * v for k, v in TRIANGLE.items()})
    assert (half.pairs, half.nearest) == pytest.approx((0.5, 0.5))


def test_tensors_count_alike_whatever_their_scale():
    """Only x varies in one, only y in the other: the same distances in units of the real ones, ten thousand apart."""
    rng = np.random.default_rng(0)
    line = rng.normal(size=20)
    x = np.stack([line, np.zeros(20)], axis=1)
    real = sample(x, 1e4 * line[::-1])
    for fake in (sample(x, np.zeros(20)), sample(np.zeros((20, 2)), 1e4 * line)):
        assert diversity(real, fake, 20).pairs == pytest.approx(
            diversity(real, sample(x, np.zeros(20)), 20).pairs, rel=1e-9
        )


def test_only_so_many_events_are_compared():
    rng = np.random.default_rng(1)
    real = sample(rng.normal(size=(EVENTS + 50, 2)), rng.normal(size=EVENTS + 50))
    asked = []

    def generate(epoch, index, _):
        asked.append((epoch, index))
        return {k: v[:50] for k, v in real.items()}

    assert DiversityMeter(PROBLEM, Events(real), SerialComm(), 50)(generate, 4).pairs > 0.8
    assert asked == [(4, 0), (4, 1), (4, 2)]  # 150 for 128


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        (sample(np.ones((3, 2)), np.ones(3)), TRIANGLE),  # real events that are all alike
        (sample([[1.0, 2.0]], [3.0]), TRIANGLE),  # a single one
        (TRIANGLE, sample(np.full((3, 2), np.nan), np.ones(3))),
    ],
    ids=["alike", "single", "nan"],
)
def test_where_it_has_no_meaning_there_is_none(real, fake):
    assert diversity(real, fake) is None
