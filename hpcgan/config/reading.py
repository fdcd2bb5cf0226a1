"""A configuration read from a file or a mapping: overrides, validation, and every error as one line with its key."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ValidationError

from hpcgan import yamlio
from hpcgan.config.registries import METHODS, settings_of
from hpcgan.config.schema import STARTING, Config
from hpcgan.config.training import TrainingSection
from hpcgan.errors import InputError
from hpcgan.problems.discovery import PROBLEMS
from hpcgan.suggest import choose, did_you_mean

AnyModel = TypeVar("AnyModel", bound=BaseModel)

#: What users call the types of values whose names in Python pydantic gives, by its type of error.
_WORDS = {
    **dict.fromkeys(("list_type", "tuple_type"), "input should be a list, as [A, B]"),
    **dict.fromkeys(("dict_type", "model_type"), "input should be a section of keys"),
    "path_type": "input should be a path",
}


def load(
    source: Path | str | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    where: str = "configuration",
) -> Config:
    """Read, override and validate a configuration.

    Parameters
    ----------
    source : Path, str or mapping
        YAML file, or its content as a mapping. The file's stem is the default of `name`.
    overrides : sequence of str
        `key.path=value` with YAML values.
    where : str
        What messages call a mapping.

    Raises
    ------
    InputError
        Missing or broken file, unknown key, value out of range: one line with file and key.
    """
    if isinstance(source, Mapping):
        raw: dict[str, Any] = json.loads(json.dumps(source, default=str))
        for item in overrides:
            _override(raw, item)
    else:
        where = str(source)
        raw = read(source, overrides)
    return _validate(raw, where)


def read(path: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The content of a file with overrides, not yet validated.

    Raises
    ------
    InputError
        Missing or broken file.
    """
    raw = _read_yaml(Path(path))
    if raw.get("name") is None:  # also `name:` without a value
        raw["name"] = Path(path).stem
    for item in overrides:
        _override(raw, item)
    return raw


def of_training(overrides: Sequence[str]) -> list[str]:
    """Those overrides that say what a training is, and not how it is started."""
    return [item for item in overrides if item.partition(".")[0] not in STARTING]


def schema(problem: str, method: str | None = None) -> dict[str, Any]:
    """JSON schema of the configuration of one problem, for one of its methods (default: the first)."""
    whole = Config.model_json_schema()
    problem_class = PROBLEMS.get(problem)
    method = method or problem_class.methods[0]
    for section, model in (("model", problem_class.Model), ("training", settings_of(method))):
        own = model.model_json_schema()
        whole["$defs"] = {**whole.get("$defs", {}), **own.pop("$defs", {})}
        whole["properties"][section] = own
    whole["properties"]["problem"] = {"const": problem}
    whole["properties"]["method"] = {"const": method, "default": problem_class.methods[0]}
    return whole


def validated(model: type[AnyModel], values: object, where: str, *prefix: str) -> AnyModel:
    """The whole, or the section at `prefix`, as its schema has it.

    Raises
    ------
    InputError
        One line that begins with `where`, with the key.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {_first(error, model, prefix)}") from None


def keys() -> list[str]:
    """Dotted keys of a training but for `model:`, those of each method's training among them."""
    of_training = [key for key in _keys_of(Config, "") if key.partition(".")[0] not in STARTING]
    return [*of_training, *(key for settings in METHODS.all() for key in _keys_of(settings, "training."))]


def _keys_of(model: type[BaseModel], prefix: str) -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        keys += [f"{prefix}{name}"] if inner is None else _keys_of(inner, f"{prefix}{name}.")
    return keys


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a UTF-8 text file"
        raise InputError(f"{path}: cannot read the configuration: {reason}") from None
    try:
        raw = yamlio.load(text)
    except yamlio.YamlError as error:
        line = f" line {error.line}:" if error.line else ""
        raise InputError(f"{path}:{line} not valid YAML: {error.problem}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: the configuration must be a mapping of sections, e.g. 'problem: rpv'")
    return raw


def _override(raw: dict[str, Any], item: str) -> None:
    key, equals, text = item.partition("=")
    if not equals or not key or any(not part for part in key.split(".")):
        raise InputError(f"override '{item}': write it as key=value, e.g. training.epochs=3")
    try:
        value = yamlio.load(text)
    except yamlio.YamlError:
        raise InputError(f"override '{key}': '{text}' is not a YAML value") from None
    *parents, last = key.split(".")
    node = raw
    for part in parents:
        child = node.setdefault(part, {})
        if child is None:
            child = node[part] = {}
        if not isinstance(child, dict):
            raise InputError(f"override '{key}': '{part}' is a value, not a section")
        node = child
    node[last] = value


