"""`hpcgan evaluate --protocol calochallenge`, of files and of a run; and the same numbers on any number of ranks."""

import argparse
import dataclasses
import functools
import json

import h5py
import needs
import numpy as np
import pytest
from binnings import xml
from untrained import make_run

needs.tensorflow()

from hpcgan import config as configuration  # noqa: E402
from hpcgan.calochallenge import classifier, protocol, report  # noqa: E402
from hpcgan.calochallenge.geometry import published, read_binning  # noqa: E402
from hpcgan.calochallenge.inputs import Files  # noqa: E402
from hpcgan.calochallenge.protocol import Comparison, Job, Options, jobs, measure  # noqa: E402
from hpcgan.calochallenge.showers import Showers  # noqa: E402
from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.commands import evaluate, protocols  # noqa: E402
from hpcgan.errors import InputError  # noqa: E402
from hpcgan.metrics.frechet import resampled_fpd  # noqa: E402
from hpcgan.metrics.kernel import resampled_kpd  # noqa: E402

#: Of data set 2's form: equal layers, here two of three rings and four angles.
LAYERS = [(number, [0, 5, 10, 15], 4) for number in range(2)]
SMALL = ["--trainings", "2", "--classifier-units", "6", "--classifier-epochs", "2"]


@pytest.fixture(autouse=True)
def small_subsamples(monkeypatch):
    """FPD and KPD of hundreds of events instead of tens of thousands."""
    monkeypatch.setattr(protocol, "resampled_fpd", functools.partial(resampled_fpd, sizes=(50, 200), batches=2))
    monkeypatch.setattr(protocol, "resampled_kpd", functools.partial(resampled_kpd, batch=50))


def showers(n, seed, scale=1.0, voxels=24, lean=1.0):
    """Showers of a response of about `scale`; their last three voxels are favoured by `lean`."""
    rng = np.random.default_rng(seed)
    energy = 10 ** rng.uniform(3.0, 5.0, n)
    shares = rng.gamma(0.5, 1.0, (n, voxels))
    shares[:, -3:] *= lean
    response = 1.005 * scale  # in the middle of a bin, not at its edge
    return Showers(energy, (response * shares / shares.sum(axis=1, keepdims=True) * energy[:, None]).astype(np.float32))


def write(path, sample):
    with h5py.File(path, "w") as file:
        file["incident_energies"], file["showers"] = sample.energy[:, None], sample.voxels
    return path


@pytest.fixture
def files(tmp_path):
    (tmp_path / "binning.xml").write_text(xml(LAYERS, "electron"))
    write(tmp_path / "real.hdf5", showers(100, 1))
    write(tmp_path / "fake.hdf5", showers(60, 2, 0.5, lean=300.0))
    write(tmp_path / "more.hdf5", showers(60, 3))
    return tmp_path


def parse(*arguments):
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers())
    return parser.parse_args(["evaluate", "--protocol", "calochallenge", *map(str, arguments)])


def of_files(files, *more):
    return parse(
        "--real", files / "real.hdf5", "--fake", files / "fake.hdf5", "--binning", files / "binning.xml", *more
    )


