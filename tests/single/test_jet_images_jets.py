"""Cells, trimmed jets and their subjettiness: closed forms, and an independent clustering."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcgan.physics import jets, pythia
from hpcgan.problems.jet_images import trimming
from hpcgan.problems.jet_images.cells import hit_cells
from hpcgan.problems.jet_images.trimming import leading_jets, trim

Cell = tuple[float, float, float]
"""pT, eta, phi."""


def particles_of(events: Sequence[Sequence[Cell]]) -> jets.Particles:
    """Massless particles of events, each with at least one."""
    pt, eta, phi = np.array([cell for cells in events for cell in cells]).T
    sizes = np.array([len(cells) for cells in events])
    momentum = (pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta))
    return jets.Particles(np.arange(len(events)), sizes, *momentum)


def four_vectors(cells: Sequence[Cell]) -> np.ndarray:
    """(k, 4) px, py, pz, E."""
    pt, eta, phi = np.array(cells).T
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta)], axis=1)


def mass(cells: Sequence[Cell]) -> float:
    px, py, pz, e = four_vectors(cells).sum(axis=0)
    return float(np.sqrt(e**2 - px**2 - py**2 - pz**2))


# --- cells ---------------------------------------------------------------------------------------


def stable(rows: Sequence[tuple[int, int, float, float, float]], n_events: int) -> pythia.Particles:
    """Massless stable particles by event, code, energy, eta and phi."""
    event, pid, energy, eta, phi = (np.array(column) for column in zip(*rows, strict=True))
    pt = energy / np.cosh(eta)
    momentum = (pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), energy)
    return pythia.Particles(event, pid, momentum, (np.zeros(len(event)),) * 3, n_events)


def test_a_cell_has_the_energy_of_its_particles_and_its_own_direction() -> None:
    width = 2 * np.pi / 63
    rows = [(0, 211, 3.0, 0.51, width * 0.2), (0, -13, 4.0, 0.58, width * 0.45), (2, 22, 5.0, -4.99, -3.13)]
    cells = hit_cells(stable(rows, 3))
    assert cells.images.tolist() == [0, 2]
    assert cells.sizes.tolist() == [1, 1]
    assert cells.e == pytest.approx([7.0, 5.0])
    pt = np.hypot(cells.px, cells.py)
    assert np.arcsinh(cells.pz / pt) == pytest.approx([0.55, -4.95])
    assert pt == pytest.approx([7 / np.cosh(0.55), 5 / np.cosh(4.95)])
    assert np.arctan2(cells.py, cells.px) == pytest.approx([0.0, -np.pi + width / 2], abs=1e-12)


def test_neutrinos_and_what_is_too_far_forward_are_not_seen() -> None:
    rows = [(0, code, 10.0, 0.0, 0.0) for code in (12, -14, 16)] + [(0, 211, 1e3, 5.01, 1.0), (1, 22, 1.0, 1.0, 1.0)]
    cells = hit_cells(stable(rows, 2))
    assert cells.images.tolist() == [1]
    assert cells.e == pytest.approx([1.0])


def test_a_particle_along_the_beam_is_not_seen() -> None:
    zero = np.zeros(2)
    along = pythia.Particles(np.zeros(2, int), np.array([211, 22]), (zero, zero, np.array([9.0, 0]), zero + 9), (), 1)
    assert not hit_cells(along).images.size


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_no_energy_is_lost(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 200
    rows = list(zip(np.sort(rng.integers(0, 4, n)), rng.choice([22, 211, 130], n), rng.exponential(5, n),
                    rng.uniform(-4.9, 4.9, n), rng.uniform(-np.pi, np.pi, n), strict=True))  # fmt: skip
    cells = hit_cells(stable(rows, 4))
    assert cells.e.sum() == pytest.approx(sum(row[2] for row in rows))
    event = np.repeat(cells.images, cells.sizes)
    for i in range(4):
        assert cells.e[event == i].sum() == pytest.approx(sum(row[2] for row in rows if row[0] == i))


# --- trimming ------------------------------------------------------------------------------------

HARD: list[Cell] = [(150.0, 0.05, 0.05), (10.0, 0.15, 0.05)]
SECOND: list[Cell] = [(80.0, 0.35, -0.45), (5.0, 0.35, -0.35)]
SOFT: list[Cell] = [(6.0, -0.55, 0.25)]


def test_two_prongs_stay_and_soft_cells_go() -> None:
    jet = leading_jets(particles_of([[*SOFT, *SECOND, *HARD]]), 200.0)
    whole = four_vectors([*HARD, *SECOND]).sum(axis=0)
    assert jet.momentum == pytest.approx(whole[None])
    assert jet.pt == pytest.approx([np.hypot(*whole[:2])])
    assert jet.mass == pytest.approx([mass([*HARD, *SECOND])])
    assert (jet.eta[0], jet.phi[0]) == pytest.approx((np.arcsinh(whole[2] / jet.pt[0]), np.arctan2(whole[1], whole[0])))
    assert jet.cells.sizes.tolist() == [4]
    directions = []
    for prong in (HARD, SECOND):
        px, py, pz, _ = four_vectors(prong).sum(axis=0)
        directions.append((np.arcsinh(pz / np.hypot(px, py)), np.arctan2(py, px)))
    assert jet.axis[0] == pytest.approx(directions[0])
    assert jet.second[0] == pytest.approx(np.subtract(directions[1], directions[0]))
    assert jet.delta_r == pytest.approx([np.hypot(*np.subtract(directions[1], directions[0]))])


@given(st.floats(-np.pi, np.pi))
@settings(max_examples=30, deadline=None)
def test_azimuth_is_a_circle(angle: float) -> None:
    """A jet across the seam of phi is the same jet."""
    here = leading_jets(particles_of([[*HARD, *SECOND, *SOFT]]), 200.0)
    there = leading_jets(particles_of([[(pt, eta, phi + angle) for pt, eta, phi in [*HARD, *SECOND, *SOFT]]]), 200.0)
    for name in ("pt", "mass", "delta_r", "second"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(there.tau(), here.tau(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("share", "subjets"), [(0.0501, 2), (0.0499, 1)])
def test_a_share_of_one_twentieth_stays(share: float, subjets: int) -> None:
    """Of the jet's pT before trimming, which of cells of one phi is their sum."""
    event = [(100.0 * (1 - share), 0.0, 0.2), (100.0 * share, 0.5, 0.2)]
    assert leading_jets(particles_of([event]), 10.0).cells.sizes.tolist() == [subjets]


