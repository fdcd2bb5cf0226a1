"""Processes, SLHA, seeds and the particles PYTHIA makes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.errors import InputError
from hpcgan.physics import pythia
from hpcgan.physics.pythia import MinBiasProcess, Particles, QcdProcess, RpvProcess


def blocks_of(text: str) -> dict[str, list[list[str]]]:
    """Blocks and decay tables of an SLHA text."""
    found: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words[0] in ("BLOCK", "DECAY"):
            current = found.setdefault(f"{words[0]} {words[1]}", [])
        else:
            current.append(words)
    return found


def test_slha_has_the_blocks_pythia_asks_for() -> None:
    blocks = blocks_of(pythia.write_slha(1400, 850))
    names = "MODSEL SMINPUTS MASS NMIX UMIX VMIX STOPMIX SBOTMIX STAUMIX ALPHA HMIX MINPAR GAUGE"
    for name in names.split(" "):
        assert f"BLOCK {name}" in blocks
    assert ["4", "1"] in blocks["BLOCK MODSEL"]
    masses = {int(code): float(mass) for code, mass in blocks["BLOCK MASS"]}
    assert masses.pop(1000021) == 1400
    assert masses.pop(1000022) == 850
    assert all(mass == 5000 for code, mass in masses.items() if code > 1_000_000)


def test_slha_decays() -> None:
    blocks = blocks_of(pythia.write_slha(1400, 850))
    for code, channels in (
        ("1000021", {(1000022, q, -q) for q in (1, 2, 3, 4)}),
        ("1000022", {(2, 1, 3), (-2, -1, -3)}),
    ):
        rows = blocks[f"DECAY {code}"]
        assert {tuple(map(int, row[2:])) for row in rows} == channels
        assert len({row[0] for row in rows}) == 1  # equal shares
        assert sum(float(row[0]) for row in rows) == pytest.approx(1)


@given(st.floats(10, 6400), st.floats(0, 1))
def test_slha_is_a_function_of_the_masses(m_gluino: float, share: float) -> None:
    m_neutralino = 2 + share * (m_gluino - 7)
    text = pythia.write_slha(m_gluino, m_neutralino)
    assert text == pythia.write_slha(m_gluino, m_neutralino)
    masses = dict(blocks_of(text)["BLOCK MASS"])
    assert float(masses["1000021"]) == pytest.approx(m_gluino, rel=1e-9)
    assert float(masses["1000022"]) == pytest.approx(m_neutralino, rel=1e-9)


@pytest.mark.parametrize(
    ("masses", "named"),
    [
        ((850, 1400), "m_neutralino"),
        ((1400, 1400), "m_neutralino"),
        ((1400, 1398), "m_neutralino"),
        ((-1400, 850), "m_gluino"),
        ((1400, -1), "m_neutralino"),
        ((1400, 0), "m_neutralino"),
        ((0, 0), "m_gluino"),
        ((float("nan"), 850), "m_gluino"),
        ((1400, float("nan")), "m_neutralino"),
        ((float("inf"), 850), "m_gluino"),
        ((6500, 850), "m_gluino"),
        ((1e300, 850), "m_gluino"),
        ((1400, 0.1), "m_neutralino"),
    ],
)
def test_unphysical_masses_are_named(masses: tuple[float, float], named: str) -> None:
    for make in (RpvProcess, pythia.write_slha):
        with pytest.raises(InputError, match=f"^{named} = ") as error:
            make(*masses)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan"), float("inf"), 1.0, 6500.0])
def test_pt_hat_min_out_of_range(value: float) -> None:
    with pytest.raises(InputError, match="pt_hat_min"):
        QcdProcess(value)


@pytest.mark.parametrize("seed", [0, -1, pythia.SEED_MAX + 1])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(InputError, match="seed"):
        next(pythia.events(QcdProcess(), seed, 1))


def test_integer_and_float_masses_are_one_process() -> None:
    assert RpvProcess(1400, 850) == RpvProcess(1400.0, 850.0)
    assert RpvProcess(1400, 850).describe() == {"m_gluino": 1400.0, "m_neutralino": 850.0, "name": "rpv", "label": 1}
    assert isinstance(RpvProcess(1400, 850).m_gluino, float)


def together(batches: list[Particles]) -> tuple[np.ndarray, ...]:
    """All columns of several batches; the event counts through."""
    shift = np.cumsum([0, *(batch.n_events for batch in batches)])
    events = np.concatenate([batch.event + start for batch, start in zip(batches, shift, strict=False)])
    columns = zip(*((batch.pid, *batch.momentum, *batch.vertex) for batch in batches), strict=True)
    return events, *(np.concatenate(column) for column in columns)


@pytest.fixture(scope="module")
def rpv() -> tuple[np.ndarray, ...]:
    return together(list(pythia.events(RpvProcess(1400, 850), 7, 40, batch=15)))


def test_events_conserve_energy_and_momentum(rpv: tuple[np.ndarray, ...]) -> None:
    event, _, px, py, pz, e = rpv[:6]
    assert np.unique(event).tolist() == list(range(40))
    for component, total in ((px, 0), (py, 0), (pz, 0), (e, 13000)):
        np.testing.assert_allclose(np.bincount(event, weights=component), total, atol=0.1)


def test_charge_is_conserved(rpv: tuple[np.ndarray, ...]) -> None:
    from hpcgan.physics.detector import charge_from_pid

    charge = np.array([charge_from_pid(abs(int(code))) * np.sign(code) for code in rpv[1]])
    np.testing.assert_allclose(np.bincount(rpv[0], weights=charge), 2)  # two protons


def test_long_lived_particles_are_stable_and_others_decay(rpv: tuple[np.ndarray, ...]) -> None:
    codes = set(np.abs(rpv[1]).tolist())
    assert {211, 321, 2212, 2112, 22, 11, 130, 310, 3122} <= codes  # K0S: c tau = 27 mm, Lambda: 79 mm
    assert not codes & {111, 113, 411, 421, 511, 521, 15, 1000021, 1000022}


def test_vertices_are_near_the_beam(rpv: tuple[np.ndarray, ...]) -> None:
    x, y, z = rpv[6:]
    displaced = np.hypot(x, y) > 1e-6
    assert 0.01 < displaced.mean() < 0.9  # products of B, D and tau decays, and of short-lived pi0
    assert np.hypot(x, y).max() < 1000
    assert np.isfinite(z).all()


def test_batches_do_not_change_the_events(rpv: tuple[np.ndarray, ...]) -> None:
    for one, other in zip(rpv, together(list(pythia.events(RpvProcess(1400, 850), 7, 40))), strict=True):
        np.testing.assert_array_equal(one, other)


def test_seed_changes_the_events(rpv: tuple[np.ndarray, ...]) -> None:
    other = together(list(pythia.events(RpvProcess(1400, 850), 8, 2)))
    assert other[2][:20].tolist() != rpv[2][:20].tolist()


def test_gluinos_have_their_mass() -> None:
    """From the event record: each event has two gluinos of 1400 GeV, which end as two neutralinos of 850 GeV."""
    generator = pythia.initialise(RpvProcess(1400, 850), 3)
    for _ in range(3):
        assert generator.next()
        for code, mass in ((1000021, 1400), (1000022, 850)):
            masses = {round(p.m(), 3) for p in generator.event if abs(p.id()) == code}
            assert len(masses) >= 1
            assert all(abs(m - mass) < 60 for m in masses)  # a Breit-Wigner of 1 GeV width


def test_shared_tables_give_valid_events() -> None:
    tables = pythia.multiparton_tables(False, 5)
    assert tables == pythia.multiparton_tables(False, 5)
    assert tables != pythia.multiparton_tables(False, 6)
    event, _, px, _, _, e = together(list(pythia.events(RpvProcess(1400, 850), 7, 5, tables=tables)))[:6]
    np.testing.assert_allclose(np.bincount(event, weights=e), 13000, atol=0.1)
    np.testing.assert_allclose(np.bincount(event, weights=px), 0, atol=0.1)


def test_qcd_and_minimum_bias_differ_as_they_should() -> None:
    means = {}
    for process in (QcdProcess(600), MinBiasProcess()):
        event, _, px, py, *_ = together(list(pythia.events(process, 2, 20)))
        means[process.name] = np.bincount(event, weights=np.hypot(px, py), minlength=20).mean()
    assert means["qcd"] > 1200  # two jets of at least 600 GeV
    assert means["minbias"] < 400


def test_no_events() -> None:
    assert list(pythia.events(QcdProcess(), 1, 0)) == []


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    list(pythia.events(RpvProcess(1400, 850), 1, 1))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_foreign_xml_folder_is_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("PYTHIA8DATA", str(tmp_path_factory.mktemp("xml")))
    assert len(list(pythia.events(QcdProcess(), 1, 1))) == 1
