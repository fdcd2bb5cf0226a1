"""A method and a comm backend of somebody's own, found by their place; nothing inside hpcgan knows them."""

import textwrap

import needs
import pytest
import tiny

tf = needs.tensorflow()

from hpcgan import config as configuration  # noqa: E402
from hpcgan.comm.select import make_comm  # noqa: E402
from hpcgan.errors import InputError  # noqa: E402
from hpcgan.methods.base import method_class  # noqa: E402
from hpcgan.runs.directory import RunDirectory  # noqa: E402
from hpcgan.training import attempt  # noqa: E402
from hpcgan.training.requests import StopRequest  # noqa: E402

METHOD = """
from typing import ClassVar

from hpcgan.config import AdamConfig, TrainingSection


class Settings(TrainingSection):
    trainer: ClassVar[str] = "own_trainer:Alternating"
    networks: ClassVar[tuple[str, ...]] = ("generator",)

    generator: AdamConfig = AdamConfig()
    brightness: float = 0.5
"""
TRAINER = """
import functools

import tensorflow as tf

from hpcgan import rng
from hpcgan.methods.base import ATTENTION, NONFINITE, LossCurve
from hpcgan.methods.step import Local, Update, UpdateMethod


class Alternating(UpdateMethod):
    sampled = "generator"
    losses = (LossCurve("brightness", "brightness", "B"),)
    metrics = ("brightness", NONFINITE, ATTENTION)

    def draws(self, step, first, n):
        return {"noise": rng.normal(self._seed, "noise", step, first, n, self._problem.noise_dim).astype("float32")}

    def updates(self, real, draws, kept, kind):
        return [Update("generator", "brightness", functools.partial(self.collect, draws), "generator")]

    def collect(self, draws):
        network = self.networks["generator"]
        with tf.GradientTape() as tape:
            image = network(draws["noise"], {}, training=True)["hist"]
            loss = tf.square(tf.reduce_mean(image) - self._training.brightness)
        return Local(tape.gradient(loss, network.weights), {"brightness": loss})
"""
COMM = """
from hpcgan.comm.base import SerialComm


class Alone(SerialComm):
    backend = "alone"
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    for name, text in (("own_method", METHOD), ("own_trainer", TRAINER), ("own_comm", COMM)):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


OWN = ["method=own_method:Settings", "comm.backend=own_comm:Alone"]


def load(data, *overrides):
    raw = {
        "problem": "rpv",
        "name": "own",
        "data": {"path": str(data)},
        "model": {"filters": 2, "latent_dim": 3},
        "training": {"epochs": 1, "batch_size": 12},
        "scoring": {"events": 20},
    }
    return configuration.load(raw, overrides)


def test_they_train(own, tmp_path):
    config = load(tiny.write_data(tmp_path / "data"), *OWN, "training.generator.learning_rate=1e-3")
    comm = make_comm(config.comm.backend)
    assert comm.backend == "alone"
    best = attempt.train(config, RunDirectory(tmp_path / "run"), comm, StopRequest())
    assert best["step"] == 5


def test_keys_of_the_method_are_checked_without_loading_what_trains(own, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "own_trainer", None)
    assert load("data", *OWN, "training.brightness=0.25").training.brightness == 0.25
    with pytest.raises(InputError, match=r"unknown key 'training\.brigthness'; did you mean 'brightness'"):
        load("data", *OWN, "training.brigthness=1")
    with pytest.raises(InputError, match=r"training\.schedule\.changes\.0\.rates: 'discriminator' is not trained"):
        load("data", *OWN, "training.schedule.changes=[{step: 1, rates: {discriminator: 1e-3}}]")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method=own_method:Nothing", "has no 'Nothing'"),
        ("method=nowhere:Settings", "there is no module 'nowhere'"),
        ("comm.backend=gloo", "comm.backend: choose one of: auto, horovod, mpi, serial, or package.module:Class"),
    ],
)
def test_what_is_not_there_is_said(own, override, message):
    with pytest.raises(InputError, match=message):
        load("data", override)


def test_a_method_of_other_networks_is_refused(own):
    with pytest.raises(InputError, match="does not train the networks of problem 'calo_layer'"):
        configuration.load({"problem": "calo_layer", "data": {"path": "x"}, "method": "own_method:Settings"})


def test_the_class_that_trains_is_the_one_that_the_settings_name(own):
    assert method_class("own_method:Settings").__name__ == "Alternating"