def test_one_prong_has_no_second() -> None:
    jet = leading_jets(particles_of([HARD]), 100.0)
    assert np.isnan(jet.second).all()
    assert jet.delta_r.tolist() == [0.0]


def test_the_leading_jet_of_each_event() -> None:
    behind = [(pt / 2, -eta, phi + np.pi) for pt, eta, phi in HARD]
    events = [[*behind, *HARD], [(10.0, 0.0, 0.0)], [*behind, (300.0, 1.05, 1.05)]]
    jet = leading_jets(particles_of(events), 100.0)
    assert jet.pt == pytest.approx([np.hypot(*four_vectors(HARD).sum(axis=0)[:2]), 300.0])
    assert not len(leading_jets(particles_of(events), 400.0))
    assert leading_jets(particles_of(events), 400.0).tau().shape == (0, 3)
    nothing = jets.Particles(*(np.zeros(0, np.int64),) * 2, *(np.zeros(0),) * 4)
    assert not len(leading_jets(nothing, 100.0))


def test_some_of_the_jets() -> None:
    events = [HARD, [*HARD, *SECOND], SECOND]
    all_of_them = trim(particles_of(events))
    some = all_of_them.take(np.array([False, True, True]))
    assert some.cells.sizes.tolist() == [4, 2]
    np.testing.assert_array_equal(some.momentum, all_of_them.momentum[1:])
    np.testing.assert_allclose(some.tau(), all_of_them.tau()[1:])
    np.testing.assert_allclose([some.cells.px[:4].sum(), some.cells.px[4:].sum()], some.momentum[:, 0])


