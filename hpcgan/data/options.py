"""Options of `hpcgan data` that a problem declares: the fields of a model."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, model_validator

from hpcgan.errors import InputError


class Options(BaseModel):
    """Base of the options of a generator or an importer.

    Each field is an option of the command line: `pt_hat_min` is `--pt-hat-min`. A tuple of any length is an option that
    may be repeated, and a `Literal` a choice. The field's `description` is its help, and the `metavar` of its
    `json_schema_extra` stands for its value there. Values come as the texts of the command line, or as
    Python values. A validator may raise InputError itself, with a message of its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="wrap")
    @classmethod
    def _errors_are_one_line(cls, values: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            message = first["msg"][0].lower() + first["msg"][1:]
            value = "" if first["type"] == "missing" else f" = {_short(first['input'])}"
            raise InputError(f"{name}{value}: {message}") from None


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
