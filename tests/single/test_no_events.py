"""Ranks without a batch of their own: observables of no events have the shape of those of some."""

import numpy as np
import pytest

from hpcgan.metrics.observable import Observable
from hpcgan.problems.base import problem_class
from hpcgan.problems.discovery import PROBLEMS


@pytest.mark.parametrize("name", PROBLEMS.names())
def test_observables_of_no_events_go_with_those_of_some(name):
    cls = problem_class(name)
    problem = cls(cls.Model())
    rng = np.random.default_rng(1)
    one, none = (
        {k: (50.0 * rng.random((n, *spec.shape))).astype(spec.dtype) for k, spec in problem.schema.items()}
        for n in (2, 0)
    )
    some, nothing = problem.observables(one), problem.observables(none)
    assert some.keys() == nothing.keys()
    for key, observable in some.items():
        joined = Observable.concatenate([observable, nothing[key]])
        np.testing.assert_array_equal(joined.values, observable.values)
        assert len(nothing[key].values) == 0
