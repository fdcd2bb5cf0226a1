"""``hpcgan data``: generate, import and inspect data sets."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpcgan.commands import arguments, calo
from hpcgan.errors import EXIT_DONE, InputError
from hpcgan.system import streams

EXIT_INTERRUPTED = 130
"""The shell's convention for a program ended by Ctrl-C."""

GRID_LIMIT = 1000
"""Masses of one axis of a grid, before what is possible is taken out of it."""


def _masses(text: str) -> tuple[float, float]:
    try:
        gluino, neutralino = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not M_GLUINO,M_NEUTRALINO, for example 1400,850") from None
    return gluino, neutralino


def _axis(text: str) -> list[float]:
    """Masses of one axis of a grid: a number, or START:STOP:STEP with both ends."""
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(math.isfinite(number) for number in numbers):
        raise argparse.ArgumentTypeError(f"'{text}' is neither a mass nor START:STOP:STEP, for example 1400:1800:200")
    if len(numbers) == 1:
        return numbers
    start, stop, step = numbers
    if step <= 0 or stop < start:
        raise argparse.ArgumentTypeError(f"'{text}': STOP must not be below START, and STEP above zero")
    steps = (stop - start) / step
    if steps > GRID_LIMIT:
        raise argparse.ArgumentTypeError(f"'{text}' has more than {GRID_LIMIT} masses; use a larger STEP")
    if abs(steps - round(steps)) > 1e-6:
        ends = [start + step * whole for whole in (math.floor(steps), math.ceil(steps))]
        raise argparse.ArgumentTypeError(
            f"'{text}' does not arrive at {stop:g}; let it end at {ends[0]:g} or {ends[1]:g}"
        )
    return [start + step * i for i in range(round(steps) + 1)]


def _grid(text: str) -> list[tuple[float, float]]:
    """Points of `GLUINOS,NEUTRALINOS`, the neutralino mass running faster."""
    parts = text.split(",")
    if len(parts) != 2:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not GLUINOS,NEUTRALINOS, each a mass or START:STOP:STEP, for example 1400:1800:200,850"
        )
    gluinos, neutralinos = (_axis(part.strip()) for part in parts)
    return [(gluino, neutralino) for gluino in gluinos for neutralino in neutralinos]


