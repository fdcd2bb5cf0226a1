"""``hpcgan data``: generate, import and inspect data sets.

Problems declare what there is: generators by name, importers, layouts. They are loaded when a line begins with
``hpcgan data``, not before.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcgan.commands import arguments
from hpcgan.config.base import option_of
from hpcgan.config.flags import add_flags, keywords_of, reader, section
from hpcgan.errors import EXIT_DONE, InputError
from hpcgan.system import streams
from hpcgan.system.parser import Parser

if TYPE_CHECKING:
    from hpcgan.data.generators import Generator
    from hpcgan.data.importers import Importer

OTHER_COMMANDS = ("import", "export", "info", "unstage")
"""Names that no generator may have."""

OPTIONS = "options"
"""Under which name the fields of a generator or an importer are parsed."""

EXIT_INTERRUPTED = 130
"""The shell's convention for a program ended by Ctrl-C."""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command, and its subcommands once it has a line to parse."""
    text = "generate, import or inspect data sets"
    subparsers._parser_class, before = DataParser, subparsers._parser_class
    try:
        parser: argparse.ArgumentParser = subparsers.add_parser("data", help=text, description=f"{text.capitalize()}.")
    finally:
        subparsers._parser_class = before
    parser.set_defaults(run=run)
    return parser


class DataParser(Parser):
    """Gets its subcommands when it has a line to parse: one of its words may be the place of a problem."""

    _whole = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, with the generators that there are."""
        if not self._whole:
            self._whole = True
            try:
                self._add_subcommands(args[0] if args and ":" in args[0] else None)
            except InputError as error:
                self.error(str(error))
        return super().parse_known_args(args, namespace)

    def _add_subcommands(self, place: str | None) -> None:
        kinds = self.add_subparsers(dest="data_command", required=True, metavar="COMMAND", parser_class=Parser)
        for name, generator in _generators(place).items():
            summary = generator.summary.replace("%", "%%")
            kind = kinds.add_parser(name, help=summary, description=inspect.getdoc(generator))
            add_flags(kind, OPTIONS, generator)
            _add_generation_options(kind, generator.noun)
            kind.set_defaults(generator=generator)
        _add_import_parser(kinds)
        _add_export_parser(kinds)
        _add_info_parser(kinds)
        _add_unstage_parser(kinds)


def _generators(place: str | None) -> dict[str, type[Generator]]:
    """Generators by name: of all problems, and of the one at `package.module:Class`, if one is given."""
    from hpcgan.plugins import loadable, warn_once
    from hpcgan.problems.discovery import PROBLEMS

    places = dict.fromkeys(OTHER_COMMANDS, "")
    for problem in PROBLEMS.all():
        for name, where in problem.generators.items():
            if places.setdefault(name, where) != where:
                warn_once(f"generator '{name}' ({where}): there is another 'hpcgan data {name}'; left out")
    classes = {
        name: generator
        for name, where in places.items()
        if where
        for generator in loadable({name: functools.partial(_generator, where, f"generator '{name}' ({where})")})
    }
    own = [] if place is None else list(PROBLEMS.get(place).generators.values())
    return {**classes, **{str(place): _generator(where, f"generator of '{place}' ({where})") for where in own[:1]}}


def _generator(place: str, what: str) -> type[Generator]:
    """The generator at a place; an `InputError` if it is none, or has an option that is there already."""
    from hpcgan.data.generators import Generator
    from hpcgan.plugins import load_class

    generator: type[Generator] = load_class(place, what, Generator, ("summary", "noun"))
    flags = ["help", "out", "seed", "jobs", "force", generator.noun]
    flags += [option_of(key, field).flag for key, field in generator.model_fields.items()]
    twice = [flag for number, flag in enumerate(flags) if flag in flags[:number]]
    if twice:
        raise InputError(f"{what}: 'hpcgan data' has an option --{twice[0]} already; give its field another name")
    return generator


def _add_generation_options(parser: argparse.ArgumentParser, noun: str) -> None:
    parser.add_argument(
        f"--{noun}",
        type=arguments.count,
        required=True,
        metavar="N",
        dest="samples",
        help=f"{noun} in all, over the three files",
    )
    parser.add_argument(
        "--seed", type=arguments.seed, default=1, metavar="S", help="the same seed gives the same files (default 1)"
    )
    parser.add_argument("--jobs", type=arguments.processes, default=1, metavar="J", help="processes to use (default 1)")
    _add_output(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=arguments.output_folder, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--force", action="store_true", help="replace existing files")


def _add_import_parser(kinds: Any) -> None:
    from hpcgan.problems.importers import importers

    classes = importers()
    titles = ", ".join(importer.title for importer in classes).replace("%", "%%")
    parser = kinds.add_parser(
        "import",
        help=f"import {titles}",
        description=f"Make train.h5, val.h5 and test.h5 from files of other programs ({titles}); of every five samples "
        "three go to train, one to val and one to test.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE")
    added: list[str] = []  # what several importers have is one option for all of them
    for importer in classes:
        group = parser.add_argument_group(f"of {importer.title}")
        add_flags(group, OPTIONS, importer, leave_out=added, as_text=_shared(classes))
        added += importer.model_fields
    _add_output(parser)


def _shared(importers: Iterable[type[Importer]]) -> set[str]:
    """The options of several importers: which one reads their values, only the file says."""
    numbers = Counter(key for importer in importers for key in importer.model_fields)
    return {key for key, number in numbers.items() if number > 1}


def _add_export_parser(kinds: Any) -> None:
    from hpcgan.problems.layouts import layouts

    formats = "; ".join(f"{layout.title} as {layout.export_format}" for layout in layouts() if layout.export_format)
    parser = kinds.add_parser(
        "export",
        help="write a data set in the format of another program",
        description=f"Write files in the format of another program: {formats}.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="files, or a folder with train.h5, val.h5, test.h5")
    _add_output(parser)


def _add_info_parser(kinds: Any) -> None:
    parser = kinds.add_parser(
        "info",
        help="check a file and show what it holds",
        description="Read a data file (or the three of a folder), check it, print what it holds and draw it.",
    )
    parser.add_argument("file", metavar="FILE.h5", help="a file, or a folder with train.h5, val.h5, test.h5")
    pictures = parser.add_mutually_exclusive_group()
    pictures.add_argument(
        "--picture",
        type=arguments.output_file,
        metavar="FILE.png",
        help="where to save the picture (default: beside the file, as NAME.info.png)",
    )
    pictures.add_argument("--no-picture", action="store_true", help="print only")


def _add_unstage_parser(kinds: Any) -> None:
    parser = kinds.add_parser(
        "unstage",
        help="remove copies of data on this node's own storage",
        description="Remove the copies of data that trainings made on this node (data.stage) and that nobody reads.",
    )
    parser.add_argument("folder", metavar="DIR", help="as data.stage has it; $VARIABLES count as on this node")


def run(args: argparse.Namespace) -> int:
    """Generate, import, export or show."""
    if args.data_command == "info":
        return _info(args)
    if args.data_command == "unstage":
        return _unstage(args)
    from hpcgan.launch.process import handling

    streams.go_on(f"the work goes on, into {args.out}")
    # Unfinished files are removed and workers ended, as after Ctrl-C.
    with handling(("SIGTERM", "SIGHUP"), _interrupt):
        try:
            return {"import": _import, "export": _export}.get(args.data_command, _generate)(args)
        except KeyboardInterrupt:
            print(f"interrupted: nothing was written to {args.out}", file=sys.stderr)
            return EXIT_INTERRUPTED


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _generate(args: argparse.Namespace) -> int:
    from hpcgan.data.generators import make_data_set
    from hpcgan.data.workers import ProgressDisplay

    options: Generator = section(OPTIONS, args.generator, keywords_of(args, OPTIONS))
    data_set = options.data_set(args.samples, args.seed)
    n, noun, start = data_set.n, data_set.noun, time.monotonic()
    with ProgressDisplay(f"generating {args.data_command}", noun=noun) as progress:
        is_new = make_data_set(data_set, args.out, args.jobs, progress, args.force)
    seconds = time.monotonic() - start
    if is_new:
        print(f"{args.out}: {n} {noun} in {seconds:.0f} s ({n / seconds:.0f} {noun}/s)")
    else:
        print(f"{args.out}: holds exactly these {noun} already, nothing to do")
    return EXIT_DONE


def _import(args: argparse.Namespace) -> int:
    from hpcgan.data.importers import Order
    from hpcgan.data.workers import ProgressDisplay
    from hpcgan.problems.importers import importers

    paths = [Path(file) for file in args.files]
    importer = _importer_of(paths[0])
    options = keywords_of(args, OPTIONS)
    for other in importers():
        for name in options.keys() & other.model_fields.keys() - importer.model_fields.keys():
            flag = name.replace("_", "-")
            raise InputError(f"{paths[0]}: --{flag} is for {other.title}; this is one of the {importer.title}")
    for name in options.keys() & _shared(importers()):
        if isinstance(options[name], str):
            try:
                options[name] = reader(importer, name)(options[name])
            except argparse.ArgumentTypeError as error:
                raise InputError(f"argument --{name.replace('_', '-')}: {error}") from None
    notes: list[str] = []
    with ProgressDisplay("importing") as progress:
        order = Order(paths, args.out, args.force, progress, notes.append)
        is_new = section(OPTIONS, importer, options).import_files(order)
    for note in notes:
        print(f"{args.out}: {note}")
    print(f"{args.out}: {'imported' if is_new else 'holds exactly these events already, nothing to do'}")
    return EXIT_DONE


def _importer_of(path: Path) -> type[Importer]:
    """The importer for a file; an `InputError` if there is no such file, or nobody imports it."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    import h5py

    from hpcgan.data.storage import names, open_file
    from hpcgan.problems.importers import importers

    classes = importers()
    importer = next((importer for importer in classes if importer.recognise(path)), None)
    if importer is None:
        kinds = ", ".join(importer.title + (f" ({importer.needs})" if importer.needs else "") for importer in classes)
        what = "is a folder" if path.is_dir() else "is of no known kind"
        if path.is_file() and h5py.is_hdf5(path):
            with open_file(path) as file:
                what += f" (it holds: {names(file)})"
        raise InputError(f"{path}: {what}; known are {kinds}")
    return importer


