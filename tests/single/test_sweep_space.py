"""The search space: what can be written, what is drawn, and that what is wrong is said in one line."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import sweeps
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hpcgan.errors import InputError
from hpcgan.sweep import space as spaces
from hpcgan.sweep import study


def parsed(search, *overrides):
    return spaces.parse(search, sweeps.base(*overrides), "sweep.yaml")


def test_a_draw_is_a_function_of_seed_number_and_key():
    whole, part = sweeps.space(), sweeps.space({k: v for k, v in sweeps.SEARCH.items() if "filters" not in k})
    for index in (0, 1, 31, 10_000):
        drawn = whole.draw(7, index)
        assert drawn == whole.draw(7, index)
        assert {k: v for k, v in drawn.items() if k != "model.filters"} == part.draw(7, index)
    assert whole.draw(7, 0) != whole.draw(8, 0)
    assert len({str(whole.draw(7, index)) for index in range(200)}) == 200


def test_known_draws_stay():
    """These numbers are those of studies that exist; another way to draw would not go on with them."""
    assert sweeps.space().draw(1, 0) == KNOWN[0]
    assert sweeps.space().draw(1, 1) == KNOWN[1]


KNOWN = [
    {
        "training.generator.learning_rate": pytest.approx(0.00021293385369159856, rel=1e-12),
        "training.label_flip": pytest.approx(0.07571293986912447, rel=1e-12),
        "model.filters": 3,
        "model.latent_dim": 4,
    },
    {
        "training.generator.learning_rate": pytest.approx(0.00024206062369578867, rel=1e-12),
        "training.label_flip": pytest.approx(0.12212718919238615, rel=1e-12),
        "model.filters": 3,
        "model.latent_dim": 3,
    },
]


def test_draws_have_the_distribution_they_are_asked_for():
    space = sweeps.space()
    drawn = [space.draw(3, index) for index in range(4000)]
    rates = [math.log10(d["training.generator.learning_rate"]) for d in drawn]
    assert -5 <= min(rates) < -4.99
    assert -2.01 < max(rates) <= -2
    assert sum(rates) / len(rates) == pytest.approx(-3.5, abs=0.05)  # standard error 0.014
    flips = [d["training.label_flip"] for d in drawn]
    assert sum(flips) / len(flips) == pytest.approx(0.1, abs=0.004)  # standard error 0.0009
    for key, values in (("model.filters", [1, 2, 3]), ("model.latent_dim", [2, 3, 4, 5])):
        counts = Counter(d[key] for d in drawn)
        assert sorted(counts) == values
        for count in counts.values():
            assert count == pytest.approx(4000 / len(values), rel=0.1)


def test_integers_on_a_logarithmic_scale_are_even_on_it():
    space = parsed({"model.filters": {"int": [4, 32], "log": True}})
    counts = Counter(space.draw(1, index)["model.filters"] for index in range(8000))
    assert (min(counts), max(counts)) == (4, 32)
    expected = 8000 * math.log(8.5 / 3.5) / math.log(32.5 / 3.5)  # 4 ... 8
    assert sum(n for value, n in counts.items() if value <= 8) == pytest.approx(expected, rel=0.05)


def test_steps_end_inside_the_range():
    space = parsed({"model.latent_dim": {"int": [4, 15], "step": 4}})
    assert {space.draw(1, index)["model.latent_dim"] for index in range(100)} == {4, 8, 12}
    assert space.dump() == {"model.latent_dim": {"int": [4, 12], "step": 4}}


def test_a_condition_looks_at_the_value_that_the_trial_has():
    search = {
        "training.r1.weight": {"log_uniform": [0.01, 1.0], "when": {"model.filters": [2, 3]}},
        "model.filters": {"choice": [1, 2, 3]},
        "model.latent_dim": {"choice": [2, 5], "when": {"training.batch_size": 4}},
    }
    space = parsed(search)
    for index in range(50):
        drawn = space.draw(1, index)
        assert ("training.r1.weight" in drawn) == (drawn["model.filters"] > 1)
        assert "model.latent_dim" in drawn  # the tiny configuration has batches of 4


def test_a_grid_has_every_combination_once_and_leaves_out_what_is_off():
    space = parsed(
        {
            "model.filters": {"choice": [1, 2]},
            "training.label_flip": {"uniform": [0.0, 0.2], "points": 3, "when": {"model.filters": 2}},
            "model.latent_dim": {"int": [2, 3]},
        }
    )
    assert space.grid() == [
        {"model.filters": 1, "model.latent_dim": 2},
        {"model.filters": 1, "model.latent_dim": 3},
        *(
            {"model.filters": 2, "training.label_flip": flip, "model.latent_dim": latent}
            for flip in (0.0, 0.1, 0.2)
            for latent in (2, 3)
        ),
    ]


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ({"log_uniform": [1e-4, 1e-2], "points": 3}, [1e-4, 1e-3, 1e-2]),
        ({"uniform": [1.0, 2.0], "points": 1}, [1.5]),
    ],
)
def test_points_of_a_range(entry, values):
    assert [p["training.r1.weight"] for p in parsed({"training.r1.weight": entry}).grid()] == pytest.approx(values)


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ({"int": [2, 32], "log": True, "points": 5}, [2, 4, 8, 16, 32]),
        ({"int": [1, 9], "points": 3}, [1, 5, 9]),
        ({"int": [1, 9], "step": 4}, [1, 5, 9]),
        ({"choice": [8, 2]}, [8, 2]),
    ],
)
def test_points_of_integers(entry, values):
    assert [p["model.filters"] for p in parsed({"model.filters": entry}).grid()] == values


def test_a_trial_has_the_configuration_with_its_values():
    space = sweeps.space()
    params = space.draw(1, 0)
    config = space.config(params, 77)
    assert config.seed == 77
    assert config.model.filters == params["model.filters"]
    assert config.training.generator.learning_rate == params["training.generator.learning_rate"]
    assert config.training.discriminator == space.base.training.discriminator


def test_sections_may_be_nested_as_in_the_rest_of_the_file():
    flat = parsed({"training.generator.learning_rate": {"uniform": [0.1, 0.2]}, "model.filters": {"choice": [1, 2]}})
    nested = parsed(
        {
            "training": {"generator": {"learning_rate": {"uniform": [0.1, 0.2]}}},
            "model": {"filters": {"choice": [1, 2]}},
        }
    )
    assert nested.dump() == flat.dump()


RATE = "training.generator.learning_rate"


@pytest.mark.parametrize("number", ["2e-4", "+2E-4", "0.2e-3", ".0002", '"2e-4"', "'0.0002'"])
def test_numbers_are_numbers_however_they_are_written(tmp_path, number):
    path = tmp_path / "s.yaml"
    path.write_text(
        f"problem: rpv\ndata: {{path: data}}\nsearch:\n"
        f"  {RATE}: {{choice: [1e-4, {number}]}}\n"
        f"  model.filters: {{choice: [2, 3], when: {{{RATE}: {number}}}}}\n"
        f"  training.discriminator.learning_rate: {{log_uniform: [1e-5, {number}]}}\n"
    )
    _, space = study.load(path, [f"search.model.latent_dim={{choice: [8, 16], when: {{{RATE}: [{number}]}}}}"])
    by_key = {d.key: d for d in space.dimensions}
    assert by_key[RATE].values == (1e-4, 2e-4)
    assert by_key["training.discriminator.learning_rate"].values == (1e-5, 2e-4)
    drawn = [space.draw(1, index) for index in range(20)]
    assert {d[RATE] for d in drawn} == {1e-4, 2e-4}
    assert all(("model.filters" in d) == ("model.latent_dim" in d) == (d[RATE] == 2e-4) for d in drawn)
    assert all(isinstance(space.config(d, 1).training.generator.learning_rate, float) for d in drawn)


def test_choices_are_what_the_configuration_makes_of_them():
    space = parsed(
        {
            "model.filters": {"choice": ["2", 3.0]},
            RATE: {"choice": [1, "1e-3"]},
            "training.r1": {"choice": [{"weight": "1e-2"}, {"weight": 1}]},
            "training.label_flip": {"uniform": [0, 0.1], "when": {RATE: "0.001", "model.filters": "3"}},
        }
    )
    assert [repr(d.values) for d in space.dimensions] == [
        "(2, 3)", "(1.0, 0.001)", "({'weight': 0.01}, {'weight': 1.0})", "(0.0, 0.1)",
    ]  # fmt: skip
    assert space.dimensions[-1].when == {RATE: (0.001,), "model.filters": (3,)}


FIXED = "search it as well, or leave the dimension out"
NEVER = {
    "not among the choices": ({"model.filters": {"choice": [1, 2]}}, {"model.filters": 3}, "is never 3"),
    "one of a list": ({"model.filters": {"choice": [1, 2]}}, {"model.filters": [2, 3]}, "'model.filters' is never 3"),
    "out of the range": ({"model.filters": {"int": [1, 4]}}, {"model.filters": 5}, "'model.filters' is never 5"),
    "between steps": ({"model.filters": {"int": [1, 5], "step": 2}}, {"model.filters": 2}, "is never 2"),
    "a real number": ({RATE: {"uniform": [1e-4, 1e-3]}}, {RATE: 2e-4}, "none comes twice"),
    "between points": ({RATE: {"uniform": [0.1, 0.3], "points": 3}}, {RATE: 0.15}, "never 0.15"),
    "fixed": ({}, {"training.batch_size": 5}, FIXED),
    "no value of the key": ({}, {"model.architecture": "cubist"}, "is never true: model.architecture"),
    "not together": (
        {"model.filters": {"choice": [1, 2]}, RATE: {"choice": [0.1, 0.2], "when": {"model.filters": 1}}},
        {"model.filters": 2, RATE: 0.2},
        "never have these values together",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("parents", "when", "message"), NEVER.values(), ids=NEVER.keys())
def test_a_condition_that_is_never_true_is_refused(parents, when, message):
    search = {**parents, "training.label_flip": {"uniform": [0.0, 0.1], "when": when}}
    with pytest.raises(InputError) as raised:
        parsed(search)
    said = str(raised.value)
    assert said.startswith("sweep.yaml: search.training.label_flip.when")
    assert "is never true" in said
    assert message in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("parents", "when"),
    [
        ({RATE: {"uniform": [0.1, 0.3], "points": 3}}, {RATE: 0.2}),
        ({"model.filters": {"int": [1, 5], "step": 2}}, {"model.filters": [3, 5]}),
        ({"model.filters": {"int": [1, 64], "log": True}}, {"model.filters": 17}),
        ({}, {"training.batch_size": [4, 5]}),
        # A key that is itself searched under a condition has the configuration's value otherwise.
        ({"model.filters": {"choice": [5, 6], "when": {"training.batch_size": 4}}}, {"model.filters": 6}),
        (
            {
                "model.latent_dim": {"choice": [3, 4]},
                "model.filters": {"choice": [5, 6], "when": {"model.latent_dim": 4}},
            },
            {"model.filters": 2},
        ),
    ],
)
def test_a_condition_that_can_be_true_is_taken(parents, when):
    space = parsed({**parents, "training.label_flip": {"uniform": [0.0, 0.1], "when": when}})
    assert space.dimensions[-1].key == "training.label_flip"


def test_lists_can_be_choices():
    space = parsed({"data.augment": {"choice": [[], ["eta_reflection"]]}})
    assert {space.config(space.draw(1, i), 1).data.augment for i in range(20)} == {(), ("eta_reflection",)}


BAD = {
    "not a section": (["a"], "'search' must be a section of keys"),
    "empty": ({}, "'search' must be a section of keys"),
    "unknown key": ({"model.filtres": {"choice": [1]}}, "model.filtres: unknown key; did you mean 'model.filters'"),
    "unknown section": ({"modl.filters": {"choice": [1]}}, "did you mean 'model.filters'"),
    "a section": ({"model": {"choice": [1]}}, "search: 'model' must be a section"),
    "no dimension": ({"model.filters": 3}, "search.model.filters: write one of choice"),
    "unknown kind": ({"model.filters": {"chioce": [1, 2]}}, "unknown word 'chioce'; did you mean 'choice'"),
    "two kinds": ({"model.filters": {"choice": [1], "int": [1, 2]}}, "not choice and int"),
    "no kind": ({"model.filters": {"log": True}}, "give one of choice"),
    "empty choice": ({"model.filters": {"choice": []}}, "search.model.filters.choice: an empty range"),
    "twice": ({"model.filters": {"choice": [1, 2, 1]}}, "1 is given twice"),
    "empty range": ({"training.label_flip": {"uniform": [0.2, 0.2]}}, "range from 0.2 to 0.2 is empty"),
    "reversed": ({"model.filters": {"int": [8, 4]}}, "range from 8 to 4 is empty"),
    "one end": ({"model.filters": {"int": [8]}}, "give the two ends"),
    "no number": ({"model.filters": {"int": [1, "many"]}}, "'many' is not a number"),
    "nan": ({"training.label_flip": {"uniform": [0.0, float("nan")]}}, "nan is not a number"),
    "true": ({"model.filters": {"int": [True, 4]}}, "True is not a number"),
    "fraction": ({"model.filters": {"int": [1.5, 4]}}, "1.5 is not a whole number"),
    "log of zero": ({"training.label_flip": {"log_uniform": [0.0, 0.1]}}, "begins above zero"),
    "log int of zero": ({"model.filters": {"int": [0, 4], "log": True}}, "begins above zero"),
    "log and step": ({"model.filters": {"int": [1, 8], "log": True, "step": 2}}, "'step' does not go with 'log'"),
    "long step": ({"model.filters": {"int": [1, 8], "step": 9}}, "leaves one value"),
    "step of a float": ({"training.label_flip": {"uniform": [0, 0.1], "step": 1}}, "'step' does not go with 'uniform'"),
    "bad points": ({"training.label_flip": {"uniform": [0, 0.1], "points": 0}}, "points: a whole number above zero"),
    "bad log": ({"model.filters": {"int": [1, 8], "log": "yes"}}, "log: true or false"),
    "twice in other words": ({RATE: {"choice": [1e-3, "0.001"]}}, "0.001 is given twice"),
    "no whole numbers": ({"model.filters": {"uniform": [2, 4]}}, "takes whole numbers here; write int"),
    "too large a rate": ({RATE: {"choice": [1e-3, 2]}}, "learning_rate: input should be less than or equal to 1"),
    "refused value": ({"training.label_flip": {"uniform": [0.0, 1.5]}}, "training.label_flip: input should be less"),
    "refused choice": ({"model.architecture": {"choice": ["dcgan", "cubist"]}}, "model.architecture"),
    "unknown condition": ({"model.filters": {"int": [1, 2], "when": {"model.arch": 1}}}, "model.arch: unknown key"),
    "own condition": ({"model.filters": {"int": [1, 2], "when": {"model.filters": 1}}}, "on the key itself"),
    "no condition": ({"model.filters": {"int": [1, 2], "when": []}}, "keys and the values they must have"),
    "circle": (
        {
            "model.filters": {"int": [1, 2], "when": {"model.latent_dim": 2}},
            "model.latent_dim": {"int": [1, 2], "when": {"model.filters": 2}},
        },
        "go round in a circle",
    ),
    "name": ({"name": {"choice": ["a", "b"]}}, "'name' cannot be searched"),
    "seed": ({"seed": {"int": [1, 2]}}, "trials have seeds of their own"),
    "quantities": (
        {"scoring.quantities": {"choice": [["jet_pt"], ["occupancy"]]}},
        "cannot be searched; all trials are compared by the same quantities",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("search", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_said_in_one_line_with_file_and_key(search, message):
    with pytest.raises(InputError) as raised:
        parsed(search)
    assert message in str(raised.value)
    assert str(raised.value).startswith("sweep.yaml: ")
    assert "\n" not in str(raised.value)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*spaces.KINDS, "when", "log", "step", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["model.filters", "model.latent_dim", "training.label_flip", "training", "model", "nope", "seed"]
)


@given(st.dictionaries(KEYS, ANYTHING, max_size=3) | ANYTHING)
def test_whatever_is_written_is_a_space_or_one_line(raw):
    said = ""
    try:
        space = parsed(raw)
    except InputError as error:
        said = str(error)
    if said:
        assert said.startswith("sweep.yaml: ")
        assert "\n" not in said
        return
    for index in range(3):
        space.config(space.draw(1, index), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": None}, "'search' must be a section"),
        ({"scoring": {"every_epochs": 0}}, "scoring.every_epochs: 0, but a study chooses by the score"),
    ],
)
def test_files_that_are_no_study(tmp_path, changes, message):
    raw = {"problem": "rpv", "data": {"path": "data"}, "search": {"model.filters": {"choice": [1, 2]}}, **changes}
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(InputError, match=message):
        study.load(path)


def test_overrides_change_the_space_as_well(tmp_path):
    path = tmp_path / "s.yaml"
    raw = {"problem": "rpv", "data": {"path": "data"}, "search": {"model.filters": {"choice": [1, 2]}}}
    path.write_text(yaml.safe_dump(raw))
    base, space = study.load(
        path,
        ["search.model.latent_dim={int: [2, 4]}", "training.epochs=7", "search.model.filters={choice: [8]}"],
    )
    assert base.training.epochs == 7
    assert space.dump() == {"model.latent_dim": {"int": [2, 4]}, "model.filters": {"choice": [8]}}
    with pytest.raises(InputError, match="must be a section"):
        study.load(path, ["search.model.filters=null"])
    with pytest.raises(InputError, match=r"write it as search.key="):
        study.load(path, ["search.model.filters=3"])


def test_a_file_without_a_search_says_so(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({"problem": "rpv", "data": {"path": "data"}}))
    with pytest.raises(InputError, match="has no section 'search'"):
        study.load(path)