def mass_points(
    masses: Sequence[tuple[float, float]], grids: Sequence[Sequence[tuple[float, float]]]
) -> list[tuple[float, float]]:
    """The mass points of `--mass` and `--mass-grid` options, in this order.

    A point of a grid that is there already is not repeated. One whose neutralino is too heavy for its gluino is skipped
    with a warning, since a grid is rectangular and what is possible is not.

    Raises
    ------
    InputError
        No points, or a grid without a possible one.
    """
    from hpcgan.physics.pythia import MIN_SPLITTING_GEV

    found = list(masses)
    for grid in grids:
        possible = [point for point in grid if point[0] - point[1] >= MIN_SPLITTING_GEV]
        skipped = [f"{gluino:g},{neutralino:g}" for gluino, neutralino in grid if (gluino, neutralino) not in possible]
        reason = f"the neutralino must be at least {MIN_SPLITTING_GEV:g} GeV lighter than the gluino"
        if not possible:
            raise InputError(f"--mass-grid: no point is left: {reason}")
        if skipped:
            more = f" and {len(skipped) - 6} more" if len(skipped) > 6 else ""
            count = f"{len(skipped)} of {len(grid)} points skipped"
            print(f"warning: --mass-grid: {count} ({reason}): {'; '.join(skipped[:6])}{more}", file=sys.stderr)
        found += [point for point in possible if point not in found]
    if not found:
        raise InputError("give --mass M_GLUINO,M_NEUTRALINO or --mass-grid GLUINOS,NEUTRALINOS")
    return found


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add ``data`` and its subcommands to the program's parser.

    Parameters
    ----------
    subparsers : the object ``ArgumentParser.add_subparsers`` returns

    Returns
    -------
    argparse.ArgumentParser
        The parser of ``data``; it sets ``run`` as the default of ``run``.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "data",
        description="Generate, import or inspect image data.",
    )
    kinds = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")

    rpv = kinds.add_parser(
        "rpv",
        help="generate RPV gluino-pair events (signal)",
        description="Generate gluino pairs with R-parity violating decays in pp collisions at 13 TeV, "
        "pass them through the parametrised calorimeter and write train.h5, val.h5 and test.h5 "
        "(60/20/20 percent).",
    )
    rpv.add_argument(
        "--mass",
        type=_masses,
        action="append",
        default=[],
        metavar="M_GLUINO,M_NEUTRALINO",
        help="masses in GeV; repeat the option to mix mass points in equal shares",
    )
    rpv.add_argument(
        "--mass-grid",
        type=_grid,
        action="append",
        default=[],
        metavar="GLUINOS,NEUTRALINOS",
        help="all combinations of masses in GeV, each side a mass or START:STOP:STEP with both ends, e.g. "
        "1400:1800:200,850; beside or instead of --mass",
    )
    _generation_options(rpv)

    qcd = kinds.add_parser(
        "qcd",
        help="generate QCD multijet events (background)",
        description="Generate hard QCD events the same way as rpv; y is 0 and the masses are 0.",
    )
    qcd.add_argument(
        "--pt-hat-min",
        type=arguments.real(),
        default=400.0,
        metavar="GEV",
        help="smallest hard transverse momentum (default 400)",
    )
    _generation_options(qcd)

    pileup = kinds.add_parser(
        "pileup",
        help="generate minimum-bias events (pileup)",
        description="Generate inelastic soft collisions of protons at 13 TeV, pass each through the parametrised "
        "calorimeter and write train.h5, val.h5 and test.h5 (60/20/20 percent): pools of events, of which trainings "
        "on 'problem: pileup' draw and sum mu at a time.",
    )
    pileup.add_argument(
        "--mu",
        type=arguments.whole(1, 1000),
        default=20,
        metavar="N",
        help="events of a pileup unless a training says otherwise; the pools do not depend on it (default 20)",
    )
    _generation_options(pileup)

    cosmo = kinds.add_parser(
        "cosmo",
        help="generate weak-lensing convergence maps",
        description="Generate lognormal convergence maps of 12 square degrees and write train.h5, val.h5 and test.h5 "
        "(60/20/20 percent).",
    )
    cosmo.add_argument(
        "--side",
        type=arguments.count,
        default=256,
        metavar="N",
        help="pixels along a side, a multiple of 16 (default 256)",
    )
    _generation_options(cosmo, "maps")

    _generation_options(calo.add_parser(kinds))

    imports = kinds.add_parser(
        "import",
        help="import Delphes ROOT files, or calorimeter showers of Geant4, CaloGAN or the CaloChallenge",
        description="Make train.h5, val.h5 and test.h5 from the towers in Delphes ROOT files, or from HDF5 files with "
        "calorimeter showers (Geant4 on the fine grid, CaloGAN, CaloChallenge); of every five events three go to "
        "train, one to val and one to test.",
    )
    imports.add_argument("files", nargs="+", metavar="FILE")
    imports.add_argument("--out", type=arguments.output_folder, required=True, metavar="DIR", help="folder to write")
    towers = imports.add_argument_group("of Delphes files")
    towers.add_argument("--mass", type=_masses, metavar="M_GLUINO,M_NEUTRALINO", help="masses to record, GeV")
    towers.add_argument("--label", type=int, choices=(0, 1), help="1 signal (default), 0 background")
    towers.add_argument(
        "--weight",
        type=arguments.real(-1e9),
        help="weight of every event (default: what the file says of each, else 1)",
    )
    calo.add_import_options(imports.add_argument_group("of calorimeter showers"))
    imports.add_argument("--force", action="store_true", help="replace existing files")

    calo.add_export_parser(kinds)

    info = kinds.add_parser(
        "info",
        help="check a file and show what it holds",
        description="Read a data file (or the three of a folder), check it, print what it holds and draw it.",
    )
    info.add_argument("file", metavar="FILE.h5", help="a file, or a folder with train.h5, val.h5, test.h5")
    pictures = info.add_mutually_exclusive_group()
    pictures.add_argument(
        "--picture",
        type=arguments.output_file,
        metavar="FILE.png",
        help="where to save the picture (default: beside the file, as NAME.info.png)",
    )
    pictures.add_argument("--no-picture", action="store_true", help="print only")
    parser.set_defaults(run=run)
    return parser


def _generation_options(parser: argparse.ArgumentParser, noun: str = "events") -> None:
    parser.add_argument("--out", type=arguments.output_folder, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        f"--{noun}", type=arguments.count, required=True, metavar="N", help=f"{noun} in all, over the three files"
    )
    parser.add_argument(
        "--seed", type=arguments.seed, default=1, metavar="S", help="the same seed gives the same files (default 1)"
    )
    parser.add_argument("--jobs", type=arguments.processes, default=1, metavar="J", help="processes to use (default 1)")
    parser.add_argument("--force", action="store_true", help="replace existing files")


def run(args: argparse.Namespace) -> int:
    """Carry out ``hpcgan data ...``.

    Parameters
    ----------
    args : argparse.Namespace
        From the parser of :func:`add_parser`.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    HpcganError
        Failures and bad input, for the program to print.
    """
    if args.data_command == "info":
        return _info(args)
    streams.go_on(f"the work goes on, into {args.out}")
    with _terminable():
        try:
            runs = {"import": _import, "cosmo": _cosmo, "pileup": _pileup, "calo": _calo, "export": calo.export}
            return runs.get(args.data_command, _generate)(args)
        except KeyboardInterrupt:
            print(f"interrupted: nothing was written to {args.out}", file=sys.stderr)
            return EXIT_INTERRUPTED


@contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM, and SIGHUP unless it is ignored, as Ctrl-C: unfinished files are removed and workers ended."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {}
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, interrupt)
    except ValueError:  # called outside the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _generate(args: argparse.Namespace) -> int:
    from hpcgan.data.workers import ProgressDisplay
    from hpcgan.physics.pythia import Process, QcdProcess, RpvProcess
    from hpcgan.problems.detector_images.generate import generate

    processes: Sequence[Process]
    if args.data_command == "rpv":
        processes = [RpvProcess(*masses) for masses in mass_points(args.mass, args.mass_grid)]
    else:
        processes = [QcdProcess(args.pt_hat_min)]
    start = time.monotonic()
    with ProgressDisplay(f"generating {args.data_command}") as progress:
        made = generate(processes, args.out, args.events, args.seed, args.jobs, progress, args.force)
    return _say(args.out, made, args.events, "events", time.monotonic() - start)


def _pileup(args: argparse.Namespace) -> int:
    from hpcgan.data.workers import ProgressDisplay
    from hpcgan.problems.pileup.minbias import generate

    start = time.monotonic()
    with ProgressDisplay("generating pileup") as progress:
        made = generate(args.out, args.events, args.mu, args.seed, args.jobs, progress, args.force)
    return _say(args.out, made, args.events, "events", time.monotonic() - start)


def _cosmo(args: argparse.Namespace) -> int:
    from hpcgan.data.workers import ProgressDisplay
    from hpcgan.problems.cosmo.generate import generate

    start = time.monotonic()
    with ProgressDisplay("generating cosmo", noun="maps") as progress:
        made = generate(args.out, args.maps, args.seed, args.side, args.jobs, progress, args.force)
    return _say(args.out, made, args.maps, "maps", time.monotonic() - start)


def _calo(args: argparse.Namespace) -> int:
    start = time.monotonic()
    made = calo.generate(args)
    return _say(args.out, made, args.events, "showers", time.monotonic() - start)


def _say(out: Path, made: bool, n: int, noun: str, seconds: float) -> int:
    if made:
        print(f"{out}: {n} {noun} in {seconds:.0f} s ({n / seconds:.0f} {noun}/s)")
    else:
        print(f"{out}: holds exactly these {noun} already, nothing to do")
    return EXIT_DONE


def _import(args: argparse.Namespace) -> int:
    from hpcgan.data.workers import ProgressDisplay
    from hpcgan.problems.calorimeter.importing import recognise
    from hpcgan.problems.detector_images.delphes import import_files

    showers = recognise(args.files[0]) != "delphes"
    foreign = ("mass", "label", "weight") if showers else ("segmentation", "particle")
    for option in foreign:
        if getattr(args, option) is not None:
            kind = "Delphes files; this is a file of calorimeter showers" if showers else "files of calorimeter showers"
            raise InputError(f"{args.files[0]}: --{option} is for {kind}")
    notes: list[str] = []
    with ProgressDisplay("importing") as progress:
        if showers:
            made = calo.import_showers(args, progress)
        else:
            masses = args.mass or (0.0, 0.0)
            label = 1 if args.label is None else args.label
            made = import_files(
                args.files, args.out, masses[0], masses[1], label, args.weight, args.force, progress, notes.append
            )
    for note in notes:
        print(f"{args.out}: {note}")
    done = "imported" if made else "holds exactly these events already, nothing to do"
    print(f"{args.out}: {done}")
    return EXIT_DONE


def _info(args: argparse.Namespace) -> int:
    from hpcgan.data.info import describe
    from hpcgan.data.storage import SPLITS

    target = Path(args.file)
    files = [target]
    if target.is_dir():
        files = [target / f"{split}.h5" for split in SPLITS if (target / f"{split}.h5").exists()]
        if not files:
            raise InputError(f"{target}: holds none of {', '.join(f'{split}.h5' for split in SPLITS)}")
        if args.picture is not None and len(files) > 1:
            raise InputError("--picture names one file but a folder was given; name a single data file")
    for file in files:
        picture = None if args.no_picture else args.picture or file.with_suffix(".info.png")
        print(describe(file, picture))
        print(f"  fingerprint       {_fingerprint(file)}")
    return EXIT_DONE


def _fingerprint(file: Path) -> str:
    """What a file is, and whether it is still what was written here."""
    from hpcgan.data import identity

    said = {None: "", True: " (as written)", False: " (CHANGED after it was written)"}
    return identity.fingerprint(file)[:12] + said[identity.is_as_written(file)]
