"""Generators that come with the package: complete, intact, small, documented, and as good as their cards say."""

import json
from pathlib import Path

import needs
import numpy as np
import pytest

from hpcgan.commands.cli import main
from hpcgan.errors import InputError
from hpcgan.metrics.ks import ks_test
from hpcgan.runs import checkpoint, pretrained
from hpcgan.runs.directory import RunDirectory, owner_of

NAMES = pretrained.names()
SAMPLED = [
    pytest.param(name, marks=() if name in ("rpv", "conditional", "gamma") else pytest.mark.faults) for name in NAMES
]
ROOT = Path(__file__).resolve().parents[2]


def test_there_are_some_and_documents_name_them():
    page = (ROOT / "docs/generation.md").read_text()
    assert NAMES
    for name in NAMES:
        assert f"`{pretrained.PREFIX}{name}`" in page


@pytest.mark.parametrize("name", NAMES)
def test_each_is_intact_and_small_and_says_what_it_is(name):
    run, card = RunDirectory(pretrained.resolve(pretrained.PREFIX + name)), pretrained.card(name)
    assert pretrained.size(name) <= 5_000_000
    loaded = checkpoint.load_best(run.checkpoints, pytest.fail)
    assert len({array.split("/")[1] for array in loaded.arrays}) == 1  # what is sampled, no more
    assert all(np.isfinite(array).all() for array in loaded.arrays.values())
    assert card.licence == "BSD-3-Clause"
    assert (ROOT / card.recipe).is_file()
    assert card.scores[0].name == "score"
    assert run.load_config().data.path == Path("data") / run.load_config().problem
    written = "".join(path.read_text() for path in run.path.rglob("*") if path.suffix in (".yaml", ".json", ".jsonl"))
    assert "/home" not in written
    assert "/root" not in written


def test_the_command_lists_them(capsys):
    assert main(["pretrained"]) == 0
    shown = capsys.readouterr().out
    assert main(["pretrained", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)
    assert list(cards) == NAMES
    for name, card in cards.items():
        assert f"{pretrained.PREFIX}{name}  {card['title']}" in shown
        assert f"score {card['scores'][0]['value']:g} +- " in shown


def test_other_paths_are_what_they_are_and_unknown_names_are_one_line(tmp_path, capsys):
    assert pretrained.resolve("runs/rpv") == Path("runs/rpv")
    assert owner_of(Path(f"{pretrained.PREFIX}{NAMES[0]}"))[0].path == pretrained.FOLDER / NAMES[0]
    with pytest.raises(InputError, match="there is no such generator"):
        pretrained.resolve("pretrained:../../configs")
    out = ["--out", str(tmp_path / "x.h5")]
    for argv in (["generate", "pretrained:rvp", "-n", "3", *out], ["export", "pretrained:rvp", "--out", "x"]):
        assert main(argv) == 2
        assert "pretrained:rvp: there is no such generator; did you mean 'rpv'?" in capsys.readouterr().err
    for argv in (["train", "x.yaml", "--run"], ["generate", "x", "-n", "3", "--out"], ["export", "x", "--out"]):
        assert main([*argv, f"pretrained:{NAMES[0]}"]) == 2
        assert "is what comes with hpcgan, which is only read; name another" in capsys.readouterr().err
    assert main(["evaluate", f"pretrained:{NAMES[0]}"]) == 2
    assert "--out is missing: name a folder for the report" in capsys.readouterr().err


def test_a_conditional_one_knows_its_range_without_its_training_events(tmp_path, monkeypatch, capsys):
    needs.tensorflow()
    monkeypatch.chdir(tmp_path)
    argv = ["generate", "pretrained:conditional", "-n", "2", "--out", "made.h5", "--force"]
    assert main([*argv, "--condition", "mGlu=1600,mNeu=850"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert main([*argv, "--condition", "mGlu=2000,mNeu=850"]) == 0
    assert "mGlu=2000 GeV is outside the training data's 1400 to 1800" in capsys.readouterr().err
    assert main(argv) == 2
    assert "say which conditions to make, e.g. with --condition" in capsys.readouterr().err


def to_digits(values):
    """As the quantiles in the files: shares of cells are the same numbers only then."""
    return np.array([float(f"{value:.5g}") for value in values])


@pytest.mark.parametrize("name", SAMPLED)
def test_what_it_makes_is_like_real_events(name):
    """Some hundred events against quantiles of real test events: each quantity by itself, and one may be unlucky."""
    needs.tensorflow()
    import hpcgan
    from hpcgan.problems.base import problem_class

    real = json.loads((ROOT / f"tests/data/pretrained_{name}.json").read_text())
    config = RunDirectory(pretrained.FOLDER / name).load_config()
    problem = problem_class(config.problem)(config.model)
    ranges = pretrained.card(name).conditions
    anywhere = {key: np.random.default_rng(1).uniform(*ends, 384) for key, ends in ranges.items()}  # as real ones are
    sample = hpcgan.generate(f"{pretrained.PREFIX}{name}", 384, conditions=real["point"] or anywhere or None)
    observables = problem.observables(sample)
    found = {**observables, **problem.more_observables(sample, problem.more_quantities)}
    probabilities = {
        quantity: ks_test(np.array(values), to_digits(found[quantity].values))[1]
        for quantity, values in real["quantities"].items()
        # Several values of one event are no independent ones.
        if found[quantity].counts is None or found[quantity].counts.max() <= 1
    }
    assert len(probabilities) >= 6
    assert min(probabilities.values()) > 1e-5, probabilities
    assert np.median(list(probabilities.values())) > 0.02, probabilities


def test_a_training_starts_from_its_weights(tmp_path):
    needs.tensorflow()
    import tiny

    from hpcgan import config as configuration
    from hpcgan.comm.base import SerialComm
    from hpcgan.training.assembly import Assembly
    from hpcgan.training.inputs import Inputs

    raw = RunDirectory(pretrained.FOLDER / "rpv").load_config().dump()
    raw["data"]["path"] = str(tiny.write_data(tmp_path / "data"))
    settings = configuration.load(raw, ["training.start_from=pretrained:rpv", "training.batch_size=8"])
    with Inputs.open(settings) as inputs:
        inputs.check(RunDirectory(tmp_path / "run"))
        assembly = Assembly.of(settings, SerialComm(), inputs)
        origin = assembly.begin()
    assert origin is not None
    assert origin.is_relative_to(pretrained.FOLDER / "rpv")
    arrays, network = checkpoint.load(origin).arrays, assembly.method.networks["density"]
    of_energy = {variable.ref() for variable in network.total.constants}  # of these events; all else is theirs
    for name, variable in network.named.items():
        if variable.ref() not in of_energy:
            np.testing.assert_array_equal(variable.numpy(), arrays[f"network/density_average/{name}"], err_msg=name)
