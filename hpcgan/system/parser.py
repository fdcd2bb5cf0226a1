"""Command lines that are wrong in one line, with what was meant: the parser of `hpcgan` and of `%hpcgan`.

A leaf module, but for `suggest`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from hpcgan.errors import EXIT_BAD_INPUT
from hpcgan.suggest import did_you_mean, nearest
from hpcgan.system import failure
from hpcgan.system.failure import Failure


class Parser(argparse.ArgumentParser):
    """ArgumentParser whose errors are one line, with exit code 2, and name what is most like a wrong word.

    A value that begins with a minus and a digit, as `--mass -5,3`, is a value, of which the option says what is wrong.
    """

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        # argparse takes for options what this does not match, and has no public way to say so.
        self._negative_number_matcher = re.compile(r"^-\.?\d")

    def error(self, message: str) -> NoReturn:
        """Say it in one line, and end."""
        text = f"{' '.join(message.split())}; see {self.prog} --help"
        failure.tell(Failure("user", text))
        print(f"{self.prog}: error: {text}", file=sys.stderr)
        self.exit(EXIT_BAD_INPUT)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; words that no command takes are an error."""
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            self.unknown(rest, parsed)
        return parsed

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        raise argparse.ArgumentError(
            action, f"'{value}' does not exist; choose one of: {', '.join(choices)}{did_you_mean(str(value), choices)}"
        )

    def unknown(self, stray: Sequence[str], namespace: argparse.Namespace, keys: Iterable[str] = ()) -> NoReturn:
        """End because of words that no command takes.

        Parameters
        ----------
        stray : sequence of str
            At least one.
        namespace : Namespace
            What else was parsed, which says whose options are looked at.
        keys : iterable of str
            Dotted keys that could have been meant, as `training.epochs` by `--epochs`.
        """
        parser = self._of(namespace)
        options = [option for action in parser._actions for option in action.option_strings]
        word = next((item for item in stray if item.startswith("-")), stray[0]).partition("=")[0]
        if not word.startswith("-"):
            parser.error(f"unrecognized arguments: {' '.join(stray)}")
        bare = word.lstrip("-").replace("-", "_")
        key = next((k for k in keys if k.rpartition(".")[2] in (bare, f"{bare}s")), None)
        close = nearest(word, [option for option in options if option.startswith("--")])
        hint = f"; did you mean '{key}=...'?" if key else f"; did you mean '{close}'?" if close else ""
        parser.error(f"there is no option '{word}'{hint}")

    def _of(self, namespace: argparse.Namespace) -> Parser:
        """The parser of the command that was given, and of its own commands."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                inner = action.choices.get(str(getattr(namespace, action.dest, None)))
                if isinstance(inner, Parser):
                    return inner._of(namespace)
        return self
