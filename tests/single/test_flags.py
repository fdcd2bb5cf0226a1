"""Sections of the configuration as options of command lines, as overrides and as keywords: one and the same."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import Annotated, Any, Literal

import pytest
import tiny
from pydantic import Field, field_validator

from hpcgan import config, yamlio
from hpcgan.commands import cli
from hpcgan.config import JobSection, ScalingSection, SweepSection, flags
from hpcgan.config.base import Option, Section, option_of
from hpcgan.errors import InputError
from hpcgan.interactive.sweep import Sweep
from hpcgan.system.parser import Parser

SECTIONS = {"job": JobSection, "sweep": SweepSection, "scaling": ScalingSection}
#: A value of each key that has not a number: as on the command line, and what it is.
TEXTS = {
    "job.time": ("2-03:00", "2-03:00"), "job.partition": ("a,b", "a,b"), "job.account": ("007", "007"),
    "job.qos": ("q", "q"), "job.reservation": ("r", "r"), "job.constraint": ("gpu&hbm", "gpu&hbm"),
    "job.mem": ("16G", "16G"), "job.nodelist": ("n[1-4]", "n[1-4]"), "job.exclude": ("n5", "n5"),
    "job.sbatch": ("--nice=5 --hold", ["--nice=5", "--hold"]), "job.site": ("a b.sh", "a b.sh"),
    "sweep.executor": ("slurm", "slurm"), "sweep.sampler": ("tpe", "tpe"), "sweep.pruner": ("median", "median"),
    "sweep.cluster": ("c.json", "c.json"),
    "scaling.ranks": ("4,1,2", [1, 2, 4]), "scaling.mode": ("strong", "strong"),
    "scaling.comm": ("mpi,horovod", ["mpi", "horovod"]), "scaling.executor": ("slurm", "slurm"),
}  # fmt: skip
KEYS = [(name, key) for name, model in SECTIONS.items() for key in model.model_fields]


def parsed(name: str, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    flags.add_flags(parser, name, SECTIONS[name])
    return parser.parse_args(words)


@pytest.mark.parametrize(("name", "key"), KEYS, ids=[f"{name}.{key}" for name, key in KEYS])
def test_an_option_an_override_and_a_keyword_are_the_same(name, key):
    model = SECTIONS[name]
    field = model.model_fields[key]
    option = f"--{option_of(key, field).flag}"
    if isinstance(field.default, bool):
        args, value = parsed(name, option), not field.default
    else:
        text, value = TEXTS.get(f"{name}.{key}", ("2", 2))
        args = parsed(name, option, text) if key != "sbatch" else parsed(name, f"{option}={text}")
    (override,) = flags.overrides_of(args)
    by_flag = getattr(tiny.config("absent", override), name)
    by_keyword = flags.section(name, model, flags.keywords_of(args, name))
    assert by_flag == by_keyword
    assert by_flag.model_dump(mode="json")[key] == value
    assert flags.as_overrides(name, by_keyword) == [override]
    assert by_flag.model_copy(update={key: field.default}) == model()


class Kinds(Section):
    """Kinds of fields that the sections of hpcgan have few of."""

    window: Annotated[tuple[float, float], Option(metavar="LOW:HIGH")] = Field((1.0, 100.0), description="100% of it")
    points: tuple[float, ...] = ()
    particle: Annotated[Literal["gamma", "eplus"] | None, Option(metavar="PARTICLE")] = None
    parts: tuple[Literal["a", "b"], ...] = ("a", "b")
    minimum: float = 0.5

    @field_validator("window", "points", "parts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return value.replace(":", ",").split(",") if isinstance(value, str) else value


def test_kinds_of_fields(capsys):
    parser = Parser(prog="x")
    flags.add_flags(parser, "kinds", Kinds)
    words = "--window 1:2 --window 3:4 --points 1 --points 2,3 --particle gamma"
    values = flags.keywords_of(parser.parse_args(words.split()), "kinds")
    assert values == {"window": [3, 4], "points": [1, 2, 3], "particle": "gamma"}
    shown = " ".join(parser.format_help().split())
    for text in ("100% of it (default: 1:100)", "(default: a,b)", "(default: 0.5)", "--particle PARTICLE"):
        assert text in shown
    for line, message in (
        ("--minimum nan", "argument --minimum: 'nan' is not a finite number"),
        ("--window 1:inf", "argument --window: 'inf' is not a finite number"),
        ("--particle muon", "argument --particle: 'muon' does not exist; choose one of: gamma, eplus"),
        ("--parts a,c", "argument --parts: 'c': give 'a' or 'b'"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(line.split())
        assert message in capsys.readouterr().err


def test_what_is_not_given_is_no_override():
    assert flags.overrides_of(parsed("job")) == []
    assert flags.as_overrides("sweep", SweepSection()) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trails": 3}, r"^unknown option 'trails'; did you mean 'trials'\?"),
        ({"xyzzy": 3}, "^unknown option 'xyzzy'; the options here are: out, trials, executor"),
        ({"trials": 0}, "^sweep.trials=0: input should be greater than or equal to 1"),
        ({"pruner": "best"}, "^sweep.pruner='best': input should be 'none', 'median' or 'halving'"),
    ],
)
def test_keywords_are_refused_by_name(values, message):
    with pytest.raises(InputError, match=message):
        flags.section("sweep", SweepSection, values, others=("out",))


def test_a_keyword_goes_before_what_was_given_together():
    section = flags.section("sweep", SweepSection, SweepSection(trials=3, seed=4), seed=5)
    assert flags.explicit_values(section) == {"trials": 3, "seed": 5}


@pytest.fixture
def search(tmp_path, monkeypatch):
    """A configuration with a search, and its sections."""
    monkeypatch.chdir(tmp_path)
    whole = tiny.config("absent").dump()
    whole |= {"search": {"model.filters": {"choice": [1, 2]}}, "sweep": {"trials": 3, "seed": 7}}
    (tmp_path / "sweep.yaml").write_text(yamlio.dump(whole))
    return whole


def trials(capsys, line: str) -> list[str]:
    """What a sweep would try."""
    assert cli.main([*shlex.split(line), "--dry-run"]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_sweep_takes_its_section_and_the_command_line_goes_before_it(search, capsys):
    by_file = trials(capsys, "sweep sweep.yaml")
    assert len(by_file) == 3
    assert trials(capsys, "sweep sweep.yaml --trials 3 --seed 7") == by_file
    assert len(trials(capsys, "sweep sweep.yaml sweep.trials=12")) == 12
    longer = trials(capsys, "sweep sweep.yaml sweep.trials=12 --trials 20")
    assert len(longer) == 20
    assert longer[:3] == by_file
    assert trials(capsys, "sweep sweep.yaml --trials 20 --seed 8") != longer
    assert len(trials(capsys, "sweep sweep.yaml sweep.sampler=grid")) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sweep.yaml sweep.trials=0", "sweep.yaml: sweep.trials: input should be greater than or equal to 1, got 0"),
        ("sweep.yaml sweep.trails=3", "sweep.yaml: unknown key 'sweep.trails'; did you mean 'trials'?"),
        ("sweep.yaml job.partition='a b'", "sweep.yaml: job.partition: not a name that Slurm knows"),
        ("sweep.yaml sweep.trials=null", "--trials is missing"),
        ("sweep.yaml --ranks 3 --ranks-per-node 2", "--ranks 3: is not --nodes times --ranks-per-node"),
        ("sweep.yaml job.ranks_per_node=2 sweep.ranks=1", "--ranks 1: is not --nodes times --ranks-per-node"),
    ],
)
def test_what_a_sweep_refuses_is_one_line_with_the_key(search, capsys, line, message):
    assert cli.main(["sweep", *shlex.split(line)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_the_section_of_a_search_is_no_part_of_what_is_searched(search):
    with pytest.raises(InputError, match="'search' is for 'hpcgan sweep'"):
        config.load("sweep.yaml")
    assert "sweep" not in tiny.config("absent", "sweep.trials=3").identity()


def test_a_sweep_started_from_python_hands_its_sections_over(search, monkeypatch):
    commands = []
    monkeypatch.setattr("hpcgan.interactive.sweep._start", lambda command, log: commands.append(command))
    monkeypatch.setattr("hpcgan.interactive.sweep.TableReader", lambda path: None)
    Sweep.start("sweep.yaml", ["training.epochs=2"], sweep={"trials": 4}, job={"threads": 2}, out="s", top=2)
    (command,) = commands
    args = cli.parse(command[command.index("sweep") :])
    raw = {key: value for key, value in search.items() if key != "search"}
    said = config.load(raw, args.overrides)
    assert (said.sweep.trials, said.sweep.seed, said.sweep.top, said.job.threads) == (4, 7, 2, 2)
    assert said.training.epochs == 2
    assert json.loads(json.dumps(args.overrides)) == args.overrides