def test_files_of_the_challenge(files, capsys, monkeypatch):
    """Generated showers have half of the energy and lean to one side, which real ones against real ones do not.

    Few showers are one update an epoch, which takes a higher rate.
    """
    monkeypatch.setattr(classifier, "Protocol", functools.partial(classifier.Protocol, learning_rate=1e-2))
    units = ["--trainings", "2", "--classifier-units", "16", "--classifier-epochs", "40"]
    assert evaluate.run(of_files(files, *units)) == 0
    shown = capsys.readouterr()
    out = files / "fake-report"
    assert sorted(path.name for path in out.iterdir()) == ["calochallenge.html", "calochallenge.json"]
    data = json.loads((out / "calochallenge.json").read_text())
    (found,) = data["comparisons"]
    assert (found["n"], found["n_null"], found["voxels"]) == (60, 40, 24)  # 40 real showers are left
    assert found["geometry"] == "binning.xml, electron"
    for inputs in ("low", "high"):
        test = found["classifiers"][inputs]
        assert test["events"] == {"train": 36, "validation": 12, "test": 12}
        values = [training["auc"]["value"] for training in test["trainings"]]
        assert (test["auc"]["mean"], test["auc"]["std"]) == pytest.approx((np.mean(values), np.std(values)))
        assert test["null"]["events"]["train"] == 24
        assert test["auc"]["mean"] > 0.9 > test["null"]["auc"]["mean"]
        assert test["jsd"]["mean"] > 0.3 > test["null"]["jsd"]["mean"]
    numbers, null = found["distances"], found["distances"]["null"]
    assert numbers["separation"]["response"] == 1.0  # 0.5 against 1
    assert null["separation"]["response"] == 0.0
    assert numbers["fpd"]["value"] > 5 * null["fpd"]["value"]
    assert numbers["kpd"]["value"] > null["kpd"]["value"]
    assert numbers["density"] < null["density"]
    assert len(numbers["separation"]) == 1 + 2 + 4 * 2 + 1
    assert numbers["separation"].keys() == null["separation"].keys()
    for text in ("AUC low level", "JSD [bit] high level", "FPD x 10^3", "Coverage", "response ", "real against real"):
        assert text in shown.out
    assert "note: 60 showers on each side" in shown.out
    assert "units 16 instead of 2048, epochs 40 instead of 50" in shown.out
    page = (out / "calochallenge.html").read_text()
    assert "Layer 1" in page
    assert f"{found['classifiers']['low']['auc']['mean']:.4f}" in page