def _validate(raw: dict[str, Any], where: str) -> Config:
    for key in raw:
        if key == "search":
            raise InputError(f"{where}: '{key}' is for 'hpcgan sweep'; a single training has nothing to search")
        if key not in Config.model_fields:
            raise InputError(f"{where}: unknown key '{key}'{choose(str(key), Config.model_fields, 'keys here')}")
    name = raw.get("problem")
    if name is None:
        raise InputError(f"{where}: 'problem' is missing; choose one of: {', '.join(PROBLEMS.names())}")
    try:
        problem = PROBLEMS.get(str(name))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    method, training_schema = _method(raw.get("method"), str(name), problem.methods, where)
    sections = {key: _model_of(field.annotation) for key, field in Config.model_fields.items()}
    for section, model in {**sections, "model": problem.Model}.items():
        if model is None or section not in raw:
            continue
        if raw[section] is None:
            raw[section] = {}
        if not isinstance(raw[section], dict):
            example = f"{section}.{next(iter(model.model_fields), 'key')}"
            raise InputError(f"{where}: '{section}' must be a section of keys, e.g. {example}")
    model_config = validated(problem.Model, raw.get("model", {}), where, "model")
    training = validated(training_schema, raw.get("training", {}), where, "training")
    config = validated(Config, {**raw, "method": method, "model": model_config, "training": training}, where)
    if len(set(config.data.augment)) < len(config.data.augment):
        raise InputError(f"{where}: data.augment: name each only once")
    for symmetry in config.data.augment:
        if symmetry not in problem.symmetries:
            choices = ", ".join(problem.symmetries) or "none"
            raise InputError(
                f"{where}: data.augment: '{symmetry}' is not a symmetry of '{name}'; choices: {choices}"
                f"{did_you_mean(symmetry, problem.symmetries)}"
            )
    with_model = problem(model_config)
    # Somebody's own method trains the networks of each problem that has those it names.
    if not set(training.networks) <= set(with_model.networks):
        if method not in problem.methods:
            raise InputError(_of_other_networks(method, str(name), problem.methods, where))
        others = [other for other in problem.methods if set(settings_of(other).networks) <= set(with_model.networks)]
        remedy = f"set method: {' or '.join(others)}, or another model" if others else "choose another model"
        raise InputError(
            f"{where}: method '{method}' trains {' and '.join(training.networks)}, but this model has "
            f"{' and '.join(with_model.networks)}: {remedy}"
        )
    _check_conditions(config, with_model, where)
    _check_quantities(config, with_model, where)
    return config


def _method(setting: Any, problem: str, of_problem: Sequence[str], where: str) -> tuple[str, type[TrainingSection]]:
    """The method that is asked for, or the problem's first one, and the schema of its settings."""
    method = of_problem[0] if setting is None else str(setting)
    try:
        settings = settings_of(method)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if METHODS.ships(method) and method not in of_problem:
        raise InputError(_of_other_networks(method, problem, of_problem, where))
    return method, settings


def _of_other_networks(method: str, problem: str, of_problem: Sequence[str], where: str) -> str:
    return (
        f"{where}: method '{method}' does not train the networks of problem '{problem}'; "
        f"choose one of: {', '.join(of_problem)}"
    )


def _check_conditions(config: Config, problem: Any, where: str) -> None:
    conditions, with_points = problem.conditions, problem.point_conditions
    choices = ", ".join(with_points) or "none"
    for i, point in enumerate(config.data.leave_out):
        for condition in point:
            if condition not in with_points:
                kind = "is not a condition"
                if condition in conditions:
                    kind = "has another value in every event"
                raise InputError(
                    f"{where}: data.leave_out.{i}: '{condition}' {kind} of '{config.problem}'; choices: {choices}"
                )
        if not point:
            raise InputError(f"{where}: data.leave_out.{i}: name at least one of: {choices}")
    if conditions and config.scoring.statistics == "batch" and getattr(config.model, "normalisation", "") != "none":
        raise InputError(
            f"{where}: scoring.statistics=batch: batch normalisation over events of one condition takes out what the "
            "condition does; use scoring.statistics=moving"
        )


def _check_quantities(config: Config, problem: Any, where: str) -> None:
    if config.scoring.quantities is None:  # else the problem is asked for its observables
        return
    quantities, names = config.scoring.quantities, problem.quantity_names
    for name in quantities:
        if name not in names:
            raise InputError(
                f"{where}: scoring.quantities: '{name}' is no quantity of '{config.problem}'; "
                f"choices: {', '.join(names)}{did_you_mean(name, names)}"
            )
    if len(set(quantities)) < len(quantities):
        raise InputError(f"{where}: scoring.quantities: name each only once")


def _first(error: ValidationError, model: type[BaseModel], prefix: Sequence[str]) -> str:
    """The first error as one line: path, what is wrong, what would be right."""
    first = error.errors()[0]
    path = (*prefix, *(str(part) for part in first["loc"]))
    dotted = ".".join(path)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        keys = _keys_at(model, [str(part) for part in first["loc"][:-1]])
        return f"unknown key '{dotted}'{choose(path[-1], keys, 'keys here')}{more}"
    if first["type"] == "missing" and isinstance(first["loc"][-1], int):
        listed = ".".join(path[:-1])
        return f"{listed}: the list is too short, it has {path[-1]} value{'' if path[-1] == '1' else 's'}{more}"
    if first["type"] == "missing":
        return f"'{dotted}' is missing{more}"
    message = _WORDS.get(first["type"], first["msg"].removeprefix("Value error, "))
    if not dotted or message.startswith(f"{dotted}."):  # of several keys, which it names
        return f"{message}{more}"
    value = first["input"]
    names = [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, str)]
    in_message = isinstance(value, dict) or any(f"'{name}'" in message for name in names)
    return f"{dotted}: {message[0].lower() + message[1:]}{'' if in_message else f', got {value!r}'}{more}"


def _keys_at(model: type[BaseModel], path: Sequence[str]) -> Sequence[str]:
    for part in path:
        field = model.model_fields.get(part)
        inner = _model_of(field.annotation) if field else None
        if inner is None:
            return ()
        model = inner
    return list(model.model_fields)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated):
        return next((m for m in map(_model_of, typing.get_args(annotation)) if m), None)
    return None
