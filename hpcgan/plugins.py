"""Classes by name, from this package and from others: how a configuration's words find their code.

A name is one of those that ship with hpcgan, one that an installed package declares as an entry point, or the place of
a class, `package.module:Class`. Configurations are read by every rank, job, trial and engine, so each finds the same
class by itself, and nothing has to be registered in a process.

A leaf module: it imports nothing of this package but errors.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import EntryPoint
from typing import Any

from hpcgan.errors import InputError
from hpcgan.suggest import did_you_mean


class Plugins:
    """The classes of one kind.

    Parameters
    ----------
    group : str
        Group of the entry points, such as `hpcgan.problems`.
    noun : str
        What messages call one of them; it is also the key of the configuration.
    shipped : mapping of str to str
        Those of hpcgan itself, `name: "module:Class"`. They are entry points written down in the code, so that a
        checkout on `PYTHONPATH`, which has no metadata, has them as well.
    is_one : callable(class) -> bool
        Whether something is a class of this kind.
    fault : callable(class) -> str
        What is wrong with a class of this kind, "" where nothing is.
    """

    def __init__(
        self,
        group: str,
        noun: str,
        shipped: Mapping[str, str],
        is_one: Callable[[Any], bool] = lambda plugin: True,
        fault: Callable[[Any], str] = lambda plugin: "",
    ) -> None:
        self.group, self.noun = group, noun
        self._shipped = {name: EntryPoint(name, value, group) for name, value in shipped.items()}
        self._is_one, self._fault = is_one, fault

    def entry_points(self) -> dict[str, EntryPoint]:
        """All entry points by name, those of hpcgan first; of another package that takes one of its names is warned."""
        installed = {point.name: point for point in importlib.metadata.entry_points(group=self.group)}
        for name in sorted(installed.keys() & self._shipped.keys()):
            if installed[name].value != self._shipped[name].value:
                warn_once(f"{self.noun} '{name}' ({installed[name].value}): hpcgan has one of this name; left out")
        return {**self._shipped, **{name: installed[name] for name in sorted(installed.keys() - self._shipped.keys())}}

    def names(self) -> list[str]:
        """Names of all, sorted."""
        return sorted(self.entry_points())

    def ships(self, name: str) -> bool:
        """Whether it is one of hpcgan's own."""
        return name in self._shipped

    def get(self, name: str) -> Any:
        """The class of a name, or at a place `package.module:Class`.

        Raises
        ------
        InputError
            There is none, several packages have one of this name, it cannot be imported, or it is something else; the
            message says where it was looked for.
        """
        at_place = EntryPoint(name, name, self.group) if ":" in name else None
        point = self._shipped.get(name) or at_place or self._declared(name)
        if point is None:
            names = self.names()
            raise InputError(
                f"{self.noun} '{name}' does not exist; choose one of: {', '.join(names)}, or package.module:Class"
                f"{did_you_mean(name, names)}"
            )
        return self._load(point)

    def all(self) -> list[Any]:
        """All classes that have a name; a package whose class cannot be loaded is warned of, once, and left out."""
        return loadable({name: functools.partial(self.get, name) for name in self.entry_points()})

    def _declared(self, name: str) -> EntryPoint | None:
        """What an installed package declares by this name."""
        points = {
            point.value: point for point in importlib.metadata.entry_points(group=self.group) if point.name == name
        }
        if len(points) > 1:
            both = " and ".join(
                sorted(f"{point.dist.name if point.dist else '?'} ({point.value})" for point in points.values())
            )
            raise InputError(
                f"{self.noun} '{name}': {both} both have one of this name; uninstall one of them, or write "
                "package.module:Class"
            )
        return next(iter(points.values()), None)

    def _load(self, point: EntryPoint) -> Any:
        what = f"{self.noun} '{point.name}'" + ("" if point.name == point.value else f" ({point.value})")
        cls = load(point.value, what)
        if not isinstance(cls, type) or not self._is_one(cls):
            raise InputError(f"{what}: is no class of a {self.noun}")
        fault = undefined(cls) or self._fault(cls)
        if fault:
            raise InputError(f"{what}: {fault}")
        return cls


def load(place: str, what: str) -> Any:
    """What stands at `package.module:name`; `what` begins the messages.

    Raises
    ------
    InputError
        It is not written like that, or cannot be imported; the message says where it was looked for.
    """
    module, _, attribute = place.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        raise InputError(f"{what}: write it as package.module:Class")
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise InputError(f"{what}: importing {module} failed: {error}") from error
        raise InputError(
            f"{what}: there is no module '{error.name}' on Python's path, which every rank and job must find: "
            "install its package with pip, or put its folder into PYTHONPATH (the working directory does not count)"
        ) from None
    except Exception as error:  # whatever the code of somebody else raises
        raise InputError(f"{what}: importing {module} failed: {type(error).__name__}: {error}") from error
    try:
        return functools.reduce(getattr, attribute.split("."), imported)
    except AttributeError:
        raise InputError(f"{what}: module {module} has no '{attribute}'") from None


def load_class(place: str, what: str, base: type[Any], texts: Collection[str]) -> Any:
    """The subclass of `base` at a place; it has the attributes `texts`.

    Raises
    ------
    InputError
        As `load`; or it is something else, or something of it is not defined.
    """
    cls = load(place, what)
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise InputError(f"{what}: is no subclass of {base.__module__}.{base.__name__}")
    missing = ", ".join(name for name in texts if not isinstance(getattr(cls, name, None), str))
    fault = undefined(cls) or (missing and f"has no text as its {missing}")
    if fault:
        raise InputError(f"{what}: {fault}")
    return cls


def undefined(cls: type[Any]) -> str:
    """Which abstract methods a class leaves out, for a message; "" where it has all."""
    names = sorted(getattr(cls, "__abstractmethods__", ()))
    return f"does not define {', '.join(names)}" if names else ""


def loadable(loaders: Mapping[str, Callable[[], Any]]) -> list[Any]:
    """What loads, in order; what does not is warned of, once in a process: a broken package hides no other."""
    loaded = []
    for loader in loaders.values():
        try:
            loaded.append(loader())
        except InputError as error:
            warn_once(str(error))
    return loaded


def warn_once(text: str) -> None:
    """Warn on standard error, once in a process."""
    if text not in _warned:
        _warned.add(text)
        print(f"warning: {text}", file=sys.stderr)


_warned: set[str] = set()
