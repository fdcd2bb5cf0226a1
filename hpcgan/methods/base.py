"""What the engine asks of a method. No TensorFlow here.

A method owns the networks and optimizers of a training, the updates of a step and how samples are drawn. The engine
feeds it batches, records what it says, scores what it makes and saves its variables, and knows no network by name. A
new method is a schema of its `training:` section, which `hpcgan.config.registries` finds by name and which names a
subclass of :class:`Method`, most likely of :class:`hpcgan.methods.step.UpdateMethod`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hpcgan import plugins
from hpcgan.config import settings_of
from hpcgan.data.schema import Sample
from hpcgan.errors import InputError

if TYPE_CHECKING:
    from hpcgan.config import Config
    from hpcgan.networks.layers import Network
    from hpcgan.problems.base import Problem


#: Metrics of every method's step; see `StepResult`.
NONFINITE, ATTENTION = "nonfinite", "attention"


@dataclass(frozen=True)
class LossCurve:
    """One of the losses of a method.

    Attributes
    ----------
    name : str
        In the records of epochs, and in reports.
    metric : str
        Among the metrics of a step.
    short : str
        On a terminal.
    """

    name: str
    metric: str
    short: str


@dataclass(frozen=True)
class StepResult:
    """What a step says.

    Attributes
    ----------
    metrics : dict
        Averaged over all ranks, the same numbers everywhere. `nonfinite` is above 0 if a loss or gradient of any rank
        was not finite, `attention` if any rank has something to say; the others are the method's own.
    finite_here : bool
        False if this rank's own losses or gradients were not finite.
    """

    metrics: dict[str, float]
    finite_here: bool

    @property
    def is_finite(self) -> bool:
        """Whether losses and gradients of all ranks were finite."""
        return self.metrics[NONFINITE] <= 0 and all(math.isfinite(value) for value in self.metrics.values())


class Method(ABC):
    """Networks and optimizers of a training, and its step.

    A subclass is made with (problem, config, comm, seed, symmetries, compression): the problem, the `training:` section
    of its own schema, the other ranks, the seed of the run, `data.augment` and `comm.compression`.

    Attributes
    ----------
    networks : dict of str to Network
        All that a checkpoint has to hold; with averaging also `NAME_average` of the one that is sampled.
    optimizers : dict of str to object with `named`
        One for each network that is trained, by its name.
    losses : sequence of LossCurve
        In the order in which they are shown.
    """

    #: The network that samples are drawn from.
    sampled: ClassVar[str]
    #: Other metrics that the records of epochs have, under `probabilities`: name there to name of the metric.
    probabilities: Mapping[str, str] = {}

    networks: dict[str, Network]
    optimizers: dict[str, Any]
    losses: Sequence[LossCurve]

    @abstractmethod
    def calibrate(self, batches: Callable[[], Iterable[Sample]]) -> None:
        """Let the networks measure their constants.

        Parameters
        ----------
        batches : callable
            Gives the encoded samples of the training split, batch by batch, each time it is called.
        """

    @abstractmethod
    def draws(self, step: int, first: int, n: int) -> dict[str, np.ndarray]:
        """Random numbers of this rank's share of a step, functions of (seed, step, global sample index).

        Parameters
        ----------
        step : int
        first, n : int
            Position of the share in the global batch, and its size.
        """

    @abstractmethod
    def step(
        self,
        step: int,
        real: Sample,
        draws: Mapping[str, np.ndarray],
        *,
        learning_rates: Mapping[str, float],
        samples: int,
        attention: bool = False,
        epochs: float = 0.0,
    ) -> StepResult:
        """Take one step, on all ranks together; after it, all ranks hold the same bits.

        Parameters
        ----------
        step : int
            Number of the step, from 0.
        real : Sample
            Encoded samples of this rank.
        draws : mapping
            From `draws`.
        learning_rates : mapping
            Scheduled rate of each network that is trained.
        samples : int
            Samples seen by all ranks, this step's included.
        attention : bool
            This rank has something to say (a signal, a command); all ranks learn of it in the step's own collective.
        epochs : float
            Epochs done before the step.
        """

    @property
    @abstractmethod
    def payload_bytes(self) -> Mapping[str, int]:
        """Bytes that the collective of each network's update averages, once a step has been taken."""

    def adopt(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Begin with the weights and moving statistics of another training, and the constants that are tied to these;
        what else networks have measured stays.

        An averaged network gets those of an averaged one, or of the network itself where there was none; the other way
        round, too, of a generator that comes with the package (`hpcgan.runs.pretrained`), which has nothing else.

        Parameters
        ----------
        arrays : mapping of str to array
            By the names of a checkpoint.

        Raises
        ------
        InputError
            Networks of other variables or shapes.
        """
        from hpcgan.networks.capabilities import measured_anew

        owners = {name.split("/")[1] for name in arrays if name.startswith("network/")}
        for owner, network in self.networks.items():
            base = owner.removesuffix("_average")
            origin = next((name for name in (owner, base, f"{base}_average") if name in owners), base)
            prefix = f"network/{origin}/"
            theirs = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            measured = {variable.ref() for variable in measured_anew(network)}
            own = {name for name, variable in network.named.items() if variable.ref() in measured}
            odd = (network.named.keys() ^ theirs.keys()) - own
            if odd:
                raise InputError(f"has other networks: '{prefix}{min(odd)}' is only in one of them")
            for name, variable in network.named.items():
                if variable.ref() in measured:
                    continue
                if tuple(variable.shape) != theirs[name].shape:
                    raise InputError(f"has other networks: '{prefix}{name}' has another shape")
                variable.assign(theirs[name].astype(variable.dtype.as_numpy_dtype))

    @classmethod
    def held_out_losses(cls, network: Network, dtype: str) -> Callable[[Sample], np.ndarray] | None:
        """What tells the loss of each of some encoded samples, (n,), from the network that is sampled.

        None where a loss says nothing of how good samples are. Where it does, it is that of `losses`' only entry, and
        the settings' `has_held_out_loss` is true.
        """
        return None

    @classmethod
    def symmetries(cls, config: Config) -> tuple[str, ...]:
        """Symmetries that belong to the samples: what was trained is the distribution after them."""
        return ()


def build_network(problem: Problem, name: str, seed: int, dtype: str) -> Network:
    """Build one of the problem's networks; the weights are a function of seed and variable name."""
    build = plugins.load(problem.networks[name], f"the {name} of problem '{problem.name}'")
    network: Network = build(problem.model, seed, dtype)
    return network


def method_class(name: str) -> type[Method]:
    """The class of a method: the one that its settings name.

    Raises
    ------
    InputError
        There is no such method, or what it names cannot be imported.
    """
    cls: type[Method] = plugins.load(settings_of(name).trainer, f"the trainer of method '{name}'")
    return cls
