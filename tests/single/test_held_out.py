"""The loss of held-out events: means by hand, batches that are cut alike, what selects epochs and what may not."""

import math

import numpy as np
import pytest

from hpcgan import config as configuration
from hpcgan.comm.base import SerialComm
from hpcgan.errors import InputError
from hpcgan.evaluation import held_out
from hpcgan.runs.records import Epoch, EpochScore, HeldOut


class Problem:
    """Encodes by halving."""

    def encode(self, sample):
        return {name: values / 2 for name, values in sample.items()}


class Source:
    """Events with the values 0, 2, 4, ..."""

    path = "events.h5"

    def __init__(self, n, weights=None):
        self._n, self._weights = n, weights

    def __len__(self):
        return self._n

    def read(self, indices):
        return {"x": 2.0 * indices}

    def weights(self):
        return self._weights


def losses_of(sizes):
    """Encoded values themselves; the sizes of batches are noted."""

    def losses(sample):
        sizes.append(len(sample["x"]))
        return sample["x"].astype(np.float32)

    return losses


@pytest.mark.parametrize(("events", "n", "used"), [(20, 50, 20), (20, 13, 13), (7, 50, 7)])
def test_the_mean_is_over_the_first_events_in_batches_of_one_size(events, n, used):
    sizes = []
    found = held_out.measure("nll", losses_of(sizes), Problem(), Source(n), SerialComm(), events, 8)
    assert sizes == [8] * -(-used // 8)
    values = np.arange(used)
    assert (found.loss, found.n) == ("nll", used)
    assert found.mean == values.mean()
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(used))


def test_weights_count():
    weights = np.array([1.0, 2.0, 0.0, 1.0, 5.0])  # the fifth is beyond those that are asked for
    found = held_out.measure("nll", losses_of([]), Problem(), Source(5, weights), SerialComm(), 4, 8)
    assert found.mean == (0 + 2 * 1 + 0 + 3) / 4
    squares = 1 * 1.25**2 + 4 * 0.25**2 + 1 * 1.75**2
    assert found.error == pytest.approx(math.sqrt(squares) / 4 * math.sqrt(4 / 3))


def test_a_loss_that_is_no_number_is_none_on_every_rank():
    found = held_out.measure(
        "nll", lambda sample: np.full(len(sample["x"]), np.inf), Problem(), Source(9), SerialComm(), 9, 4
    )
    assert math.isnan(found.mean)


def test_epochs_are_compared_by_it_where_the_configuration_says_so():
    record = {"step": 1, "epoch": 1, "score": EpochScore(3.0), "held_out": HeldOut("nll", -7.0, 0.1, 20)}
    assert Epoch(**record).deciding == 3.0
    by_loss = Epoch(**record, selected_by="held_out")
    assert by_loss.deciding == -7.0
    assert Epoch(step=1, epoch=1, score=EpochScore(3.0), selected_by="held_out").deciding is None
    lost = {**record, "held_out": HeldOut("nll", math.nan, math.nan, 20)}
    assert Epoch(**lost, selected_by="held_out").deciding is None


@pytest.mark.parametrize(
    ("problem", "overrides", "message"),
    [
        ("rpv", [], "scoring.select_by=held_out: method gan has no loss that says how good samples are; use score"),
        ("calo_layer", ["scoring.quantities=[energy]"], "scoring.quantities exclude one another"),
        ("calo_layer", ["training.rollback.score_factor=3"], "training.rollback.score_factor is a ratio of scores"),
    ],
)
def test_what_has_no_such_loss_is_refused(problem, overrides, message):
    with pytest.raises(InputError, match=message) as error:
        configuration.load({"problem": problem, "data": {"path": "x"}}, ["scoring.select_by=held_out", *overrides])
    assert "\n" not in str(error.value)
