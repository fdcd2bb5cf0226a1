"""Pileup drawn on the fly: which events, how many, and from where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pools import dense, write_pool

from hpcgan.data.source import Dependent
from hpcgan.data.storage import Target
from hpcgan.errors import InputError
from hpcgan.physics.pileup import SparseImages
from hpcgan.problems.detector_images.source import ImageSource
from hpcgan.problems.pileup import source as module
from hpcgan.problems.pileup.source import SumSource


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pool")
    write_pool(path, 400)
    return path


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pools whose event i has the energy 2^(i % 20) MeV in pixel i // 20: a sum says which events are in it."""
    path = tmp_path_factory.mktemp("tagged")
    events = np.arange(400)
    with module.files.Writer(Target(path, {"train": 400, "test": 400}, {})) as writer:
        for _ in range(2):
            writer.append(
                SparseImages(
                    np.arange(401), (events // 20).astype(np.uint16), (2.0 ** (events % 20)).astype(np.float32)
                )
            )
    return path


def members(images: np.ndarray) -> list[list[int]]:
    """The events in each sum of tagged ones; an event taken twice would carry over to the next."""
    found = []
    for image in images.reshape(len(images), -1):
        bits = image[:20].astype(np.int64)
        found.append([20 * pixel + bit for pixel in range(20) for bit in range(21) if bits[pixel] >> bit & 1])
    return found


def test_a_sum_has_mu_different_events_of_its_pool(tagged: Path):
    source = SumSource(tagged / "train.h5", [7], 50, seed=1)
    drawn = members(source.read(np.arange(50))["hist"])
    assert all(len(events) == 7 for events in drawn)
    assert max(max(events) for events in drawn) < 400
    assert len({tuple(events) for events in drawn}) == 50
    assert len(np.unique(np.concatenate(drawn))) > 150  # of 350 draws from 400, 233 are expected to differ


def test_a_sum_is_the_sum_of_its_events(folder: Path):
    """Against dense images and a loop, with the events found from the same random numbers."""
    source = SumSource(folder / "train.h5", [5], 20, seed=3)
    with module.files.open_pool(folder / "train.h5") as file:
        images = dense(file.read()).astype(np.float64)
    indices = np.array([4, 19, 0])
    found = source.read(indices, epoch=2)["hist"]
    for image, index in zip(found, indices.tolist(), strict=True):
        uniforms = module.rng.uniform(3, "pileup", 2, index, 1, 5)
        events = module.rng.subsets(uniforms, np.array([5]), np.array([240]))[0]
        expected = np.zeros((64, 64))
        for event in events:
            expected += images[event]
        np.testing.assert_array_equal(image, expected.astype(np.float32))


@given(st.lists(st.integers(0, 99), min_size=1, max_size=12), st.integers(0, 5), st.booleans())
def test_a_sum_depends_on_seed_epoch_and_index_only(indices: list[int], epoch: int, poisson: bool):
    path = test_a_sum_depends_on_seed_epoch_and_index_only.folder / "train.h5"  # type: ignore[attr-defined]
    counting = "poisson" if poisson else "fixed"
    batch = SumSource(path, [3], 100, 1, counting).read(np.array(indices), epoch)["hist"]
    other = SumSource(path, [3], 100, 1, counting)
    for image, index in zip(batch, indices, strict=True):
        np.testing.assert_array_equal(other.read(np.array([index]), epoch)["hist"][0], image)


@pytest.fixture(autouse=True)
def _folder_for_properties(folder: Path) -> None:
    test_a_sum_depends_on_seed_epoch_and_index_only.folder = folder  # type: ignore[attr-defined]


def test_training_sums_are_new_in_each_epoch_and_held_out_ones_never(folder: Path):
    some = np.arange(6)
    training = SumSource(folder / "train.h5", [3], 100, 1)
    assert not np.array_equal(training.read(some, 0)["hist"], training.read(some, 1)["hist"])
    np.testing.assert_array_equal(training.read(some)["hist"], training.read(some, 0)["hist"])
    held_out = SumSource(folder / "test.h5", [3], 100, 1, held_out=True)
    np.testing.assert_array_equal(held_out.read(some, 0)["hist"], held_out.read(some, 9)["hist"])
    other = SumSource(folder / "test.h5", [3], 100, 2, held_out=True)
    assert not np.array_equal(held_out.read(some)["hist"], other.read(some)["hist"])


def test_held_out_sums_of_different_blocks_share_no_event(tagged: Path):
    source = SumSource(tagged / "test.h5", [4], 60, 1, held_out=True)
    assert isinstance(source, Dependent)
    assert not issubclass(ImageSource, Dependent)
    assert source.n_blocks == 10  # of 400 events, 40 = 10 mu each
    indices = np.arange(60)
    drawn, blocks = members(source.read(indices)["hist"]), source.blocks(indices)
    assert blocks.tolist() == (indices % 10).tolist()
    for events, block in zip(drawn, blocks.tolist(), strict=True):
        assert len(events) == 4
        assert {event // 40 for event in events} == {block}


@pytest.mark.parametrize(
    ("mu", "most", "blocks"), [(1, 32, 32), (4, 32, 10), (4, 6, 6), (20, 32, 4), (50, 32, 4), (50, 2, 2)]
)
def test_how_many_blocks(tagged: Path, mu: int, most: int, blocks: int):
    source = SumSource(tagged / "test.h5", [mu], 60, 1, held_out=True, most_blocks=most)
    assert source.n_blocks == blocks
    assert len(members(source.read(np.array([0]))["hist"])[0]) == mu


def test_pools_that_are_too_small(tagged: Path):
    with pytest.raises(
        InputError, match=r"test\.h5: 400 events are too few for pileup of mu = 51, which needs 408 here"
    ):
        SumSource(tagged / "test.h5", [51], 10, 1, held_out=True)
    SumSource(tagged / "train.h5", [200], 10, 1)
    with pytest.raises(InputError, match="too few for pileup of mu = 201, which needs 402"):
        SumSource(tagged / "train.h5", [201], 10, 1)
    with pytest.raises(InputError, match="too few"):
        SumSource(tagged / "train.h5", [150], 10, 1, "poisson")


def test_poisson_numbers(tagged: Path):
    """Mean and variance are mu, and 1, 2 and 3 events come as often as the distribution says."""
    n, mu = 4000, 3
    source = SumSource(tagged / "train.h5", [mu], n, 1, "poisson")
    counts = np.array([len(events) for events in members(source.read(np.arange(n))["hist"])])
    assert counts.mean() == pytest.approx(mu, abs=4 * np.sqrt(mu / n))
    assert counts.var() == pytest.approx(mu, abs=4 * mu * np.sqrt(2.5 / n))
    for k, p in ((0, 0.0498), (1, 0.1494), (2, 0.2240), (3, 0.2240)):
        assert np.mean(counts == k) == pytest.approx(p, abs=4 * np.sqrt(p / n))


@pytest.mark.parametrize("mu", [1, 20, 140, 1000])
def test_poisson_tables(mu: int):
    table = module._poisson_table(mu)
    p = np.diff(table, prepend=0.0)
    k = np.arange(len(p))
    assert table[-1] == 1.0
    assert np.sum(k * p) == pytest.approx(mu, rel=1e-8)
    assert np.sum((k - mu) ** 2 * p) == pytest.approx(mu, rel=1e-7)


def test_several_numbers_take_turns(tagged: Path):
    source = SumSource(tagged / "test.h5", [2, 5], 40, 1, held_out=True)
    indices = np.array([0, 1, 2, 17, 38])
    sample = source.read(indices)
    assert sample["mu"].tolist() == [2.0, 5.0, 2.0, 5.0, 2.0]
    assert source.conditions()["mu"].tolist() == [2.0, 5.0] * 20
    assert sample["mu"].dtype == np.float32
    assert [len(events) for events in members(sample["hist"])] == [2, 5, 2, 5, 2]
    # Each block has sums of all numbers.
    blocks = source.blocks(np.arange(40))
    assert {tuple(np.bincount(blocks[kind::2], minlength=8)) for kind in (0, 1)} == {(3, 3, 3, 3, 2, 2, 2, 2)}


def test_a_closed_source(folder: Path):
    source = SumSource(folder / "train.h5", [3], 10, 1)
    source.read(np.array([0]))
    source.close()
    source.close()
    with pytest.raises(ValueError, match="after it was closed"):
        source.read(np.array([0]))
