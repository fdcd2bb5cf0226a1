"""Towers from Delphes files: the committed sample, broken files, and the import."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcgan.data.delphes import count_events, import_files, read_towers
from hpcgan.data.hdf5 import SPLITS, open_images, validate
from hpcgan.errors import InputError
from hpcgan.physics.images import bin_towers

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


def test_import_makes_the_published_layout(small: Path, tmp_path: Path) -> None:
    other = write_root(tmp_path / "other.root", [[(0.0, 0.0, float(i + 1))] for i in range(7)])
    steps: list[tuple[int, int]] = []
    made = import_files(
        [small, other], tmp_path / "out", 1400, 850, label=0, weight=0.5, progress=lambda *done: steps.append(done)
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
            for values, expected in ((file.y, 0), (file.weight, 0.5), (file.mGlu, 1400), (file.mNeu, 850)):
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
        with pytest.raises(InputError, match=next(iter(options))):
            import_files([small], tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_file_that_breaks_halfway_leaves_nothing(small: Path, tmp_path: Path) -> None:
    bad = write_root(tmp_path / "bad.root", [*EVENTS, [(0.0, 0.0, -1.0)]])
    with pytest.raises(InputError, match=r"bad\.root: event 5"):
        import_files([small, bad], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == []


def test_splits_hold_every_file_in_turn(tmp_path: Path) -> None:
    """Signal first, background second: every split still sees both."""
    files = [write_root(tmp_path / f"{i}.root", [[(0.0, 0.0, float(i + 1))]] * 10) for i in range(2)]
    import_files(files, tmp_path / "out")
    for split in SPLITS:
        with open_images(tmp_path / "out" / f"{split}.h5") as file:
            assert set(file.read().max(axis=(1, 2)).tolist()) == {1000.0, 2000.0}