def _export(args: argparse.Namespace) -> int:
    from hpcgan.data.workers import ProgressDisplay
    from hpcgan.problems.layouts import layout_of

    files = [file for path in map(Path, args.files) for file in (_splits(path) if path.is_dir() else [path])]
    layout = layout_of(files[0])
    with ProgressDisplay("exporting", noun="samples") as progress:
        is_new = layout.export(files, args.out, args.force, progress)
    print(f"{args.out}: {'exported' if is_new else 'holds exactly these samples already, nothing to do'}")
    return EXIT_DONE


def _splits(folder: Path) -> list[Path]:
    """The data files of a folder; an `InputError` if there are none."""
    from hpcgan.data.storage import SPLITS

    names = [f"{split}.h5" for split in SPLITS]
    files = [folder / name for name in names if (folder / name).exists()]
    if not files:
        raise InputError(f"{folder}: holds none of {', '.join(names)}")
    return files


def _info(args: argparse.Namespace) -> int:
    from hpcgan.data import identity
    from hpcgan.problems.layouts import layout_of

    target = Path(args.file)
    files = _splits(target) if target.is_dir() else [target]
    if args.picture is not None and len(files) > 1:
        raise InputError("--picture names one file but a folder was given; name a single data file")
    for file in files:
        picture = None if args.no_picture else args.picture or file.with_suffix(".info.png")
        print(layout_of(file).describe(file, picture))
        note = {None: "", True: " (as written)", False: " (CHANGED after it was written)"}[identity.is_as_written(file)]
        print(f"  fingerprint       {identity.fingerprint(file)[:12]}{note}")
    return EXIT_DONE


def _unstage(args: argparse.Namespace) -> int:
    from hpcgan.data.staging import size_text, unstage

    store, removal = unstage(args.folder)
    note = f", {removal.in_use} left that are being read" if removal.in_use else ""
    sets = f"{removal.removed} data set{'s' * (removal.removed != 1)}"
    print(f"{store.path}: {sets} removed ({size_text(removal.size)}){note}")
    return EXIT_DONE
