"""One request for many samples of different conditions: arrays and files, and what is refused."""

import argparse
import io
import tracemalloc
import weakref
from types import SimpleNamespace

import h5py
import needs
import numpy as np
import pytest
import tiny
import untrained
from hypothesis import given
from hypothesis import strategies as st

import hpcgan
from hpcgan import config
from hpcgan.comm.base import SerialComm
from hpcgan.commands import generate as command
from hpcgan.data.schema import TensorSpec
from hpcgan.errors import HpcganError, InputError
from hpcgan.evaluation import conditions as asking
from hpcgan.evaluation import sample_file
from hpcgan.evaluation.conditions import read as read_conditions
from hpcgan.evaluation.sample_file import SampleFile, write_samples
from hpcgan.problems.detector_images.conditional import ConditionalModel, ConditionalProblem
from hpcgan.problems.detector_images.files import open_images
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem
from hpcgan.problems.pileup.problem import PileupModel, PileupProblem

TWO = ConditionalProblem(ConditionalModel())  # mGlu, mNeu
ONE = PileupProblem(PileupModel(mu=[20, 60]))


class Column(ConditionalProblem):
    """One condition of shape (1,), as the energy of a shower has."""

    @property
    def schema(self):
        return {"hist": TensorSpec((64, 64)), "energy": TensorSpec((1,), "GeV", role="condition")}

    def check_conditions(self, conditions):
        if (conditions["energy"] <= 0).any():
            raise InputError("energy must be positive")


COLUMN = Column(ConditionalModel())


# --- arrays ------------------------------------------------------------------------------------------------------


def test_rows_have_a_column_for_each_condition():
    found = asking.of_rows(TWO, [[1400, 850], [1600, 850.5], [1800, 250]])
    assert {name: values.tolist() for name, values in found.items()} == {
        "mGlu": [1400.0, 1600.0, 1800.0], "mNeu": [850.0, 850.5, 250.0],
    }  # fmt: skip
    assert {values.dtype for values in found.values()} == {np.dtype("float32")}


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_condition_needs_no_second_axis(shape):
    values = np.reshape([20, 60, 100], shape)
    assert asking.of_rows(ONE, values)["mu"].tolist() == [20.0, 60.0, 100.0]
    assert asking.of_rows(COLUMN, values)["energy"].tolist() == [[20.0], [60.0], [100.0]]
    assert asking.of_arrays(COLUMN, {"energy": values})["energy"].tolist() == [[20.0], [60.0], [100.0]]
    assert asking.of_arrays(ONE, {"mu": values})["mu"].tolist() == [20.0, 60.0, 100.0]


def test_a_single_number_is_a_row():
    assert asking.of_rows(ONE, 60)["mu"].tolist() == [60.0]
    assert asking.of_rows(TWO, [[1400, 850]])["mNeu"].tolist() == [850.0]


@pytest.mark.parametrize(
    ("problem", "rows", "message"),
    [
        (TWO, [1400, 850], r"the array has shape \(2,\); needed is \(n, 2\), a column for each of mGlu, mNeu"),
        (TWO, np.ones((5, 3)), r"shape \(5, 3\); needed is \(n, 2\)"),
        (ONE, np.ones((5, 2)), r"shape \(5, 2\); needed is \(n,\) or \(n, 1\), a column for each of mu"),
        (ONE, np.ones((1, 5, 1)), "needed is"),
        (ONE, [], "has shape"),
        (ONE, [20.0, np.nan], "conditions of event 1 is nan: give finite numbers"),
        (TWO, [[1400, 850], [1400, -np.inf]], "conditions of event 1 is -inf: give finite numbers"),
        (ONE, [20.0, 1e39], "'mu' of event 1 is inf"),  # as float32
        (ONE, ["20", "60"], "does not hold numbers"),
        (ONE, [True, False], "does not hold numbers"),
        (ONE, [None, 20], "does not hold numbers"),
        (ONE, [[20], [20, 60]], "does not hold numbers"),
        (ONE, [20j], "does not hold numbers"),
        (ONE, [20, 1e6], "mu = 1e"),
        (TWO, [[1400, 850], [800, 850]], "m_neutralino = 850 GeV"),
        (COLUMN, [10.0, -1.0], "energy must be positive"),
        (RpvProblem(RpvModel()), [1.0], "the generator of problem 'rpv' takes no conditions"),
    ],
)
def test_bad_rows(problem, rows, message):
    with pytest.raises(InputError, match=message) as error:
        asking.of_rows(problem, rows)
    assert "\n" not in str(error.value)


