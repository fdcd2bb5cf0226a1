"""The one YAML reader: scalars of YAML 1.2, what is refused, and that what is written is read back equal."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from hpcgan import yamlio
from hpcgan.errors import InputError
from hpcgan.runs.directory import RunDirectory

# The tables of https://yaml.org/spec/1.2.2/#103-core-schema, and what YAML 1.1 takes for something else.
SCALARS = {
    "2e-4": 2e-4, "1e5": 1e5, "+1.5E3": 1500.0, ".5": 0.5, "-.5": -0.5, "1.": 1.0, "0.": 0.0, "-0.0": -0.0,
    "12e03": 12000.0,
    "-2E+05": -200000.0, "0o17": 15, "0x1F": 31, "010": 10, "-19": -19, "+7": 7, "0": 0, ".inf": math.inf,
    "-.Inf": -math.inf, "+.INF": math.inf, "1e400": math.inf, "true": True, "False": False, "TRUE": True, "null": None,
    "~": None, "": None, "Null": None,
    "1_000": "1_000", "1:00:00": "1:00:00", "190:20:30.15": "190:20:30.15", "0b11": "0b11", "yes": "yes", "No": "No",
    "on": "on", "off": "off", "y": "y", "2026-01-02": "2026-01-02", "2001-12-14t21:59:43.10-05:00":
    "2001-12-14t21:59:43.10-05:00", "=": "=", "e3": "e3", ".e3": ".e3", "1e": "1e", "0x": "0x", "nan": "nan",
    "inf": "inf", "tRUE": "tRUE", '"2e-4"': "2e-4", "'null'": "null", "!!str 12": "12", "!!float 3": 3.0,
}  # fmt: skip


@pytest.mark.parametrize(("text", "value"), SCALARS.items(), ids=SCALARS.keys())
def test_scalars_are_those_of_the_core_schema(text, value):
    for found in (yamlio.load(f"key: {text}")["key"], yamlio.load(f"- {text}")[0]):
        assert found == value
        assert type(found) is type(value)


def test_not_a_number_is_one():
    assert all(math.isnan(x) for x in yamlio.load("[.nan, .NaN, .NAN]"))


def test_anchors_and_merge_keys_stay():
    text = "x: &a {p: 1, s: 9}\ny: &b {<<: *a, q: 2}\nz: {<<: [*b, {r: 1}], p: 3}\n"
    assert yamlio.load(text) == {
        "x": {"p": 1, "s": 9},
        "y": {"p": 1, "s": 9, "q": 2},
        "z": {"p": 3, "s": 9, "q": 2, "r": 1},
    }


REFUSED = {
    "a: 1\nb: 2\na: 3": (3, "key 'a' is given twice"),
    "a: {b: 1, b: 2}": (1, "key 'b' is given twice"),
    "{1: a, 0x1: b}": (1, "key '1' is given twice"),
    "&a [*a]": (1, "a value holds itself"),
    "a: &a {b: *a}": (1, "a value holds itself"),
    "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    + "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)): (6, "aliases make more than"),
    "!!python/object/apply:os.system ['true']": (1, "the tag !!python/object/apply:os.system is not taken"),
    "!!timestamp 2026-01-01": (1, "the tag !!timestamp"),
    "a: !!set {x}": (1, "the tag !!set"),
    "a: !other 1": (1, "the tag !other"),
    "!!int many": (1, "'many' is no number"),
    "!!bool yes": (1, "neither true nor false"),
    "a: " + "9" * 5000: (1, "is no number"),
    "{[1]: 2}": (1, "a key is a list"),
    "a: 'x": (1, "unexpected end"),
    "a: 1\n---\nb: 2": (2, "another document"),
    "\ta: 1": (1, "cannot start any token"),
    "a: \x01": (None, "special characters"),
    "[" * 5000: (None, "nested too deeply"),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.items(), ids=[str(i) for i in range(len(REFUSED))])
def test_what_is_refused_is_said_in_one_line(text, said):
    with pytest.raises(yamlio.YamlError) as raised:
        yamlio.load(text)
    assert (raised.value.line, "\n" in str(raised.value)) == (said[0], False)
    assert said[1] in raised.value.problem


WORDS = st.sampled_from([text for text in SCALARS if text[:1] not in "\"'!"]) | st.text(max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
@example(
    {"a": "\x85\u2028 x", "b": " x ", "c": "x\n\n y\n", "d": "#", "e": "\ud800", "f": "\x00\x07", "x" * 200: "- y"}
)
@example(["\ufeff", "a: b", "%x", "---", "...", "[", "x " * 200, "\t", "\r\n", "<<", "=", "1e5"])
def test_what_is_written_is_read_back_equal(value):
    for text in (yamlio.dump(value), yamlio.dump(value, flow=True), yamlio.dump(value, width=20)):
        found = yamlio.load(text)
        assert repr(found) == repr(value)  # 1 is not 1.0, nor True
    assert yamlio.dump(value, flow=True).count("\n") <= 2


@given(WORDS)
def test_text_is_text_to_readers_of_yaml_1_1_as_well(text):
    assert yaml.safe_load(yamlio.dump({"key": text})) == {"key": text}


@given(st.text(alphabet="ab:{}[]&*!#|>'\"%@`-?,<= \n\t01.e~\x00\u2028", max_size=40))
def test_whatever_is_read_is_a_value_or_one_line(text):
    try:
        yamlio.load(text)
    except yamlio.YamlError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is right


@pytest.mark.parametrize("text", ["[1, 2", "a: 1\na: 2", "!!python/name:os.x 1", "x: \x02", "- 1", ""])
def test_a_run_whose_configuration_is_broken_says_so_in_one_line(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"config\.yaml") as raised:
        RunDirectory(tmp_path).read_config()
    assert "\n" not in str(raised.value)
