"""The parametrised calorimeter: hand-computed answers, and real Delphes output for the same particles."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hpcgan.physics.detector import (
    ATLAS,
    SPEED_OF_LIGHT,
    Calorimeter,
    Card,
    Resolution,
    Towers,
    charge_from_pid,
    log_normal,
    propagate,
)
from hpcgan.physics.pythia import Particles

R, L, B = 1.15, 3.51, 2.0


def particles(
    *rows: tuple[int, int, float, float, float], mass: float = 0.0, vertex: Any = (0, 0, 0), n: int = 0
) -> Particles:
    """Particles given as (event, pid, pt, eta, phi)."""
    event, pid, pt, eta, phi = (np.array(column) for column in zip(*rows, strict=True))
    pt = pt.astype(float)
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    e = np.sqrt(px**2 + py**2 + pz**2 + mass**2)
    origin = [np.broadcast_to(np.asarray(value, dtype=float), pt.shape) for value in vertex]
    return Particles(event, pid, (px, py, pz, e), origin, n or int(event.max()) + 1)


def exact(card: Card = ATLAS, **changes: Any) -> Card:
    """The card without smearing, cuts or dithering."""
    grids = {
        name: replace(getattr(card, name), resolution=(Resolution(9.0, 0, 0),), energy_min=0, significance_min=0)
        for name in ("ecal", "hcal")
    }
    return replace(card, smear_tower_centre=False, **grids, **changes)


def simulate(sample: Particles, card: Card = ATLAS, seed: int = 0) -> Towers:
    return Calorimeter(card).simulate(sample, np.random.default_rng(seed))


# --- charges -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "charge"),
    [(11, -1), (13, -1), (12, 0), (22, 0), (24, 1), (111, 0), (211, 1), (321, 1), (130, 0), (310, 0), (411, 1),
     (421, 0), (511, 0), (521, 1), (541, 1), (2212, 1), (2112, 0), (3122, 0), (3112, -1), (3222, 1), (3312, -1),
     (3322, 0), (3334, -1), (4122, 1), (5122, 0), (2224, 2), (1000022, 0), (1000024, 1), (1000011, -1), (1000010020, 1),
     (1000020040, 2), (2, 2 / 3), (1, -1 / 3)],
)  # fmt: skip
def test_charges(code: int, charge: float) -> None:
    assert charge_from_pid(code) == pytest.approx(charge)


def test_codes_that_say_nothing_have_no_charge() -> None:
    assert np.isnan(charge_from_pid(9_900_000))
    assert not simulate(particles((0, 9_900_000, 50, 0, 0))).energy.size


# --- propagation -------------------------------------------------------------------------------------------------


def fly(charge: float, pt: float, eta: float, phi: float, start: Any = (0, 0, 0), bz: float = B) -> np.ndarray:
    row = (charge, pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), *start)
    q, px, py, pz, x, y, z = (np.array([value], dtype=float) for value in row)
    return np.array(propagate(q, (px, py, pz), (x, y, z), R, L, bz))[:, 0]


def test_neutral_reaches_the_side() -> None:
    np.testing.assert_allclose(fly(0, 5, 1.0, 0.7), [R * np.cos(0.7), R * np.sin(0.7), R * np.sinh(1)], rtol=1e-12)


def test_neutral_reaches_the_end() -> None:
    at = fly(0, 5, -2.5, 0.7)
    radius = L / np.sinh(2.5)
    np.testing.assert_allclose(at, [radius * np.cos(0.7), radius * np.sin(0.7), -L], rtol=1e-12)


def test_neutral_from_a_displaced_vertex() -> None:
    # From (0.5, 0, 0.1) along +y: reaches y = sqrt(R^2 - 0.25) at unchanged x.
    at = fly(0, 3, 0.0, np.pi / 2, start=(0.5, 0, 0.1))
    np.testing.assert_allclose(at, [0.5, np.sqrt(R**2 - 0.25), 0.1], rtol=1e-12)


@pytest.mark.parametrize("charge", [1, -1])
def test_helix_with_the_radius_of_the_detector(charge: int) -> None:
    """A circle of radius R through the axis meets the cylinder after a turn of 60 degrees, 30 degrees off its start."""
    pt = SPEED_OF_LIGHT * B * R
    at = fly(charge, pt, 0.5, 0.3)
    phi = 0.3 - charge * np.pi / 6  # positive particles turn clockwise in a field along +z
    z = R * np.pi / 3 * np.sinh(0.5)  # the arc's length times pz / pt
    np.testing.assert_allclose(at, [R * np.cos(phi), R * np.sin(phi), z], rtol=1e-12)


def test_twice_the_charge_bends_like_half_the_momentum() -> None:
    single, double = fly(1, 2.0, 0.4, 1.0), fly(2, 4.0, 0.4, 1.0)
    np.testing.assert_allclose(single, double, rtol=1e-12)


def test_stiff_track_is_straight() -> None:
    np.testing.assert_allclose(fly(1, 1e7, 0.3, -2.0), fly(0, 1e7, 0.3, -2.0), atol=1e-6)


def test_looping_particle_leaves_through_the_end() -> None:
    """pT such that 2 r = 1 m < R: after n turns the height L is reached; closed form from the turning angle."""
    pt = SPEED_OF_LIGHT * B * 0.5
    eta = 1.2
    at = fly(1, pt, eta, 0.0)
    turn = L / (0.5 * np.sinh(eta))
    np.testing.assert_allclose(at, [0.5 * np.sin(turn), -0.5 * (1 - np.cos(turn)), L], rtol=1e-9, atol=1e-12)


def test_particle_that_never_leaves() -> None:
    assert np.isnan(fly(1, 0.1, 0.0, 0.0)[2])
    assert not simulate(particles((0, 211, 0.1, 0.0, 0.0), mass=0.14)).energy.size


def test_helices_against_step_by_step_integration() -> None:
    rng = np.random.default_rng(3)
    n = 60
    pt, phi, eta = 10 ** rng.uniform(-1, 2, n), rng.uniform(-np.pi, np.pi, n), rng.normal(0, 1.5, n)
    radius, angle = rng.uniform(0, 1.1, n) * rng.choice([0, 0.01, 1], n), rng.uniform(-np.pi, np.pi, n)
    start = np.stack([radius * np.cos(angle), radius * np.sin(angle), rng.uniform(-3, 3, n) * (radius > 0)])
    charge = rng.choice([-1.0, 1.0], n)
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    out = np.array(propagate(charge, (px, py, pz), tuple(start), R, L, B))
    checked = 0
    for i in range(n):
        s = np.linspace(0, 40, 200_001)  # transverse path, m; steps of 0.2 mm
        bend = -SPEED_OF_LIGHT * charge[i] * B / pt[i]
        x = start[0, i] + (np.sin(phi[i] + bend * s) - np.sin(phi[i])) / bend
        y = start[1, i] - (np.cos(phi[i] + bend * s) - np.cos(phi[i])) / bend
        z = start[2, i] + np.sinh(eta[i]) * s
        outside = np.flatnonzero((np.hypot(x, y) > R) | (np.abs(z) > L))
        if outside.size:
            k = outside[0]
            np.testing.assert_allclose(out[:2, i], [x[k], y[k]], atol=5e-4)
            np.testing.assert_allclose(out[2, i], z[k], atol=5e-4 * max(1, np.sinh(abs(eta[i]))))
            checked += 1
    assert checked > 50


# --- towers ------------------------------------------------------------------------------------------------------


def test_grids_have_the_edges_of_the_card() -> None:
    ecal, hcal = ATLAS.ecal, ATLAS.hcal
    assert len(ecal.eta_edges) == 363
    assert len(hcal.eta_edges) == 77
    central = ecal.eta_edges[np.abs(ecal.eta_edges) <= 2.9581]
    np.testing.assert_allclose(np.diff(central), 0.0174, atol=1e-9)
    np.testing.assert_allclose(hcal.eta_edges[np.abs(hcal.eta_edges) < 2.55], np.arange(-25, 26) / 10, atol=1e-9)

    def bins(grid: Any, eta: float) -> int:
        return int(grid.phi_bins[np.searchsorted(grid.eta_edges, eta)])

    assert [bins(ecal, eta) for eta in (-4.9, -3.0, -2.95, 0, 2.95, 3.0, 4.9)] == [36, 36, 360, 360, 360, 36, 36]
    assert [bins(hcal, eta) for eta in (-4.8, -3.25, -3.1, -2.55, 0, 2.55, 2.7, 3.1, 3.25, 4.8)] == [
        18, 36, 18, 36, 36, 36, 18, 18, 36, 18]  # fmt: skip


def test_photon_lights_the_tower_it_points_to() -> None:
    towers = simulate(particles((0, 22, 10, 0.05, 0.5)), exact())
    # Row 3 x 0.0174 = 0.0522 upper edge, 0.0348 lower; 0.5 rad = 28.6 degrees: the tower from 28 to 29.
    assert towers.eta.tolist() == pytest.approx([0.0435])
    assert np.degrees(towers.phi).tolist() == pytest.approx([28.5])
    assert towers.energy.tolist() == pytest.approx([10 * np.cosh(0.05)])


def test_charged_pion_is_displaced_by_the_field() -> None:
    for factor, column in ((0.98, -35.0), (1.02, -25.0)):  # just beyond and just short of 30 degrees
        towers = simulate(particles((0, 211, factor * SPEED_OF_LIGHT * B * R, 0.0, 0.0), mass=0.14), exact())
        assert np.degrees(towers.phi).tolist() == pytest.approx([column])


def test_energy_is_shared_by_particle() -> None:
    shares = {22: (1, 0), 11: (1, 0), 211: (0, 1), 2112: (0, 1), 130: (0, 1), 310: (0.3, 0.7), 3122: (0.3, 0.7)}
    for code, (ecal, hcal) in shares.items():
        towers = simulate(particles((0, code, 20, 0.05, 0.5)), exact(bz=0.0))
        expected = [share * 20 * np.cosh(0.05) for share in (ecal, hcal) if share]
        assert towers.energy.tolist() == pytest.approx(expected)
        assert towers.eta.tolist() == pytest.approx(
            [centre for centre, share in ((0.0435, ecal), (0.05, hcal)) if share]
        )


@pytest.mark.parametrize("code", [12, 14, 16, 1000022, 1000023])
def test_invisible_particles(code: int) -> None:
    assert not simulate(particles((0, code, 100, 0, 0), (0, -code, 100, 0, 0)), exact()).energy.size


def test_particles_of_a_tower_are_summed_before_smearing() -> None:
    sample = particles((0, 22, 10, 0.05, 0.5), (0, 22, 5, 0.045, 0.495), (1, 22, 7, 0.05, 0.5))
    towers = simulate(sample, exact())
    assert towers.event.tolist() == [0, 1]
    assert towers.energy.tolist() == pytest.approx([10 * np.cosh(0.05) + 5 * np.cosh(0.045), 7 * np.cosh(0.05)])


def test_visible_energy_is_conserved_without_smearing() -> None:
    rng = np.random.default_rng(1)
    n = 3000
    rows = zip(rng.integers(0, 5, n), rng.choice([22, 211, -321, 2112, 310, 11], n), rng.exponential(5, n) + 0.8,
               rng.normal(0, 1.5, n).clip(-4.5, 4.5), rng.uniform(-np.pi, np.pi, n), strict=True)  # fmt: skip
    sample = particles(*sorted(rows), mass=0.1)
    towers = simulate(sample, exact(muons=None))
    seen = np.bincount(towers.event, weights=towers.energy, minlength=5)
    np.testing.assert_allclose(seen, np.bincount(sample.event, weights=sample.momentum[3], minlength=5), rtol=1e-9)


def test_events_do_not_mix() -> None:
    one = particles((0, 22, 10, 0.1, 0.1), (0, 211, 20, -0.4, 2.0))
    two = particles((0, 22, 10, 0.1, 0.1), (0, 211, 20, -0.4, 2.0), (3, 22, 10, 0.1, 0.1), n=5)
    towers = simulate(two, exact())
    assert sorted(towers.event.tolist()) == [0, 0, 3]
    np.testing.assert_allclose(np.sort(simulate(one, exact()).energy), np.sort(towers.energy[towers.event == 0]))


def test_positions_lie_uniformly_in_the_cell() -> None:
    sample = particles(*((event, 22, 50, 0.05, 0.5) for event in range(4000)))
    towers = simulate(sample)
    assert len(towers.eta) == 4000
    assert 0.0348 <= towers.eta.min() < 0.0350
    assert 0.0520 < towers.eta.max() <= 0.0522
    assert towers.eta.mean() == pytest.approx(0.0435, abs=4 * 0.0174 / 12**0.5 / 4000**0.5)
    assert np.degrees(towers.phi).min() >= 28
    assert np.degrees(towers.phi).max() <= 29


def test_outside_the_acceptance() -> None:
    assert not simulate(particles((0, 22, 1, 5.1, 0), (0, 2112, 1, -4.95, 0)), exact()).energy.size
    assert simulate(particles((0, 22, 1, 4.95, 0)), exact()).energy.size == 1


def test_a_displaced_particle_may_reach_the_detector_from_outside_its_acceptance() -> None:
    """Direction beyond |eta| = 5, but produced 0.2 m off the axis: it hits the end at |eta| = 2.9."""
    sample = particles((0, 22, 1, 5.5, 0), vertex=(200.0, 0, 0))
    towers = simulate(sample, exact())
    assert towers.eta[0] == pytest.approx(np.arcsinh(L / (0.2 + L / np.sinh(5.5))), abs=0.2)


def test_particles_born_outside_are_dropped() -> None:
    for vertex in ((1200.0, 0, 0), (0, 0, 3600.0)):
        assert not simulate(particles((0, 22, 10, 0, 0), vertex=vertex)).energy.size


def test_log_normal_has_the_asked_mean_and_width() -> None:
    rng = np.random.default_rng(0)
    n = 200_000
    for mean, sigma in ((5.0, 2.0), (100.0, 3.0), (1.0, 1.5)):
        values = log_normal(np.full(n, mean), np.full(n, sigma**2), rng)
        assert values.mean() == pytest.approx(mean, abs=4 * sigma / n**0.5)
        assert values.std() == pytest.approx(sigma, rel=0.05)
        # The median of the closed form: mean / sqrt(1 + sigma^2 / mean^2).
        assert np.median(values) == pytest.approx(mean / (1 + (sigma / mean) ** 2) ** 0.5, rel=0.02)
    assert log_normal(np.zeros(3), np.ones(3), rng).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("code", "eta", "energy", "sigma"),
    [
        (22, 0.05, 50.0, np.sqrt((0.0017 * 50) ** 2 + 0.101**2 * 50)),
        (22, 4.0, 500.0, np.sqrt((0.035 * 500) ** 2 + 0.285**2 * 500)),
        (2112, 0.05, 50.0, np.sqrt((0.0302 * 50) ** 2 + 0.5205**2 * 50 + 1.59**2)),
        (2112, 2.05, 100.0, np.sqrt((0.05 * 100) ** 2 + 0.706**2 * 100)),
        (2112, 3.95, 500.0, np.sqrt((0.0942 * 500) ** 2 + 500)),
    ],
)
def test_resolution(code: int, eta: float, energy: float, sigma: float) -> None:
    n = 20_000
    sample = particles(*((event, code, energy / np.cosh(eta), eta, 0.5) for event in range(n)))
    measured = simulate(sample).energy
    assert measured.mean() == pytest.approx(energy, abs=4 * sigma / n**0.5)
    assert measured.std() == pytest.approx(sigma, rel=0.03)


def test_threshold_and_significance_cuts() -> None:
    """ECAL: 0.5 GeV decides (2 sigma is 0.04 GeV there). Central HCAL: 2 sigma = 3.5 GeV decides, not 1 GeV."""
    n = 4000
    photons = simulate(particles(*((event, 22, 0.6, 0.05, 0.5) for event in range(n))))
    assert photons.energy.min() == pytest.approx(0.5, abs=0.02)
    assert 0.5 * n < len(photons.energy) < 0.999 * n
    neutrons = simulate(particles(*((event, 2112, 4.0, 0.05, 0.5) for event in range(n))))
    edge = neutrons.energy.min()
    assert edge == pytest.approx(2 * np.sqrt((0.0302 * edge) ** 2 + 0.5205**2 * edge + 1.59**2), abs=0.05)


def test_least_energy_of_a_tower_by_hand() -> None:
    """E >= 2 sigma(E): with a stochastic term alone E = 4 S^2 / (1 - 4 C^2); 1.59 GeV of noise make it 3.8 GeV."""
    low, high = np.array([-0.05, 1.65, 1.75, -2.5]), np.array([0.05, 1.75, 1.78, -2.4])
    central = ATLAS.hcal.least_energy(low, high)
    assert central[0] == pytest.approx(3.7757, abs=1e-4)
    assert central[0] ** 2 == pytest.approx(4 * ((0.0302 * central[0]) ** 2 + 0.5205**2 * central[0] + 1.59**2))
    assert central[1] == central[2] == pytest.approx(4 * 0.706**2 / (1 - 4 * 0.05**2))  # the lower of both rows
    assert central[3] == central[2]
    np.testing.assert_array_equal(ATLAS.ecal.least_energy(low, high), 0.5)  # its sigma is small


def test_no_tower_has_less_than_the_least_energy() -> None:
    rng = np.random.default_rng(4)
    rows = [
        (i, 2112, pt, eta, 0.3)
        for i, (pt, eta) in enumerate(zip(rng.uniform(0.5, 6.0, 4000), rng.uniform(-1.5, 1.5, 4000), strict=True))
    ]
    towers = simulate(particles(*rows))
    least = float(ATLAS.hcal.least_energy(np.array([-1.0]), np.array([1.0]))[0])
    central = towers.energy[np.abs(towers.eta) < 1.4]
    assert least <= central.min() < 1.02 * least
    assert central.size > 500


def test_muons_are_seen_as_tracks() -> None:
    n = 20_000
    sample = particles(*((event, 13 - 26 * (event % 2), 20.0, 1.0, 0.5) for event in range(n)), mass=0.10566)
    towers = simulate(sample)
    found = len(towers.energy) / n
    assert found == pytest.approx(0.99, abs=4 * (0.99 * 0.01 / n) ** 0.5)
    np.testing.assert_allclose(towers.eta, 1.0)  # direction of the momentum, not of the calorimeter cell
    np.testing.assert_allclose(towers.phi, 0.5)
    sigma = 20 * np.cosh(1.0) * np.hypot(0.015, 1.5e-4 * 20)
    assert towers.energy.std() == pytest.approx(sigma, rel=0.03)
    assert towers.energy.mean() == pytest.approx(20 * np.cosh(1.0), abs=4 * sigma / n**0.5)


@pytest.mark.parametrize(
    ("pt", "eta", "share"), [(0.8, 0.5, 0.75), (0.8, 2.0, 0.70), (5, 2.0, 0.98), (50, 2.6, 0), (0.09, 1, 0)]
)
def test_muon_efficiency(pt: float, eta: float, share: float) -> None:
    n = 4000
    sample = particles(*((event, 13, pt, eta, 0.5) for event in range(n)), mass=0.10566, n=n)
    found = len(simulate(sample).energy) / n
    assert found == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5)


def test_muons_can_be_left_out() -> None:
    assert not simulate(particles((0, 13, 50, 0, 0)), replace(ATLAS, muons=None)).energy.size


def test_empty_batch() -> None:
    nothing = Particles(*(np.zeros(0, dtype=int),) * 2, (np.zeros(0),) * 4, (np.zeros(0),) * 3, n_events=3)
    assert [len(column) for column in simulate(nothing)] == [0, 0, 0, 0]


def test_same_random_numbers_same_towers() -> None:
    sample = particles((0, 22, 10, 0.1, 0.1), (0, 211, 20, -0.4, 2.0), (1, 13, 20, -0.4, 2.0))
    for first, second in zip(simulate(sample, seed=5), simulate(sample, seed=5), strict=True):
        np.testing.assert_array_equal(first, second)


def test_card_can_be_described() -> None:
    description = json.loads(json.dumps(dataclasses.asdict(ATLAS)))
    assert description["hcal"]["resolution"][0] == {
        "eta_max": 1.7,
        "constant": 0.0302,
        "stochastic": 0.5205,
        "noise": 1.59,
    }


# --- against Delphes ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def comparison() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "detector_vs_delphes.py"
    spec = importlib.util.spec_from_file_location("detector_vs_delphes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def delphes(comparison: ModuleType) -> tuple[Particles, Any]:
    towers, events = comparison.load_towers()
    return comparison.load_particles(), comparison.observables(towers, events)


SEEDS = 16


def disagreements(comparison: ModuleType, delphes: tuple[Particles, Any], card: Card, seeds: int = SEEDS) -> list[str]:
    """What tells Delphes from one more seed of the detector.

    Bounds: paired differences within 3 standard errors; means within 4 standard deviations over seeds (t-distributed
    with 15 degrees of freedom: one in a thousand); KS distances to the seeds at most 4.5 standard deviations above
    those among seeds; correlations as high as among seeds.
    """
    sample, reference = delphes
    found = []
    for row in comparison.compare(reference, comparison.simulate(sample, seeds, card)):
        bounds = {
            "paired": abs(row.paired_z) > 3,
            "mean": abs(row.mean_z) > 4,
            "KS": row.ks_z > 4.5,
            "correlation": row.correlation < row.self_correlation - 0.02,
        }
        found += [f"{row.name} {kind}: {row}" for kind, bad in bounds.items() if bad]
    return found


def test_sample_is_the_documented_one(delphes: tuple[Particles, Any]) -> None:
    assert delphes[0].n_events == 200
    assert len(delphes[1]["total_energy"]) == 200


def test_agrees_with_delphes(comparison: ModuleType, delphes: tuple[Particles, Any]) -> None:
    assert disagreements(comparison, delphes, ATLAS) == []


def test_correlations_with_delphes(comparison: ModuleType, delphes: tuple[Particles, Any]) -> None:
    sample, reference = delphes
    rows = {row.name: row for row in comparison.compare(reference, comparison.simulate(sample, 3))}
    assert rows["total_energy"].correlation > 0.99
    assert rows["occupancy"].correlation > 0.97
    assert rows["summed_jet_mass"].correlation > 0.88
    assert rows["jet_multiplicity"].correlation > 0.82


@pytest.mark.parametrize(
    "wrong",
    [
        replace(ATLAS, bz=0.0),
        replace(ATLAS, hcal=replace(ATLAS.hcal, significance_min=1.0)),
        replace(ATLAS, ecal=replace(ATLAS.ecal, energy_min=0.4)),
        replace(
            ATLAS, hcal=replace(ATLAS.hcal, resolution=(Resolution(1.7, 0.06, 0.7, 2.0), *ATLAS.hcal.resolution[1:]))
        ),
        replace(ATLAS, hcal=replace(ATLAS.hcal, fractions=((0, 0.97), *ATLAS.hcal.fractions[1:]))),
        replace(ATLAS, smear_tower_centre=False),
    ],
    ids=["no field", "significance", "threshold", "resolution", "response", "centred towers"],
)
def test_a_wrong_detector_is_noticed(comparison: ModuleType, delphes: tuple[Particles, Any], wrong: Card) -> None:
    assert disagreements(comparison, delphes, wrong, seeds=6)


def test_delphes_muons_are_in_its_towers(comparison: ModuleType) -> None:
    """Every muon of the sample that Delphes reconstructs is a tower without ECAL or HCAL part, in its own direction."""
    import uproot

    sample = comparison.load_particles()
    with uproot.open(comparison.TOWERS) as file:
        arrays = file["Delphes"].arrays(["Tower.Eta", "Tower.Phi", "Tower.E", "Tower.Eem", "Tower.Ehad"], library="np")
    muon = np.flatnonzero(np.abs(sample.pid) == 13)
    px, py, pz, e = sample.momentum
    eta = np.arcsinh(pz / np.hypot(px, py))
    pulls = []
    for event in range(sample.n_events):
        track = (arrays["Tower.Eem"][event] == 0) & (arrays["Tower.Ehad"][event] == 0)
        for at, energy in zip(arrays["Tower.Eta"][event][track], arrays["Tower.E"][event][track], strict=True):
            own = muon[sample.event[muon] == event]
            match = own[np.argmin(np.abs(eta[own] - at))]
            assert eta[match] == pytest.approx(at, abs=1e-5)
            pt = np.hypot(px[match], py[match])
            row = next(row for row in ATLAS.muons.resolution if abs(at) <= row[0])  # type: ignore[union-attr]
            pulls.append(np.log(energy / e[match]) / np.hypot(row[1], row[2] * pt))
    assert len(pulls) > 40
    assert np.std(pulls) == pytest.approx(1, abs=4 / (2 * len(pulls)) ** 0.5)
    assert np.mean(pulls) == pytest.approx(0, abs=4 / len(pulls) ** 0.5)
