"""Calorimeter showers of ``hpcgan data``: ``data calo``, their part of ``data import``, and ``data export``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcgan.commands import arguments
from hpcgan.errors import EXIT_DONE, InputError

if TYPE_CHECKING:
    from hpcgan.data.workers import Progress

PARTICLES = ("gamma", "eplus", "piplus")
RECORDED = ("total", "active")


def _energies(text: str) -> tuple[float, float]:
    try:
        values = [float(part) for part in text.split(":")]
        low, high = values if len(values) == 2 else values * 2
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not LOW:HIGH or a single energy, for example 1:100") from None
    return low, high


def add_parser(kinds: Any) -> argparse.ArgumentParser:
    """Add ``calo`` to the subcommands of ``data``.

    Parameters
    ----------
    kinds : the object ``ArgumentParser.add_subparsers`` returns

    Returns
    -------
    argparse.ArgumentParser
        Its parser, without the options that all generations have.
    """
    parser: argparse.ArgumentParser = kinds.add_parser(
        "calo",
        help="generate parametrised calorimeter showers",
        description="Generate parametrised showers in the lead / liquid-argon calorimeter of CaloGAN and write "
        "train.h5, val.h5 and test.h5 (60/20/20 percent) in the layout of the published data.",
    )
    parser.add_argument("--particle", choices=PARTICLES, required=True)
    parser.add_argument(
        "--energy",
        type=_energies,
        default=(1.0, 100.0),
        metavar="LOW:HIGH",
        help="incident energies in GeV, uniform in between, or a single one (default 1:100)",
    )
    parser.add_argument("--segmentation", metavar="CELLS", default="published", help=_CELLS)
    parser.add_argument(
        "--recorded",
        choices=RECORDED,
        default="total",
        help="energy lost in lead and argon (total, default), or the signal of the argon and its sampling fluctuations",
    )
    return parser


_CELLS = (
    "rows x columns (phi x eta) of the three layers, for example 3x96,12x12,12x6, or its name, published (default); "
    "fine is 48x192,48x48,24x24"
)


def add_import_options(group: argparse._ArgumentGroup) -> None:
    """Add the options of ``data import`` that concern showers."""
    group.add_argument("--segmentation", metavar="CELLS", help=f"cells to sum those of the files into: {_CELLS}")
    group.add_argument("--particle", choices=PARTICLES, help="what files hold that do not say it")


def add_export_parser(kinds: Any) -> None:
    """Add ``export`` to the subcommands of ``data``."""
    parser = kinds.add_parser(
        "export",
        help="write calorimeter showers as CaloChallenge files",
        description="Write files of calorimeter showers in the format of the CaloChallenge (incident_energies, "
        "showers; MeV): the cells of the three layers in order, row (phi) after row. The overflow is left out.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="files, or a folder with train.h5, val.h5, test.h5")
    parser.add_argument("--out", type=arguments.output_folder, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--force", action="store_true", help="replace existing files")


def generate(args: argparse.Namespace) -> bool:
    """Carry out ``data calo``; False if there was nothing to do."""
    from hpcgan.data.workers import ProgressDisplay
    from hpcgan.physics.calorimeter import parse_segmentation
    from hpcgan.problems.calorimeter.generate import Beam
    from hpcgan.problems.calorimeter.generate import generate as generate_showers

    beam = Beam(args.particle, args.energy, parse_segmentation(args.segmentation), args.recorded)
    with ProgressDisplay(f"generating {args.particle}", noun="showers") as progress:
        return generate_showers(beam, args.out, args.events, args.seed, args.jobs, progress, args.force)


def import_showers(args: argparse.Namespace, progress: Progress) -> bool:
    """Carry out ``data import`` of showers; False if there was nothing to do."""
    from hpcgan.physics.calorimeter import parse_segmentation
    from hpcgan.problems.calorimeter.importing import import_files

    segmentation = parse_segmentation(args.segmentation or "published")
    return import_files(args.files, args.out, segmentation, args.particle or "", args.force, progress)


def export(args: argparse.Namespace) -> int:
    """Carry out ``data export``."""
    from hpcgan.data.storage import SPLITS
    from hpcgan.data.workers import ProgressDisplay
    from hpcgan.problems.calorimeter.importing import export as export_showers

    files: list[Path] = []
    for path in map(Path, args.files):
        if path.is_dir():
            found = [path / f"{split}.h5" for split in SPLITS if (path / f"{split}.h5").exists()]
            if not found:
                raise InputError(f"{path}: holds none of {', '.join(f'{split}.h5' for split in SPLITS)}")
            files += found
        else:
            files.append(path)
    with ProgressDisplay("exporting", noun="showers") as progress:
        made = export_showers(files, args.out, args.force, progress)
    print(f"{args.out}: {'exported' if made else 'holds exactly these showers already, nothing to do'}")
    return EXIT_DONE
