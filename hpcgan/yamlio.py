"""YAML as it is read and written here: one reader for everything that is read.

PyYAML reads YAML 1.1, in which `2e-4` is text, `1:00:00` and `1_000` are numbers, `012` is ten, `no` is false and a
date is a date. Here plain scalars are what the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema)
says, so that they are what JSON and users take them for. Anchors and merge keys (`<<`) stay. Nothing but plain values
is made, whatever tags say; a key that is given twice, a value that holds itself, and aliases that would multiply to
more than a million values are refused. What is written is read back equal.

A leaf module: everything may import it, it imports nothing of this package but `errors`.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

_MOST = 1_000_000  # values, with those of aliases counted each time
_TAG = "tag:yaml.org,2002:"

# Tag, pattern and first characters of plain scalars, the first one that fits.
_CORE: tuple[tuple[str, str, str], ...] = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
     "-+.0123456789"),
    ("merge", r"<<", "<"),
)  # fmt: skip


class YamlError(ValueError):
    """Text that is no YAML, or none that is taken here: one line.

    Attributes
    ----------
    line : int or None
        Where, from 1.
    problem : str
        What is wrong, without the line.
    """

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(f"line {line}: {problem}" if line else problem)
        self.line = line
        self.problem = problem


def load(text: str) -> Any:
    """The value of a text: None, bool, int, float, str, and lists and dicts of these.

    Raises
    ------
    YamlError
        Not valid, a key given twice, another tag than those of the core schema.
    """
    try:
        loader = _Loader(text)  # which looks for characters that no YAML may have
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, loader)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise YamlError(" ".join(str(problem).split()), mark.line + 1 if mark else None) from None
    except RecursionError:
        raise YamlError("nested too deeply") from None


def dump(value: Any, *, flow: bool = False, width: int = 80) -> str:
    """A plain value as text, in the order that it has; `load` gives an equal one.

    Parameters
    ----------
    value : Any
        As `load` gives them; tuples become lists.
    flow : bool
        All on one line, in braces.
    width : int
        Beyond which long text is folded.
    """
    return str(
        yaml.dump(
            value, Dumper=_Dumper, sort_keys=False, default_flow_style=flow, width=float("inf") if flow else width
        )
    )


class _Loader(yaml.SafeLoader):
    """Plain values and YAML 1.2's scalars."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as PyYAML has it
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}


class _Dumper(yaml.SafeDumper):
    """What YAML 1.1 or 1.2 would take for another value is in quotes: other programs read it, too."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, _pattern, _first in _CORE:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            _TAG + _name, re.compile(f"^(?:{_pattern})$(?!\n)"), [c if c != "\0" else "" for c in _first]
        )


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    text = str(loader.construct_scalar(node))
    try:
        if node.tag == f"{_TAG}float":
            return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
        return int(text[2:], 8) if text.startswith("0o") else int(text, 16 if text.startswith("0x") else 10)
    except ValueError:
        excerpt = text if len(text) <= 40 else f"{text[:40]}..."
        raise yaml.constructor.ConstructorError(None, None, f"'{excerpt}' is no number", node.start_mark) from None


def _bool(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    text = str(loader.construct_scalar(node)).lower()
    if text not in ("true", "false"):
        raise yaml.constructor.ConstructorError(None, None, f"'{text}' is neither true nor false", node.start_mark)
    return text == "true"


def _refuse(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    tag = node.tag.replace(_TAG, "!!")
    raise yaml.constructor.ConstructorError(None, None, f"the tag {tag} is not taken here", node.start_mark)


_Loader.yaml_constructors = {
    f"{_TAG}null": yaml.SafeLoader.construct_yaml_null,
    f"{_TAG}bool": _bool,
    f"{_TAG}int": _number,
    f"{_TAG}float": _number,
    f"{_TAG}str": yaml.SafeLoader.construct_yaml_str,
    f"{_TAG}merge": yaml.SafeLoader.construct_yaml_str,
    f"{_TAG}seq": lambda loader, node: loader.construct_sequence(node, deep=True),
    f"{_TAG}map": lambda loader, node: loader.construct_mapping(node, deep=True),
    None: _refuse,
}


def _check(node: yaml.Node, loader: _Loader) -> None:
    """Refuse keys that are given twice, values that hold themselves, and aliases without bound."""
    sizes: dict[int, int | None] = {}  # by node; None: being looked at

    def size(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        key = id(node)
        if key in sizes:
            known = sizes[key]
            if known is None:
                raise yaml.constructor.ConstructorError(None, None, "a value holds itself", node.start_mark)
            return known
        sizes[key] = None
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, loader)
            inner = [child for pair in node.value for child in pair]
        else:
            inner = node.value
        total = 1 + sum(size(child) for child in inner)
        if total > _MOST:
            problem = f"aliases make more than {_MOST} values of it"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        sizes[key] = total
        return total

    size(node)


def _check_keys(node: yaml.MappingNode, loader: _Loader) -> None:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key is a list or a mapping", key_node.start_mark)
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
        seen.add(key)