def kt_subjets(cells: Sequence[Cell], radius: float) -> list[set[int]]:
    """Inclusive kt clustering by its definition, with four-vectors added: the cells of each subjet."""
    momenta, members, subjets = list(four_vectors(cells)), [{i} for i in range(len(cells))], []

    def place(p: np.ndarray) -> tuple[float, float, float]:
        return p[0] ** 2 + p[1] ** 2, 0.5 * np.log((p[3] + p[2]) / (p[3] - p[2])), np.arctan2(p[1], p[0])

    while momenta:
        places = [place(p) for p in momenta]
        nearest = min(range(len(momenta)), key=lambda i: places[i][0])
        closest, pair = places[nearest][0], (nearest, nearest)
        for i, j in itertools.combinations(range(len(momenta)), 2):
            (kt_i, y_i, phi_i), (kt_j, y_j, phi_j) = places[i], places[j]
            angle = abs(phi_i - phi_j)
            distance = (y_i - y_j) ** 2 + min(angle, 2 * np.pi - angle) ** 2
            if min(kt_i, kt_j) * distance / radius**2 < closest:
                closest, pair = min(kt_i, kt_j) * distance / radius**2, (i, j)
        i, j = pair
        if i == j:
            subjets.append(members.pop(i))
            momenta.pop(i)
        else:
            members[i] |= members.pop(j)
            momenta[i] = momenta[i] + momenta.pop(j)
    return subjets


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_an_independent_trimming(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = list(
        zip(rng.exponential(10, 25) ** 1.5, rng.uniform(-0.6, 0.6, 25), rng.uniform(-0.6, 0.6, 25), strict=True)
    )
    momenta = four_vectors(cells)

    def pt(which: set[int]) -> float:
        return float(np.hypot(*momenta[list(which)].sum(axis=0)[:2]))

    whole = pt(set(range(25)))
    subjets = sorted((s for s in kt_subjets(cells, 0.3) if pt(s) >= 0.05 * whole), key=pt, reverse=True)
    jet = trim(particles_of([cells]))
    which = sorted(set().union(*subjets))
    np.testing.assert_allclose(jet.momentum[0], momenta[which].sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(np.sort(jet.cells.e), np.sort(momenta[which][:, 3]))
    directions = [momenta[list(s)].sum(axis=0) for s in subjets[:2]]
    eta, phi = zip(
        *((np.arcsinh(p[2] / np.hypot(p[0], p[1])), np.arctan2(p[1], p[0])) for p in directions), strict=True
    )
    np.testing.assert_allclose(jet.axis[0], [eta[0], phi[0]], rtol=1e-9, atol=1e-12)
    if len(subjets) > 1:
        np.testing.assert_allclose(jet.second[0], [eta[1] - eta[0], phi[1] - phi[0]], rtol=1e-7, atol=1e-12)


# --- subjettiness --------------------------------------------------------------------------------


def test_tau_of_two_cells() -> None:
    """The axis of least tau_1 is the harder cell: tau_1 = pT_2 d / (pT_1 + pT_2). Nothing is far from two axes."""
    jet = trim(particles_of([[(200.0, 0.0, 0.0), (80.0, 0.3, 0.4)]]))
    assert jet.tau()[0] == pytest.approx([80 * 0.5 / 280, 0, 0], abs=1e-4)


def test_tau_of_three_and_of_four_cells() -> None:
    """Axes are the hardest cell, which outweighs the others, and a second and third one."""
    cells = [(200.0, 0.0, 0.0), (60.0, 0.3, 0.4), (20.0, 0.3, 0.5), (15.0, -0.3, 0.4)]
    distance = [np.hypot(eta, phi) for _, eta, phi in cells]
    three, four = trim(particles_of([cells[:3]])), trim(particles_of([cells]))
    assert three.tau()[0] == pytest.approx([(60 * distance[1] + 20 * distance[2]) / 280, 20 * 0.1 / 280, 0], abs=1e-4)
    expected = [sum(pt * d for (pt, _, _), d in zip(cells, distance, strict=True)) / 295,
                (20 * 0.1 + 15 * distance[3]) / 295, 20 * 0.1 / 295]  # fmt: skip
    assert four.tau()[0] == pytest.approx(expected, abs=1e-4)


def test_the_library_knows_these_axes() -> None:
    """It takes others in silence where it does not know a name."""
    rng = np.random.default_rng(2)
    cells = particles_of([list(zip(rng.exponential(9, 30), *rng.uniform(-0.5, 0.5, (2, 30)), strict=True))])
    options = {"measure_definition": "NormalizedMeasure", "njets": [1, 2, 3], "beta": 1.0, "R0": 1.0}
    sequence = jets.cluster_sequence(cells)
    tau, others = (
        np.asarray(sequence.njettiness(axes_definition=name, **options)) for name in (trimming.TAU_AXES, "no such axes")
    )
    assert not np.allclose(tau, others, rtol=1e-3)
