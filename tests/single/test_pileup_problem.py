"""The pileup problem: configuration, files, encoding, observables, score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from pools import sparse_events, write_pool

from hpcgan import config
from hpcgan.data.storage import Target
from hpcgan.errors import InputError
from hpcgan.evaluation import events, report
from hpcgan.evaluation.compare import EvaluationOptions
from hpcgan.metrics.null_band import null_band
from hpcgan.physics import jets
from hpcgan.problems.detector_images import files as hdf5
from hpcgan.problems.detector_images import quantities
from hpcgan.problems.detector_images.rpv import RpvModel, RpvProblem
from hpcgan.problems.detector_images.source import ImageSource
from hpcgan.problems.figures import figures_of
from hpcgan.problems.pileup.problem import PileupModel, PileupProblem
from hpcgan.problems.pileup.source import SumSource

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pool")
    write_pool(path, 600)
    return path


def problem(**model: Any) -> PileupProblem:
    return PileupProblem(PileupModel(**{"mu": 3, "sums_per_epoch": 60, "held_out_sums": 40, **model}))


# --- configuration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pileup.yaml", "pileup_gan.yaml"])
def test_the_shipped_configurations(name: str):
    found = config.load(CONFIGS / name, ["model.mu=140"])
    assert isinstance(found.model, PileupModel)
    assert found.model.mus == (140,)
    assert config.load(found.dump()).model == found.model
    several = config.load(CONFIGS / name, ["model.mu=[140, 20, 60]", "scoring.statistics=moving"])
    assert several.model.mus == (20, 60, 140)
    assert config.load(several.dump()).model == several.model


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.mu=0", "model.mu: give whole numbers of events from 1 to 1000, got 0"),
        ("model.mu=-5", "model.mu: give whole numbers"),
        ("model.mu=2.5", "model.mu: give whole numbers"),
        ("model.mu=true", "model.mu: give whole numbers"),
        ("model.mu=many", "model.mu: give whole numbers"),
        ("model.mu=2000", "model.mu: give whole numbers"),
        ("model.mu=[20]", "model.mu: a list is for at least two different numbers of events"),
        ("model.mu=[20, 20]", "model.mu: a list is for at least two"),
        ("model.mu=[20, 0]", "model.mu: give whole numbers"),
        ("model.counting=binomial", "model.counting: input should be 'fixed' or 'poisson'"),
        ("model.sums_per_epoch=0", "model.sums_per_epoch"),
        ("model.nu=3", "unknown key 'model.nu'; did you mean 'mu'?"),
        ("model.architecture=dcgan", "needs model.architecture=detector"),
    ],
)
def test_bad_configurations(override: str, message: str):
    with pytest.raises(InputError) as error:
        config.load(CONFIGS / "pileup_gan.yaml", [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# --- data --------------------------------------------------------------------------------------------------------


def test_splits_are_drawn_from_their_pools(folder: Path):
    sources = {split: problem().open(folder, split) for split in ("train", "val", "test")}
    assert [len(source) for source in sources.values()] == [60, 40, 40]
    assert all(isinstance(source, SumSource) for source in sources.values())
    some = np.arange(5)
    read = [source.read(some)["hist"] for source in sources.values()]
    assert len({images.tobytes() for images in read}) == 3
    assert not np.array_equal(sources["train"].read(some, 1)["hist"], read[0])
    assert np.array_equal(sources["val"].read(some, 1)["hist"], read[1])
    for split in sources:
        problem().validate(folder, split)


def test_a_pool_says_how_many_events_a_pileup_has(folder: Path):
    assert PileupProblem.of_file(folder / "val.h5").model.mu == 3


def test_generated_files_can_be_read_again(folder: Path, tmp_path: Path):
    images = problem().open(folder, "val").read(np.arange(8))
    with problem(mu=7).writer(tmp_path / "made.h5", 8, {"step": 3}) as append:
        append({"hist": images["hist"][:5]})
        append({"hist": images["hist"][5:]})
    path = tmp_path / "made.h5"
    problem().validate(path, "test")
    source = problem().open(path, "test")
    assert isinstance(source, ImageSource)
    np.testing.assert_array_equal(source.read(np.arange(8))["hist"], images["hist"])
    assert PileupProblem.of_file(path).model.mu == 7
    with hdf5.open_images(path) as file:
        assert {name: file.attrs[name] for name in ("problem", "mu", "step")} == {
            "problem": "pileup",
            "mu": 7,
            "step": 3,
        }
        assert not file.column("y").any()
    with pytest.raises(InputError, match="ends in"), problem().writer(tmp_path / "made.txt", 8, {}):
        pass


def images_file(path: Path, n: int = 3, **attributes: Any) -> Path:
    with hdf5.Writer(Target(path.parent, {path.stem: n}, attributes)) as writer:
        writer.append(np.full((n, 64, 64), 600.0), 1.0, 1.0, 0.0, 0.0)
    return path


def test_files_of_something_else(tmp_path: Path, folder: Path):
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "train.h5").write_bytes((folder / "train.h5").read_bytes()[:3000])
    for path, message in (
        (tmp_path / "none", r"train\.h5: no such file"),
        (tmp_path / "cut", "not a readable HDF5 file"),
        (images_file(tmp_path / "rpv.h5", process="rpv"), r"holds events of process rpv, not pileup"),
        (images_file(tmp_path / "gev.h5", units="GeV"), "is 'MeV', but attribute units of all_events is 'GeV'"),
        (images_file(tmp_path / "wide.h5", eta_range=[-4.0, 4.0]), "eta_range"),
    ):
        for use in (problem().open, problem().validate):
            with pytest.raises(InputError, match=message):
                use(path, "train")
    with pytest.raises(InputError, match="make it with 'hpcgan data pileup --out"):
        problem().open(tmp_path / "none", "train")
    with pytest.raises(
        InputError, match=r"val\.h5: 120 events are too few for pileup of mu = 20, which needs 160 here"
    ):
        problem(mu=20).validate(folder, "val")


def test_damage_inside_a_pool_is_found_before_the_training(tmp_path: Path):
    write_pool(tmp_path, 200)
    with h5py.File(tmp_path / "val.h5", "a") as file:
        file["pool/energy"][17] = -1.0
    problem().validate(tmp_path, "train")
    with pytest.raises(InputError, match=r"val\.h5: pool/energy: event \d+ holds an energy of -1 MeV"):
        problem().validate(tmp_path, "val")


# --- several mu --------------------------------------------------------------------------------------------------


def test_a_list_of_mu_is_a_condition(folder: Path):
    several = problem(mu=[2, 4, 6])
    assert several.schema["mu"].role == "condition"
    assert several.conditions == ("mu",)
    assert "mu" not in problem().schema
    sample = several.open(folder, "train").read(np.arange(6))
    assert sample["mu"].ravel().tolist() == [2, 4, 6, 2, 4, 6]
    encoded = several.encode(sample)
    assert encoded["mu"].ravel().tolist() == [-1, 0, 1, -1, 0, 1]
    assert encoded["mu"].dtype == np.float32
    assert several.encode_conditions({"mu": sample["mu"][:1]})["mu"].tolist() == [-1]
    np.testing.assert_array_equal(encoded["hist"], problem().encode({"hist": sample["hist"]})["hist"])
    occupancy = several.observables(sample)["occupancy"].values
    assert occupancy[2::3].mean() > occupancy[0::3].mean()
    with pytest.raises(InputError, match="mu = 0: must be from 1 to 1000"):
        several.check_conditions({"mu": np.zeros(1)})


# --- encoding and networks ---------------------------------------------------------------------------------------


def test_decoding_undoes_encoding(folder: Path):
    pileups = problem(mu=6, intensity="pt", scale_mev=2000, exponent=1 / 3)
    sample = pileups.open(folder, "val").read(np.arange(10))
    encoded = pileups.encode(sample)
    np.testing.assert_allclose(pileups.decode(encoded)["hist"], sample["hist"], rtol=5e-6)
    # A lit pixel is no less than the threshold, and both are encoded alike.
    lit = encoded["hist"] > 0
    assert np.all((encoded["hist"] >= pileups.model.encoded_threshold * (1 - 1e-6))[lit])


@pytest.mark.parametrize("mu", [20, 140])
def test_the_unit_of_the_discriminator_follows_mu(mu: int):
    """A mean pileup counts as 27.7 whatever mu is, as a signal event in units of 100 GeV."""
    model = PileupModel(mu=mu, intensity="pt", scale_mev=2000, exponent=0.5, architecture="detector")
    image = np.zeros((64, 64))
    image[32] = mu * 17.5e3 / 64 * np.cosh(jets.image_geometry().eta[32])  # MeV of energy, 17.5 GeV of pT a collision
    encoded = PileupProblem(model).encode({"hist": image[None]})["hist"][0]
    assert np.sum(encoded**2 * model.linear_to_pt) == pytest.approx(27.7)
    rpv = RpvModel(intensity="pt", scale_mev=2000, exponent=0.5)
    assert np.sum(encoded**2 * rpv.linear_to_pt) == pytest.approx(mu * 0.175)


def test_what_is_shared_with_whole_events():
    model = problem(architecture="detector", pixel_noise=True, upsampling="nearest")
    rpv = RpvProblem(RpvModel(architecture="detector", pixel_noise=True, upsampling="nearest"))
    assert model.networks == rpv.networks
    assert model.noise_dim == rpv.noise_dim
    draws = np.random.default_rng(0).random((4, 3))
    for one, other in zip(
        model.permutations(model.symmetries, draws).values(), rpv.permutations(rpv.symmetries, draws).values()
    ):
        np.testing.assert_array_equal(one, other)


# --- observables and score ---------------------------------------------------------------------------------------


def test_observables_by_hand():
    geometry = jets.image_geometry()
    images = np.zeros((3, 64, 64), np.float32)
    images[0, 32, 10] = 50e3  # a jet of 50 GeV / cosh(eta), of a single pixel, massless
    images[0, 5, 40] = 2e3
    images[1, 20, 20], images[1, 22, 20] = 30e3, 30e3  # two pixels 2 x 5/64 apart in eta: one jet
    found = problem().observables({"hist": images})
    cosh = np.cosh(geometry.eta)
    assert found["total_pt"].values == pytest.approx([50 / cosh[32] + 2 / cosh[5], 30 / cosh[20] + 30 / cosh[22], 0.0])
    assert found["occupancy"].values.tolist() == [2, 2, 0]
    assert found["jet_multiplicity"].values.tolist() == [1, 1, 0]
    assert found["jet_pt"].values == pytest.approx([50 / cosh[32], 30 / cosh[20] + 30 / cosh[22]])
    # m^2 = 2 pT1 pT2 (cosh(delta eta) - 1)
    mass = np.sqrt(2 * 30 / cosh[20] * 30 / cosh[22] * (np.cosh(10 / 64) - 1))
    assert found["summed_jet_mass"].values == pytest.approx([0.0, mass, 0.0], abs=1e-3)


def test_the_spectrum_sees_all_pixels_whatever_the_batch():
    images = np.random.default_rng(0).uniform(600, 900, (600, 64, 64)).astype(np.float32)
    rows, columns = quantities.lattice(images)
    assert rows.shape == (600, 64)
    seen = np.bincount((64 * rows + columns).ravel(), minlength=4096)
    assert seen.min() > 0  # 9.4 times on average
    assert seen.max() < 30
    for values, steps in ((rows, 8), (columns, 1)):
        assert np.array_equal(np.diff(values[:, ::steps][:, :8], axis=1), np.full((600, 7), 8))
    whole = problem().observables({"hist": images[:20]})["pixel_pt"]
    parts = [problem().observables({"hist": part})["pixel_pt"] for part in (images[:7], images[7:20])]
    np.testing.assert_array_equal(np.concatenate([part.values for part in parts]), whole.values)
    cosh = np.cosh(jets.image_geometry().eta)
    first = images[0, rows[0], columns[0]] / cosh[rows[0]] * 1e-3
    assert whole.counts[0] == 64
    assert whole.values[:64] == pytest.approx(first, rel=1e-6)


def test_no_events_are_no_error():
    found = problem().observables({"hist": np.zeros((0, 64, 64), np.float32)})
    assert {observable.n_events for observable in found.values()} == {0}


def test_the_score_notices_what_the_null_band_allows_for(tmp_path: Path):
    """Sums of two pools lie in the band; sums with two events more, or every energy 10% larger, do not."""
    write_pool(tmp_path, 12_000, mu=20)
    several = problem(mu=20, held_out_sums=480)
    with_more = problem(mu=22, held_out_sums=480)
    sides = [several.open(tmp_path, split) for split in ("val", "test")]
    observables = [events.observables_of(several, source, np.arange(480)) for source in sides]
    assert len(np.unique(observables[0]["total_pt"].blocks)) == 12  # 2,400 events, 200 each
    band = null_band(events.join(observables), several.score, 480, repetitions=60)
    assert (band.n, band.splits.blocks) == (480, 24)
    assert several.score(*observables).total < 2 * band.p95
    more = events.observables_of(with_more, with_more.open(tmp_path, "test"), np.arange(480))
    assert several.score(observables[0], more).total > 3 * band.p95
    hotter = several.observables({"hist": sides[1].read(np.arange(480))["hist"] * np.float32(1.1)})
    assert several.score(observables[0], hotter).total > 2 * band.p95


def test_a_report_on_files(tmp_path: Path):
    """A pool against a file of generated pileup: found out by what they say, with a band of blocks."""
    write_pool(tmp_path, 1200, mu=4)
    pileups = problem(mu=4)
    with pileups.writer(tmp_path / "made.h5", 60, {}) as append:
        append(pileups.open(tmp_path, "train").read(np.arange(60)))
    lines: list[str] = []
    made = report.compare_files(
        tmp_path / "val.h5", tmp_path / "made.h5", EvaluationOptions(events=60, repetitions=20), log=lines.append
    )
    assert made.data["problem"] == "pileup"
    assert made.data["score"]["n"] == 60
    assert made.data["band"]["blocks"] == 6  # of 240 events, 40 = 10 mu each
    assert list(made.data["score"]["parts"]) == [
        *("total_pt", "occupancy", "pixel_pt", "jet_multiplicity", "summed_jet_mass", "jet_pt"),
    ]
    assert any("within 6 blocks" in notice for notice in made.data["notices"])
    assert {"jet_multiplicity", "pixel_spectrum", "images"} <= {f["name"] for f in made.data["figures"]}


def test_figures_count_soft_jets():
    events = sparse_events(40, lit=300.0)
    sample = {"hist": events.sums(np.arange(40)[:, None])}
    found = {name: figure for name, _, figure in figures_of(problem()).compare(sample, sample)}
    jets_of_pileup = found["jet_pt"].axes[1].get_xlim()
    assert jets_of_pileup[0] < 25