def test_bad_arrays_and_points():
    with pytest.raises(InputError, match="conditions: 'mNeu' of event 2 is nan"):
        asking.of_arrays(TWO, {"mGlu": 1400, "mNeu": [850, 850, np.nan]})
    with pytest.raises(InputError, match="conditions: 'mNeu' is nan"):
        asking.of_arrays(TWO, {"mGlu": [1400], "mNeu": np.nan})
    with pytest.raises(InputError, match="conditions: 'mGlu' is nan"):
        asking.of_points(TWO, [{"mGlu": np.nan, "mNeu": 850}])
    with pytest.raises(InputError, match="conditions: 'mGlu' does not hold numbers"):
        asking.of_points(TWO, [{"mGlu": "heavy", "mNeu": 850}])


# --- files -------------------------------------------------------------------------------------------------------

ROWS = np.array([[1400, 850], [1600, 850], [1800, 250]], np.float64)


def write_h5(path, group=""):
    with h5py.File(path, "w") as file:
        file[f"{group}/mGlu"], file[f"{group}/mNeu"] = ROWS[:, 0], ROWS[:, 1:]
        file[f"{group}/other"] = np.zeros(5)


WRITERS = {
    "a.npy": lambda path: np.save(path, ROWS),
    "a.csv": lambda path: path.write_text("mNeu, mGlu\n850, 1400\n850,1.6e3\n\n250,1800\n"),
    "bom.csv": lambda path: path.write_bytes(b"\xef\xbb\xbfmGlu,mNeu\r\n1400,850\r\n1600,850\r\n1800,250\r\n"),
    "a.h5": write_h5,
    "b.h5": lambda path: write_h5(path, "samples"),
    "c.h5": lambda path: write_h5(path, "all_events"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_files_of_conditions(tmp_path, name):
    WRITERS[name](tmp_path / name)
    found = read_conditions(TWO, tmp_path / name)
    assert np.stack([found["mGlu"], found["mNeu"]], axis=1).tolist() == ROWS.tolist()


def test_the_conditions_of_a_data_file(tmp_path):
    folder = tiny.write_conditional_data(tmp_path / "data", 30)
    assert read_conditions(TWO, folder / "test.h5")["mGlu"].tolist() == [1400.0, 1600.0, 1800.0] * 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"mGlu,mNeu\n1400\n", "a.csv, line 2: 1 values under 2 names"),
        ("a.csv", b"mGlu,mNeu\n1400,heavy\n", "a.csv, line 2: 'heavy' is not a number"),
        ("a.csv", b"mGlu,mNeu\n1400,nan\n", "'mNeu' of event 0 is nan"),
        ("a.csv", b"mGlu,mNeu\n", "needed are a line with the names"),
        ("a.csv", b"", "needed are a line with the names"),
        ("a.csv", b"mGlu,mGlu\n1,2\n", "names a condition twice"),
        ("a.csv", b"mGlu,mNu\n1,2\n", "'mNu' is not a condition of problem 'conditional'; did you mean 'mNeu'"),
        ("a.csv", b"1400,850\n1600,850\n", "'1400' is not a condition"),
        ("a.csv", b"\xff\xfe\x00", "cannot be read as CSV"),
        ("a.npy", b"no array", "a.npy: not a readable NumPy array"),
        ("a.npy", b"", "a.npy: not a readable NumPy array"),
        ("a.h5", b"no HDF5", "a.h5: not a readable HDF5 file"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_conditions(TWO, tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_bad_hdf5_and_numpy_files(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["mGlu"] = ROWS[:, 0]
        file["samples"] = 1.0
        file["mNeu"] = h5py.ExternalLink("secret.h5", "mNeu")
    with pytest.raises(InputError, match="mNeu is a link to another file"):
        read_conditions(TWO, tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["mGlu/mGlu"] = ROWS[:, 0]
    with pytest.raises(InputError, match="'mGlu' is no data set"):
        read_conditions(TWO, tmp_path / "b.h5")
    with pytest.raises(InputError, match=r"has no data set 'mu' \(it holds: mGlu\)"):
        read_conditions(ONE, tmp_path / "b.h5")
    np.save(tmp_path / "c.npy", np.array([{"mGlu": 1}], object), allow_pickle=True)
    with pytest.raises(InputError, match="not a readable NumPy array"):
        read_conditions(TWO, tmp_path / "c.npy")
    np.savez(tmp_path / "d", a=ROWS)
    (tmp_path / "d.npz").rename(tmp_path / "d.npy")
    with pytest.raises(InputError, match="holds several arrays"):
        read_conditions(TWO, tmp_path / "d.npy")


def read_or_refused(problem, path):
    """What is read; None if it is refused in a line that names the file."""
    try:
        return read_conditions(problem, path)
    except InputError as error:
        said = str(error)
    assert said.startswith(str(path))
    return None


CELLS = st.lists(st.lists(st.sampled_from(["mGlu", "mNeu", "1400", "2e3", "x", "", " 7"])))


@given(st.text(max_size=60) | CELLS.map(lambda rows: "\n".join(",".join(row) for row in rows)))
def test_any_csv_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    found = read_or_refused(TWO, path)
    assert found is None or all(np.isfinite(values).all() and len(values) for values in found.values())


def npy():
    buffer = io.BytesIO()
    np.save(buffer, np.array([20.0, 60.0]))
    return buffer.getvalue()


NPY = npy()
CUT = st.integers(0, len(NPY)).map(lambda length: NPY[:length])
CHANGED = st.tuples(st.integers(0, len(NPY) - 1), st.integers(0, 255)).map(
    lambda change: NPY[: change[0]] + bytes([change[1]]) + NPY[change[0] + 1 :]
)


@given(st.binary(max_size=80) | CUT | CHANGED)
def test_any_npy_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.npy"
    path.write_bytes(content)
    found = read_or_refused(ONE, path)
    assert found is None or np.isfinite(found["mu"]).all()


# --- writing -----------------------------------------------------------------------------------------------------


class Sampler:
    """Sample i is an image full of i; remembers how much of what it has made is still held by anybody."""

    problem = RpvProblem(RpvModel())
    batch_size = 6
    checkpoint = SimpleNamespace(step=40, epoch=3, score=None)

    def __init__(self):
        self._made = []
        self.most = 0

    def sample(self, n, seed, first=0, conditions=None):
        images = np.empty((n, 64, 64), np.float32)
        images[:] = (first + np.arange(n, dtype=np.float32))[:, None, None]
        self._made.append((weakref.ref(images), n))
        self.most = max(self.most, sum(n for alive, n in self._made if alive() is not None))
        return {"hist": images}


class ThreeRanks(SerialComm):
    """Rank 0 of three, which asks the sampler for what the others would have made."""

    size = 3

    def __init__(self, sampler, n, share):
        self._sampler, self._n, self._share, self._round = sampler, n, share, 0

    def gather_array(self, array):
        start = 3 * self._share * self._round
        self._round += 1
        firsts = [start + rank * self._share for rank in (1, 2)]
        others = [self._sampler.sample(min(self._share, self._n - first), 1, first)["hist"]
                  if first < self._n else np.empty(0) for first in firsts]  # fmt: skip
        return [array, *others]

    def gather_json(self, value):
        return [value, None, None]


def contents(path):
    with open_images(path) as file:
        return file.read()[:, 5, 7].tolist()


@pytest.mark.parametrize("n", [1, 6, 7, 18, 19, 100])
def test_several_ranks_write_the_bytes_of_one(tmp_path, monkeypatch, n):
    monkeypatch.setattr(sample_file, "ROUND_BYTES", 3 * 12 * 64 * 64 * 4)  # two batches of each of three ranks
    one, three = (tmp_path / name / "x.h5" for name in ("one", "three"))
    one.parent.mkdir()
    three.parent.mkdir()
    write_samples(Sampler(), SampleFile(one, n, 1, {"seed": 1}))
    sampler, heard = Sampler(), []
    ranks = ThreeRanks(sampler, n, 12)
    write_samples(sampler, SampleFile(three, n, 1, {"seed": 1}), comm=ranks, progress=heard.append)
    assert contents(three) == list(range(n))
    assert three.read_bytes() == one.read_bytes()
    assert heard[-1] == n


def test_what_is_held_does_not_grow_with_the_number_of_samples(tmp_path, monkeypatch):
    """Samples alive at any time, counted; and the bytes that Python and NumPy have at their most."""
    monkeypatch.setattr(sample_file, "ROUND_BYTES", 20 * 64 * 64 * 4)  # 18 images, three batches
    peaks, most = {}, {}
    for n in (90, 900):
        sampler = Sampler()
        tracemalloc.start()
        write_samples(sampler, SampleFile(tmp_path / f"{n}.h5", n, 1))
        peaks[n] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        most[n] = sampler.most
    assert most[90] == most[900] == 18  # one round
    assert peaks[900] < 1.2 * peaks[90]
    assert contents(tmp_path / "900.h5") == list(range(900))


def test_a_request_to_stop_ends_it_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_file, "ROUND_BYTES", 1)
    signals = iter([None, None, "SIGTERM"])
    with pytest.raises(HpcganError, match=r"x.h5: stopped by SIGTERM; nothing was kept") as error:
        write_samples(Sampler(), SampleFile(tmp_path / "x.h5", 100, 1), stopping=lambda: next(signals))
    assert error.value.collective
    assert list(tmp_path.iterdir()) == []


# --- the whole way -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    needs.tensorflow()
    folder = tmp_path_factory.mktemp("conditional")
    raw = {
        "problem": "conditional",
        "name": "tiny",
        "data": {"path": str(tiny.write_conditional_data(folder / "data"))},
        "model": {"filters": 2, "latent_dim": 3},
        "training": {"epochs": 1, "batch_size": 10, "average_half_life": 50},
    }
    return untrained.make_run(folder / "run", config.load(raw))


def test_generate_for_an_array(run):
    rows = np.stack([np.linspace(1400, 1800, 23), np.full(23, 850.0)], axis=1)
    found = hpcgan.generate(run.path, conditions=rows)
    named = hpcgan.generate(run.path, conditions={"mGlu": rows[:, 0], "mNeu": 850.0})
    assert found["hist"].shape == (23, 64, 64)
    assert found["mGlu"] == pytest.approx(rows[:, 0])
    np.testing.assert_array_equal(found["hist"], named["hist"])
    # In batches of other sizes the same to rounding; each event by itself, too: full batches change nothing.
    for size in (1, 23):
        other = hpcgan.generate(run.path, conditions=rows, batch_size=size)
        np.testing.assert_allclose(other["hist"], found["hist"], rtol=1e-4, atol=1e-6 * found["hist"].max())
    assert len({image.tobytes() for image in hpcgan.generate(run.path, 23, conditions=[[1400, 850]])["hist"]}) == 23
    with pytest.warns(UserWarning, match="mGlu=1400 to 2000 GeV is outside the training data's 1400 to 1800 GeV"):
        hpcgan.generate(run.path, conditions=[[1400, 850], [2000, 850]])
    for arguments, message in (
        ({"n": 3, "conditions": rows}, "conditions: there are 23, n is 3"),
        ({"conditions": rows[:, 0]}, "the array has shape"),
        ({"conditions": rows * np.nan}, "conditions of event 0 is nan"),
        ({"conditions": {"mGlu": 1400, "energy": 3}}, "'energy' is not a condition"),
        ({"conditions": rows, "batch_size": 0}, "batch size 0: give at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            hpcgan.generate(run.path, **arguments)


def generate(run, *options):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return command.run(parser.parse_args(["generate", str(run.path), *map(str, options)]))


def test_the_command_for_a_file_of_conditions(run, tmp_path, capsys):
    np.save(tmp_path / "asked.npy", ROWS)
    out = tmp_path / "x.h5"
    assert generate(run, "--conditions", tmp_path / "asked.npy", "--out", out, "--batch-size", 2) == 0
    assert "mNeu=250 to 850 GeV is outside the training data's 850 to 850 GeV" in capsys.readouterr().err
    with open_images(out) as file:
        assert file.column("mGlu").tolist() == ROWS[:, 0].tolist()
        assert file.column("mNeu").tolist() == ROWS[:, 1].tolist()
        assert file.attrs["conditions"] == f"those of {tmp_path / 'asked.npy'}"
        with pytest.warns(UserWarning, match="outside"):
            same = hpcgan.generate(run.path, conditions=ROWS, batch_size=2)
        np.testing.assert_array_equal(file.read(), same["hist"])
    with pytest.raises(InputError, match=r"asked.npy: has conditions of 3 events, -n is 4"):
        generate(run, "--conditions", tmp_path / "asked.npy", "-n", 4, "--out", tmp_path / "y.h5")
    with pytest.raises(SystemExit):
        generate(run, "--conditions", tmp_path / "asked.npy", "--condition", "mGlu=1,mNeu=1", "--out", out)


def test_batch_statistics_allow_one_batch_size(run, tmp_path):
    raw = run.load_config().dump()
    raw["problem"], raw["scoring"]["statistics"] = "rpv", "batch"
    raw["model"].pop("conditioning")
    other = untrained.make_run(tmp_path / "run", config.load(raw))
    assert len(hpcgan.generate(other.path, 3, batch_size=10)["hist"]) == 3
    with pytest.raises(InputError, match=r"batch size 4: the run generates with the statistics of batches of 10"):
        hpcgan.generate(other.path, 3, batch_size=4)
