"""CaloGAN's test of what tells particles apart (benchmarks/cross_table.py)."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hpcgan.evaluation.classifier import Settings

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = Settings(hidden=(24, 24), learning_rate=5e-3, epochs=12, patience=4)


@pytest.fixture(scope="module")
def cross_table():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        spec = importlib.util.spec_from_file_location("benchmark_cross_table", BENCHMARKS / "cross_table.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        yield module.cross_table
        for name in ("benchmark_cross_table", "trainings"):
            sys.modules.pop(name, None)


def gaussian(seed, n, shift=0.0):
    x = np.random.default_rng(seed).normal(size=(n, 3))
    x[:, 0] += shift
    return x


def test_pairs_of_classes(cross_table):
    """Real classes differ by a shift of 1 along an axis, generated ones by 6: the generator exaggerates.

    Either classifier cuts halfway between the means it has seen, for real ones at Phi(1/2) = 69% right. The one of
    generated events cuts at 3, where nearly all real events of either class are on one side.
    """
    n = 1500
    real = {"gamma": gaussian(15, n), "eplus": gaussian(16, n, 1.0), "piplus": gaussian(17, n, 2.0)}
    fake = {"gamma": gaussian(18, n), "eplus": gaussian(19, n, 6.0), "piplus": gaussian(20, n, 12.0)}
    found = cross_table(real, fake, SMALL)
    assert len(found) == 3 * 4
    assert {entry.classes for entry in found} == {("gamma", "eplus"), ("gamma", "piplus"), ("eplus", "piplus")}
    table = {(e.trained_on, e.tested_on): e for e in found if e.classes == ("gamma", "eplus")}
    both = table["real", "real"]
    assert both.n_test == 300
    assert both.accuracy == pytest.approx(stats.norm.cdf(0.5), abs=4 * both.accuracy_error)
    assert both.accuracy_error == pytest.approx(math.sqrt(both.accuracy * (1 - both.accuracy) / 600))
    assert both.auc == pytest.approx(stats.norm.cdf(1 / math.sqrt(2)), abs=4 * both.auc_error)
    assert table["fake", "fake"].accuracy > 0.99
    # Cut at 1/2: generated gammas are right to 69%, generated eplus nearly always.
    on_fake = table["real", "fake"]
    assert on_fake.accuracy == pytest.approx((stats.norm.cdf(0.5) + 1) / 2, abs=0.06)
    assert table["fake", "real"].accuracy == pytest.approx((1 + stats.norm.cdf(-2.0)) / 2, abs=0.06)
    assert table["fake", "real"].auc == pytest.approx(both.auc, abs=0.08)


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        ({"a": np.ones((20, 2)), "b": np.ones((20, 2))}, {"a": np.ones((20, 2))}, "must be the same"),
        ({"a": np.ones((20, 2))}, {"a": np.ones((20, 2))}, "must be the same"),
        (dict.fromkeys("ab", np.ones((20, 2))), dict.fromkeys("ab", np.ones((9, 2))), "9 events are too few"),
        (dict.fromkeys("ab", np.ones((20, 2))), dict.fromkeys("ab", np.ones((20, 3))), "cannot be compared"),
    ],
)
def test_what_makes_no_cross_table(cross_table, real, fake, message):
    with pytest.raises(ValueError, match=message):
        cross_table(real, fake, SMALL)
