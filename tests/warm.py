"""Networks that are compiled once for many trainings of the same model, and are as new at the start of each.

To trace and to optimise the graphs of a step takes twice as long as all else that a training of a test does. Of tests
of what goes on around the steps, only the first one pays for it here. That a process which has compiled nothing
comes to the same bits is what those say that ask for the fixture `cold`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

#: Of the `training:` section, what the graphs do not depend on.
AROUND = ("epochs", "rollback", "schedule")


class Warm:
    """In place of what makes methods and samplers of a training."""

    def __init__(self) -> None:
        from hpcgan.training import assembly

        self._make_method, self._make_sampler = assembly.make_method, assembly.make_sampler
        self._methods: dict[str, tuple[Any, dict[str, Any], list[tuple[Any, Any]]]] = {}
        self._samplers: dict[tuple[int, int], Any] = {}
        self.cold = False

    def make_method(self, config: Any, problem: Any, comm: Any) -> Any:
        """One that was made before; what it remembers, in variables and in Python, is as it was at first."""
        import tensorflow as tf

        from hpcgan.training.state import TrainState

        if self.cold:
            return self._make_method(config, problem, comm)
        raw = config.dump()
        training = {name: value for name, value in raw["training"].items() if name not in AROUND}
        about = [raw[name] for name in ("problem", "model", "seed", "scoring")] + [raw["data"]["augment"], training]
        key = repr((about, type(comm).__name__, comm.size, tf.config.functions_run_eagerly()))
        if key not in self._methods:
            variables: list[Any] = []

            def creator(create: Any, **settings: Any) -> Any:
                variables.append(create(**settings))
                return variables[-1]

            with tf.variable_creator_scope(creator):
                made, state = self._make_method(config, problem, comm)
            plain = {name: value for name, value in vars(made).items() if isinstance(value, (bool, int, float, str))}
            self._methods[key] = made, plain, [(variable, variable.numpy()) for variable in variables]
            return made, state
        made, plain, first = self._methods[key]
        vars(made).update(plain)
        for variable, value in first:
            variable.assign(value)
        return made, TrainState(made.networks, made.optimizers)

    def make_sampler(self, config: Any, problem: Any, network: Any, batch_size: int | None = None) -> Any:
        """That of this network; it has measured nothing."""
        if self.cold:
            return self._make_sampler(config, problem, network, batch_size)
        key = id(network), batch_size or config.training.batch_size
        if key not in self._samplers:
            self._samplers[key] = self._make_sampler(config, problem, network, batch_size)
        self._samplers[key]._table = None
        return self._samplers[key]


@contextlib.contextmanager
def warm_networks() -> Iterator[Warm]:
    """Trainings in this process share what is compiled."""
    from hpcgan.training import assembly

    warm = Warm()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "make_method", warm.make_method)
        patch.setattr(assembly, "make_sampler", warm.make_sampler)
        yield warm
