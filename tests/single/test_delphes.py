"""Towers from Delphes files: the committed sample, broken files, and the import."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcgan.commands.cli import main
from hpcgan.config.flags import section
from hpcgan.data.importers import Order
from hpcgan.data.storage import SPLITS
from hpcgan.errors import InputError
from hpcgan.physics.images import bin_towers
from hpcgan.problems.detector_images.files import open_images, validate
from hpcgan.problems.detector_images.importing import DelphesImporter, count_events, read_towers

SAMPLE = Path(__file__).parents[1] / "data" / "rpv_1400_850_towers.root"

EVENTS = [
    [(0.1, 0.2, 10.0), (-1.0, 3.0, 2.0)],
    [],
    [(2.4, -3.0, 5.0)],
    [(4.0, 0.0, 900.0)],
    [(0.1, 0.2, 1.0), (0.1, 0.2, 2.0), (1.5, 1.5, 3.0)],
]


def write_root(path: Path, events: Any = None, tree: str = "Delphes", branch: str = "Tower", **fields: str) -> Path:
    """A flat ROOT file with towers."""
    events = EVENTS if events is None else events
    names = fields or {"Eta": "Eta", "Phi": "Phi", "E": "E"}
    rows = ak.values_astype(ak.Array([[list(tower) for tower in event] for event in events]), np.float32)
    if not len(ak.flatten(rows, axis=None)):
        rows = ak.Array(ak.contents.ListOffsetArray(
            ak.index.Index64(np.zeros(len(events) + 1, dtype=np.int64)),
            ak.contents.RegularArray(ak.contents.NumpyArray(np.zeros(0, dtype=np.float32)), 3),
        ))  # fmt: skip
    record = ak.zip({name: rows[:, :, column] for name, column in zip(names.values(), range(3), strict=True)})
    with uproot.recreate(path) as file:
        file.mktree(
            tree,
            {branch: record.type.content},
            field_name=lambda outer, inner: inner if outer == "" else f"{outer}.{inner}",
            counter_name=lambda counted: f"{counted}_size",
        )
        file[tree].extend({branch: record})
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_root(tmp_path / "small.root")


def everything(path: Path, **options: Any) -> tuple[list[int], np.ndarray]:
    counts: list[int] = []
    rows = []
    for towers, n in read_towers(path, **options):
        rows.append(np.stack([towers.event + sum(counts), towers.eta, towers.phi, towers.energy], axis=1))
        counts.append(n)
    return counts, np.concatenate(rows)


@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_towers_event_by_event(small: Path, step: int) -> None:
    counts, rows = everything(small, step=step)
    assert sum(counts) == 5
    assert max(counts) <= step
    expected = [(i, *tower) for i, event in enumerate(EVENTS) for tower in event]
    np.testing.assert_allclose(rows, expected, rtol=1e-6)


def test_committed_sample() -> None:
    counts, rows = everything(SAMPLE, step=64)
    assert counts == [64, 64, 64, 8]
    assert count_events(SAMPLE) == 200
    assert len(rows) / 200 == pytest.approx(360, abs=40)
    assert np.abs(rows[:, 1]).max() <= 5
    assert rows[:, 3].min() > 0.3


def test_real_nested_branches() -> None:
    """A file as Delphes writes it (branches nested in `Tower`); too large to be kept with the tests."""
    sample = os.environ.get("HPCGAN_DELPHES_SAMPLE")
    if not sample:
        pytest.skip("HPCGAN_DELPHES_SAMPLE names no Delphes ROOT file")
    counts, rows = everything(Path(sample))
    assert sum(counts) == count_events(sample)
    assert (rows[:, 3] > 0).all()


# --- broken files ------------------------------------------------------------------------------------------------


def no_tree(path: Path) -> None:
    write_root(path, tree="Events")


def no_branch(path: Path) -> None:
    write_root(path, branch="Jet")


def no_energy(path: Path) -> None:
    write_root(path, Eta="Eta", Phi="Phi", E="ET")


def no_events(path: Path) -> None:
    with uproot.recreate(path) as file:
        file.mktree("Delphes", {f"Tower.{name}": "var * float32" for name in ("Eta", "Phi", "E")})


def not_a_tree(path: Path) -> None:
    with uproot.recreate(path) as file:
        file["Delphes"] = np.histogram([1, 2, 3])


def negative_energy(path: Path) -> None:
    write_root(path, [*EVENTS, [(0.0, 0.0, -1.0)]])


def nan_position(path: Path) -> None:
    write_root(path, [*EVENTS, [(np.nan, 0.0, 1.0)]])


def infinite_position(path: Path) -> None:
    write_root(path, [*EVENTS, [(np.inf, 0.0, 1.0)]])


def infinite_angle(path: Path) -> None:
    write_root(path, [*EVENTS, [(0.0, -np.inf, 1.0)]])


def text(path: Path) -> None:
    path.write_text("rooted in text")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(SAMPLE.read_bytes()[:500_000])


def folder(path: Path) -> None:
    path.mkdir()


def missing(path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_tree, r"no tree 'Delphes' \(it holds: Events\)"),
        (no_branch, "no branch 'Tower'"),
        (no_energy, r"no 'Tower\.E'"),
        (no_events, "no events"),
        (not_a_tree, "not a tree"),
        (negative_energy, "event 5 has a tower .* E -1 GeV"),
        (nan_position, "event 5 has a tower with eta nan"),
        (infinite_position, "event 5 has a tower with eta inf"),
        (infinite_angle, "event 5 has a tower with eta 0, phi -inf"),
        (text, "cannot be read as ROOT"),
        (empty, "not a ROOT file"),
        (cut, "cannot be read as ROOT"),
        (folder, "is a folder"),
        (missing, "no such file"),
    ],
)
def test_unusable_files(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "bad.root"
    make(path)
    with pytest.raises(InputError, match=message) as error:
        list(read_towers(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError):
        import_files([path], tmp_path / "out")
    assert not list((tmp_path).glob("out/*"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_never_give_another_exception(data: st.DataObject, tmp_path: Path) -> None:
    whole = tmp_path / "whole.root"
    if not whole.exists():
        write_root(whole)
    path = tmp_path / "damaged.root"
    path.write_bytes(data.draw(damaged(whole.read_bytes())))
    message = None
    try:
        for towers, n in read_towers(path):
            assert len(towers.event) == len(towers.energy)
            assert n <= 5
    except InputError as error:
        message = str(error)
    assert message is None or (str(path) in message and "\n" not in message)


# --- import ------------------------------------------------------------------------------------------------------


def import_files(
    files: Sequence[Path], out: Path, m_gluino: float = 0.0, m_neutralino: float = 0.0, **options: Any
) -> bool:
    """Import with the options of the command."""
    how = {name: options.pop(name) for name in ("force", "progress", "say") if name in options}
    given = {"mass": (m_gluino, m_neutralino), **options}
    return section("options", DelphesImporter, given).import_files(Order(files, out, **how))


def test_import_makes_the_published_layout(small: Path, tmp_path: Path) -> None:
    other = write_root(tmp_path / "other.root", [[(0.0, 0.0, float(i + 1))] for i in range(7)])
    steps: list[tuple[int, int]] = []
    made = import_files(
        [small, other],
        tmp_path / "out",
        m_gluino=1400,
        m_neutralino=850,
        label=0,
        weight=0.5,
        progress=lambda *done: steps.append(done),
    )
    assert made
    assert steps == [(5, 12), (12, 12)]
    towers = [tower for event in EVENTS for tower in [event]] + [[(0.0, 0.0, float(i + 1))] for i in range(7)]
    columns = [np.array(event, dtype=float).reshape(-1, 3).T for event in towers]
    images = np.concatenate([bin_towers(np.zeros(len(e), dtype=int), eta, phi, e, 1) for eta, phi, e in columns])
    place = np.arange(12) % 5
    for split, of in (("train", place < 3), ("val", place == 3), ("test", place == 4)):
        path = tmp_path / "out" / f"{split}.h5"
        validate(path)
        with open_images(path) as file:
            np.testing.assert_allclose(file.read(), images[of], rtol=1e-6)
            for values, expected in (
                (file.column("y"), 0),
                (file.column("weight"), 0.5),
                (file.column("mGlu"), 1400),
                (file.column("mNeu"), 850),
            ):
                assert values is not None
                assert (values == expected).all()
            assert file.attrs["units"] == "MeV"
            assert "small.root" in file.attrs["settings"]


def test_import_twice(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert import_files([small], out)
    before = (out / "train.h5").read_bytes()
    assert not import_files([small], out)
    with pytest.raises(InputError, match=r"m_gluino: 0\.0, asked for 1400\.0"):
        import_files([small], out, m_gluino=1400)
    assert (out / "train.h5").read_bytes() == before
    # Same name, same number of events, other contents.
    write_root(small, EVENTS[::-1])
    with pytest.raises(InputError, match="other settings"):
        import_files([small], out)
    assert import_files([small], out, force=True)
    assert (out / "train.h5").read_bytes() != before


def test_import_refuses_nonsense(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="named twice"):
        import_files([small, tmp_path / "." / "small.root"], tmp_path / "out")
    with pytest.raises(InputError, match="no file"):
        import_files([], tmp_path / "out")
    with pytest.raises(InputError, match="at least 5"):
        import_files([write_root(tmp_path / "few.root", EVENTS[:2])], tmp_path / "out")
    for options in ({"m_gluino": -1.0}, {"m_neutralino": float("nan")}, {"weight": float("inf")}):
        with pytest.raises(InputError, match=r"m_gluino|mass|weight"):
            import_files([small], tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_file_that_breaks_halfway_leaves_nothing(small: Path, tmp_path: Path) -> None:
    bad = write_root(tmp_path / "bad.root", [*EVENTS, [(0.0, 0.0, -1.0)]])
    with pytest.raises(InputError, match=r"bad\.root: event 5"):
        import_files([small, bad], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_splits_hold_every_file_in_turn(tmp_path: Path) -> None:
    """Signal first, background second: every split still sees both."""
    files = [write_root(tmp_path / f"{i}.root", [[(0.0, 0.0, float(i + 1))]] * 10) for i in range(2)]
    import_files(files, tmp_path / "out")
    for split in SPLITS:
        with open_images(tmp_path / "out" / f"{split}.h5") as file:
            assert set(file.read().max(axis=(1, 2)).tolist()) == {1000.0, 2000.0}


# --- angles, what is left out, weights ---------------------------------------------------------------------------


def many_towers(seed: int = 5) -> list[list[tuple[float, float, float]]]:
    """Events all over the circle, and beyond the images' eta."""
    rng = np.random.default_rng(seed)
    phi = rng.uniform(-np.pi, np.pi, (10, 40)).astype(np.float32)
    eta, energy = rng.uniform(-3, 3, (10, 40)), rng.exponential(5, (10, 40))
    return [list(zip(*(column.tolist() for column in event), strict=True)) for event in zip(eta, phi, energy)]


