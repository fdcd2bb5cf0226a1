"""The importers of all problems: what makes data sets from the files of other programs."""

from __future__ import annotations

import functools

from hpcgan.config.base import option_of
from hpcgan.data.importers import Importer
from hpcgan.errors import InputError
from hpcgan.plugins import load_class, loadable
from hpcgan.problems.discovery import PROBLEMS


def importers() -> list[type[Importer]]:
    """Every importer that a problem declares, those of hpcgan first; what is none is warned of and left out."""
    places = dict.fromkeys(place for problem in PROBLEMS.all() for place in problem.importers)
    keys = dict.fromkeys(("help", "out", "force"), "")
    return loadable({place: functools.partial(_importer, place, keys) for place in places})


def _importer(place: str, keys: dict[str, str]) -> type[Importer]:
    """The importer at a place; `keys` are the fields by their options, to which its own are added."""
    what = f"importer ({place})"
    importer: type[Importer] = load_class(place, what, Importer, ("title", "needs"))
    own = {option_of(key, field).flag: key for key, field in importer.model_fields.items()}
    for flag, key in own.items():
        if keys.get(flag, key) != key:
            raise InputError(f"{what}: 'hpcgan data import' has --{flag} already; give its field another name")
    keys.update(own)
    return importer
