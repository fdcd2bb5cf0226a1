"""Packages that a stopped set-up left half installed are forgotten here, and pip installs them again.

    VENV/bin/python -I tools/setup_damage.py

pip writes a package's files one by one and its list of them, RECORD, at the end; yet what it asks later is only whether
the package's name is there. Prints the name of each package that lacks its RECORD or a file in it, one a line.
"""

from __future__ import annotations

import csv
import shutil
import sysconfig
from pathlib import Path


def is_whole(info: Path) -> bool:
    """Whether all files of a package are there with their sizes.

    Parameters
    ----------
    info : Path
        The package's folder `NAME-VERSION.dist-info`.
    """
    record = info / "RECORD"
    if not record.is_file() or not (info / "METADATA").is_file():
        return False
    with record.open(encoding="utf-8", newline="") as file:
        for name, _, size in csv.reader(file):
            path = info.parent / name
            if not size or path.suffix == ".pyc":
                continue  # bytecode is made anew, of another size
            if not path.is_file() or path.stat().st_size != int(size):
                return False
    return True


def forget(packages: Path) -> list[str]:
    """Take away what half-installed packages are known by, and what pip had put aside of older versions.

    Parameters
    ----------
    packages : Path
        A folder `site-packages`.

    Returns
    -------
    list of str
        Names and versions of the packages.
    """
    for aside in packages.glob("~*"):
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
    damaged = [info for info in sorted(packages.glob("*.dist-info")) if not is_whole(info)]
    for info in damaged:
        shutil.rmtree(info)
    return [info.name.removesuffix(".dist-info") for info in damaged]


if __name__ == "__main__":
    for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        print(*forget(Path(folder)), sep="\n", end="")