def turned(events: list[list[tuple[float, float, float]]], turn: Callable[[float], float]) -> Any:
    return [[(eta, turn(phi), energy) for eta, phi, energy in event] for event in events]


def imported(path: Path, out: Path, **options: Any) -> np.ndarray:
    import_files([path], out, **options)
    images = []
    for split in SPLITS:
        with open_images(out / f"{split}.h5") as file:
            images.append(file.read())
    return np.concatenate(images)


@pytest.mark.parametrize(
    "turn",
    [
        lambda phi: phi % (2 * np.pi),
        lambda phi: phi + 2 * np.pi,
        lambda phi: phi - 4 * np.pi,
        lambda phi: phi + 2 * np.pi * round(phi * 7),
    ],
    ids=["from 0 to 2 pi", "a turn more", "two turns less", "any turns"],
)
def test_angles_of_any_turn_make_the_same_images(tmp_path: Path, turn: Callable[[float], float]) -> None:
    events = many_towers()
    plain = imported(write_root(tmp_path / "plain.root", events), tmp_path / "plain")
    other = imported(write_root(tmp_path / "other.root", turned(events, turn)), tmp_path / "other")
    assert plain.sum() > 1e5
    np.testing.assert_allclose(other, plain, rtol=1e-6)


def test_angles_between_pi_and_the_edge_of_the_image_are_on_its_other_side(tmp_path: Path) -> None:
    """3.145 is -3.138: the first column, not the last one, although the images reach to 3.15."""
    events = [[(0.0, 3.145, 1.0)], [(0.0, 3.145 - 2 * np.pi, 2.0)], [(0.0, float(np.float32(np.pi)), 4.0)]]
    images = imported(write_root(tmp_path / "a.root", [*events, [], []]), tmp_path / "out")
    assert images[:, 32, 0].tolist() == [1000.0, 2000.0, 0.0, 0.0, 0.0]
    assert images[:, 32, 63].tolist() == [0.0, 0.0, 4000.0, 0.0, 0.0]