def test_other_real_showers_and_fewer_numbers(files, capsys):
    """`--other-real` takes the place of what is left of the real file; only what is asked for is made."""
    more = ["--other-real", files / "more.hdf5", "--classifier", "none", "--out", files / "out", "--events", 50]
    assert evaluate.run(of_files(files, *more)) == 0
    (found,) = json.loads((files / "out" / "calochallenge.json").read_text())["comparisons"]
    assert (found["n"], found["n_null"], found["classifiers"]) == (50, 50, {})
    assert evaluate.run(of_files(files, *SMALL, "--no-distances", "--classifier", "features", "--cut", 1e9)) == 0
    (found,) = json.loads((files / "fake-report" / "calochallenge.json").read_text())["comparisons"]
    assert (list(found["classifiers"]), found["distances"]) == (["high"], None)
    assert found["classifiers"]["high"]["auc"]["mean"] == pytest.approx(0.5, abs=0.3)  # all voxels are below the cut
    assert "Voxels below 1e+09 MeV are 0" in capsys.readouterr().out


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A CaloGAN that was never trained, and few showers of two kinds."""
    from hpcgan.data.storage import Target
    from hpcgan.physics.calorimeter import parse_segmentation
    from hpcgan.problems.calorimeter import files as calo

    folder = tmp_path_factory.mktemp("calogan")
    cells = parse_segmentation("2x4,2x2,2x2")
    rng = np.random.default_rng(1)
    for particle in ("gamma", "eplus"):
        sizes = dict.fromkeys(("train", "val", "test"), 30)
        with calo.Writer(Target(folder / "data" / particle, sizes, {}), cells, particle) as writer:
            images = [rng.gamma(0.5, 2000.0, (90, *shape)).astype(np.float32) for shape in cells.shapes]
            writer.append(calo.to_sample(images, rng.uniform(1.0, 100.0, 90)))
    settings = {
        "problem": "calogan",
        "data": {"path": str(folder / "data")},
        "model": {"particles": ["gamma", "eplus"], "segmentation": str(cells), "latent_dim": 4},
        "training": {"batch_size": 16},
    }
    return make_run(folder / "run", configuration.load(settings)).path


@pytest.mark.usefixtures("eager")
def test_a_run(run, capsys):
    """Each particle by itself; the generated showers have the energies of the real ones."""
    assert evaluate.run(parse(run, *SMALL, "--classifier", "features")) == 0
    data = json.loads((run / "report" / "calochallenge.json").read_text())
    assert [found["title"] for found in data["comparisons"]] == ["gamma", "eplus"]
    for found in data["comparisons"]:
        assert (found["n"], found["n_null"], found["voxels"]) == (30, 30, 16)
        assert found["geometry"] == "CaloGAN, 2x4,2x2,2x2 cells"
        assert list(found["classifiers"]) == ["high"]
        assert found["distances"]["recall"] <= found["distances"]["null"]["recall"]
    assert data["fake"] == "60 generated showers, epoch 3"
    assert "CaloGAN, 2x4,2x2,2x2 cells, eplus: 30 generated against 30 real showers" in capsys.readouterr().out


# --- ranks ------------------------------------------------------------------------------------------


class Rank(SerialComm):
    """One of several ranks, which work one after another; rank 0 comes last and finds what the others have sent."""

    def __init__(self, rank, size, sent):
        self.rank, self.size, self.sent = rank, size, sent

    def gather_json(self, value):
        if value is None:  # no failure
            return [None]
        self.sent.append(json.loads(json.dumps(value)))
        return self.sent if self.rank == 0 else None


@pytest.mark.usefixtures("eager")
def test_any_number_of_ranks_finds_the_same(files):
    geometry = read_binning(files / "binning.xml", 24)
    comparison = Comparison.of(geometry, showers(50, 1), showers(25, 2, 0.9))
    options = Options(trainings=3, units=4, epochs=2)
    alone = measure([comparison], options, SerialComm())
    for size in (2, 5):
        sent = []
        found = [measure([comparison], options, Rank(rank, size, sent)) for rank in reversed(range(size))]
        assert found[:-1] == [None] * (size - 1)
        assert found[-1] == json.loads(json.dumps(alone))


def test_work_is_dealt_out_whole():
    options = Options(trainings=10)
    work = jobs(2, options)
    assert len(work) == len(set(work)) == 2 * 2 * 10 * 2 + 2 * 2
    assert Job(1, True, "high", 9) in work
    assert jobs(1, dataclasses.replace(options, classifiers=())) == [Job(0, False), Job(0, True)]


def test_real_against_real():
    """What is left of the real showers, others, or halves."""
    geometry = published(368)
    fake = showers(40, 2, voxels=368)

    def null(real, other=None):
        sides = Comparison.of(geometry, real, fake, other).null
        return [side.energy.tolist() for side in sides]

    real = showers(70, 1, voxels=368)
    energy = real.energy.tolist()
    assert null(real) == [energy[:30], energy[40:70]]
    assert null(real.take(slice(50))) == [energy[:20], energy[20:40]]  # ten are left: halves
    assert null(real, fake) == [energy[:40], fake.energy.tolist()]
    assert null(real, fake.take(slice(12))) == [energy[:12], fake.energy.tolist()[:12]]
    with pytest.raises(InputError, match="9 other real showers are too few to compare: give 10"):
        null(real, fake.take(slice(9)))
    with pytest.raises(InputError, match="19 showers are too few to compare: give 20"):
        Comparison.of(geometry, real, fake.take(slice(19)))


def test_distances_say_what_is_asked_of_too_few():
    geometry = published(368)
    with pytest.raises(ValueError, match="5 showers have no 5 neighbours"):
        protocol.distances(geometry, showers(5, 1, voxels=368), showers(5, 2, voxels=368))


# --- bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either a run directory, or --real"),
        (["--real", "a.h5", "--fake", "b.h5"], "a.h5: no such file"),
        (["--real", "a", "--fake", "b", "--split", "val"], "--split goes with a run directory"),
        (["RUN", "--other-real", "c.h5"], "--other-real goes with --real and --fake"),
        (["RUN", "--binning", "c.xml"], "--binning goes with --real and --fake"),
        (["RUN", "--problem", "calogan"], "--problem does not go with --protocol"),
        (["RUN", "--select", "particle=22"], "--select does not go with --protocol"),
        (["RUN", "--samples", "2"], "--samples does not go with --protocol"),
        (["RUN", "--classifier", "images"], "--classifier images does not go with --protocol"),
        (["RUN", "--classifier", "none", "--classifier", "cells"], "--classifier none goes with no other"),
        (["RUN", "--classifier", "none", "--no-distances"], "leaves nothing to compare"),
        (["pretrained:calogan"], "--out is missing: name a folder"),
        (["RUN"], "RUN: not a run directory"),
    ],
)
def test_bad_arguments(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        evaluate.run(parse(*arguments))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--binning", "--other-real", "--cut", "--trainings", "--ranks"])
def test_options_of_a_protocol_need_one(option):
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers())
    with pytest.raises(InputError, match=f"{option} goes with --protocol calochallenge"):
        evaluate.run(parser.parse_args(["evaluate", "RUN", option, "1"]))


def test_runs_of_other_problems(tmp_path):
    import tiny

    folder = tiny.write_data(tmp_path / "data", 20)
    run = make_run(tmp_path / "run", tiny.config(folder))
    with pytest.raises(InputError, match="is a run of problem 'rpv'; --protocol calochallenge takes runs of 'calogan'"):
        evaluate.run(parse(run.path))


def test_files_that_do_not_fit(files):
    write(files / "fake.hdf5", showers(60, 2, voxels=368))
    (files / "binning.xml").write_text(xml([*LAYERS, (7, [0, 1], 1)]))
    with pytest.raises(InputError, match=r"binning.xml: is a binning of 25 voxels \('photon'\), the showers have 368"):
        evaluate.run(of_files(files, *SMALL))
    with pytest.raises(InputError, match=r"real\.hdf5: showers has 24 voxels, another segmentation"):
        evaluate.run(parse("--real", files / "real.hdf5", "--fake", files / "fake.hdf5"))
    write(files / "real.hdf5", showers(60, 2, voxels=533))
    unlike = (
        "fake.hdf5: has the voxels of CaloChallenge data set 1, photons, .*real.hdf5 those of CaloChallenge data set"
    )
    with pytest.raises(InputError, match=unlike):
        evaluate.run(parse("--real", files / "real.hdf5", "--fake", files / "fake.hdf5"))
    assert not (files / "fake-report").exists()


def test_ranks_are_started_with_the_same_options(files, monkeypatch):
    from hpcgan.launch import outcome

    started = []
    monkeypatch.setattr(outcome, "launch_writing", lambda *arguments: started.append(arguments) or 0)
    more = ["--cut", 0.5, "--classifier", "cells", "--no-distances", "--events", 40, "--ranks", 3, *SMALL]
    args = of_files(files, *more)
    assert evaluate.run(args) == 0
    ((command, file, ranks),) = started
    assert (file, ranks) == (files / "fake-report" / "calochallenge.json", 3)
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers())
    again = parser.parse_args(command)
    same = {**vars(args), "ranks": None, "out": files / "fake-report"}
    assert vars(again) == same
    assert protocols._options(again) == Options(("low",), 2, 6, 2, False)


def test_a_table_without_distances():
    """What is not there has no line."""
    spread = {"mean": 0.5, "std": None, "error": 0.1}
    sides = dict.fromkeys(("auc", "jsd"), spread)
    comparison = {"classifiers": {"low": {**sides, "null": sides}}, "distances": None}
    assert list(report.rows(comparison)) == [
        ("AUC low level", "0.5000", "0.5000"),
        ("JSD [bit] low level", "0.5000", "0.5000"),
    ]


def test_files_are_read_as_far_as_they_are_needed(files):
    loaded = Files(
        files / "real.hdf5", files / "fake.hdf5", binning=files / "binning.xml", events=25, cut_mev=0.0
    ).load(SerialComm(), lambda text: None)
    (comparison,) = loaded.comparisons
    assert (len(comparison.real), len(comparison.fake), len(comparison.null[1])) == (25, 25, 25)
