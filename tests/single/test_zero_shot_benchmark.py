"""The comparison of models in geometries that no training shower had (benchmarks/zero_shot.py)."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from hpcgan.problems.arm.geometry import FINEST, parse

FILE = Path(__file__).parents[2] / "benchmarks" / "zero_shot.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("benchmark_zero_shot", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rebinning_to_coarser_cells_is_their_sum_and_to_finer_ones_by_area(script):
    fine, coarse = (parse(text, "middle") for text in ("eta48_phi48", "eta12+24_phi16"))
    images = np.random.default_rng(1).exponential(size=(3, 48, 48))
    np.testing.assert_allclose(
        script.rebinned(images.reshape(3, -1), fine, coarse), coarse.sum_of(images, FINEST["middle"])
    )
    back = script.rebinned(coarse.sum_of(images, FINEST["middle"]), coarse, fine).reshape(images.shape)
    np.testing.assert_allclose(back.sum(axis=(1, 2)), images.sum(axis=(1, 2)))
    np.testing.assert_allclose(back[:, :3, :2], images[:, :3, :2].mean(axis=(1, 2))[:, None, None] * np.ones((3, 2)))


def test_distances_are_in_standard_deviations_of_the_real_ones(script):
    geometry = parse("eta4_phi2", "middle")
    real = np.random.default_rng(2).gamma(5.0, 100.0, (4000, 8))
    values = script.compared(real, 1.1 * real, geometry)
    total = real.sum(axis=1)
    assert values["energy"][0] == pytest.approx(0.1 * total.mean() / total.std(), rel=1e-6)
    assert values["mean_eta"][0] == pytest.approx(0.0, abs=1e-6)
    assert values["mean"][0] == pytest.approx(np.mean([values[name][0] for name in script.SCORED if name in values]))


def test_of_several_runs_the_mean_and_its_spread(script):
    values = script.over_runs([{"energy": (0.1, 9.0)}, {"energy": (0.3, 9.0)}])
    assert values["energy"] == pytest.approx((0.2, 0.1 * np.sqrt(2)))
    text = script.table({"a": {"energy": (0.25, 0.01), "mean": (0.5, 0.02)}})
    assert text.splitlines()[2].startswith("| a | 0.250 ± 0.010 |")