def test_what_is_left_out_is_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = [[(0.0, 0.0, 30.0), (2.6, 9.0, 10.0)], [(-4.0, 1.0, 20.0)], [(2.5, 1.0, 40.0)], [], []]
    path = write_root(tmp_path / "a.root", events)
    assert main(["data", "import", str(path), "--out", str(tmp_path / "out")]) == 0
    said = f"{tmp_path / 'out'}: 2 of 4 towers, with 30.0% of the energy, are at |eta| > 2.5 and left out\n"
    assert capsys.readouterr().out == f"{said}{tmp_path / 'out'}: imported\n"
    for split in SPLITS:
        with open_images(tmp_path / "out" / f"{split}.h5") as file:
            assert file.attrs["towers_left_out"] == 2
            assert file.attrs["energy_left_out"] == pytest.approx(0.3)
    assert main(["data", "import", str(SAMPLE), "--out", str(tmp_path / "sample")]) == 0
    assert "of the energy, are at |eta| > 2.5 and left out" in capsys.readouterr().out
    within = [[(0.0, 0.0, 30.0)]] * 5
    assert main(["data", "import", str(write_root(tmp_path / "b.root", within)), "--out", str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'b'}: imported\n"


def with_weights(path: Path, weights: Any, name: str = "Event.Weight") -> Path:
    """Towers of which each event has a weight, or several."""
    branch, leaf = name.split(".")
    towers = ak.values_astype(ak.Array([[list(tower) for tower in event] for event in EVENTS[:1] * 5]), np.float32)
    tower = ak.zip({name: towers[:, :, column] for column, name in enumerate(("Eta", "Phi", "E"))})
    weight = ak.zip({leaf: ak.values_astype(ak.Array(weights), np.float32)})
    with uproot.recreate(path) as file:
        file.mktree(
            "Delphes",
            {"Tower": tower.type.content, branch: weight.type.content},
            field_name=lambda outer, inner: inner if outer == "" else f"{outer}.{inner}",
            counter_name=lambda counted: f"{counted}_size",
        )
        file["Delphes"].extend({"Tower": tower, branch: weight})
    return path


def weights_of(out: Path) -> list[float]:
    found: list[float] = []
    for split in SPLITS:
        with open_images(out / f"{split}.h5") as file:
            found += file.column("weight").tolist()  # type: ignore[union-attr]
    return found


@pytest.mark.parametrize("name", ["Event.Weight", "Weight.Weight"])
def test_weights_of_the_events_are_imported(tmp_path: Path, name: str) -> None:
    path = with_weights(tmp_path / "a.root", [[1.5, 9.0], [-0.5], [0.0, 1.0], [2.0], [4.0]], name)
    import_files([path], tmp_path / "out")
    assert weights_of(tmp_path / "out") == [1.5, -0.5, 0.0, 2.0, 4.0]
    import_files([path], tmp_path / "given", weight=3.0)
    assert weights_of(tmp_path / "given") == [3.0] * 5
    import_files([path, write_root(tmp_path / "none.root")], tmp_path / "both")
    assert sorted(weights_of(tmp_path / "both")) == [-0.5, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.5, 2.0, 4.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1.0], [1.0], [np.nan], [1.0], [1.0]], "event 2 has no weight, or one that is not finite"),
        ([[1.0], [1.0], [1.0], [], [1.0]], "event 3 has no weight"),
        ([[0.0]] * 5, "the weights of all events are 0"),
    ],
)
def test_weights_that_cannot_be(tmp_path: Path, weights: Any, message: str) -> None:
    path = with_weights(tmp_path / "a.root", weights)
    with pytest.raises(InputError, match=rf"a\.root: {message}.*; give --weight"):
        import_files([path], tmp_path / "out")
    assert import_files([path], tmp_path / "out", weight=1.0)
