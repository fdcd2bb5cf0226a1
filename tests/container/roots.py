"""A root file system of Debian in a folder, in which the steps of an image's recipe are run as a builder runs them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "containers/Containerfile"
#: Debian's certificates, which a package inside replaces: it cannot where a file of this machine is mounted there.
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
OWN_BUNDLE = "/opt/certificates.crt"
PROGRAMS = ("debootstrap", "chroot", "unshare", "mount")
#: Mounted in a name space of its own, so that nothing is left mounted whatever happens.
ENTER = """
set -e
mount --bind /proc "$0/proc"
mount --rbind /dev "$0/dev"
mount -t tmpfs tmpfs "$0/dev/shm"
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p "$0$1"; else mkdir -p "$0$(dirname "$1")"; [ -e "$0$1" ] || : >"$0$1"; fi
    mount --bind "$1" "$0$1"
    shift
done
shift
exec chroot "$0" "$@"
"""


def missing() -> str | None:
    """Why no root file system can be made here; None if one can."""
    if os.geteuid() != 0:
        return "a root file system is made and entered by root"
    absent = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    return f"not installed: {', '.join(absent)} (tools/debootstrap.sh installs debootstrap)" if absent else None


def instructions() -> list[tuple[str, list[str]]]:
    """Instructions of the recipe, with their words."""
    lines = [line for line in RECIPE.read_text().splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], shlex.split(line)[1:]) for line in lines]


def pip_paths() -> list[str]:
    """Files and folders of this machine that its pip is set to use: configuration, certificates, wheels, indexes."""
    said = subprocess.run(
        [sys.executable, "-m", "pip", "config", "debug"], capture_output=True, text=True, check=False
    ).stdout
    files = re.findall(r"^ *(/\S+), exists: True", said, re.MULTILINE)
    values = [value for name, value in os.environ.items() if name.startswith("PIP_")]
    text = "\n".join([*(Path(name).read_text() for name in files), *values])
    indexes = [os.path.dirname(path) for path in re.findall(r"file://(/[\w./-]+)", text)]  # files are beside an index
    paths = [*files, *indexes, *re.findall(r"(?:[=\s]|^)(/[\w./-]+)", text)]
    return [path for path in dict.fromkeys(paths) if os.path.exists(path) and path.count("/") > 1]


class RootFileSystem:
    """Debian in a folder.

    Parameters
    ----------
    folder : Path
        Made by debootstrap where it is empty.
    shared : list of str
        Files and folders of this machine that are seen inside under the same path.
    """

    def __init__(self, folder: Path, shared: list[str]) -> None:
        self.folder = folder
        self._shared = ["/etc/resolv.conf", *(path for path in shared if path != BUNDLE)]
        if not (folder / "etc").is_dir():
            command = ["debootstrap", "--variant=minbase", "bookworm", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        self._settings = {}
        if BUNDLE in shared:
            shutil.copy(BUNDLE, f"{folder}{OWN_BUNDLE}")
            self._settings = {"PIP_CERT": OWN_BUNDLE}

    def copy(self, sources: list[str], target: str) -> None:
        """As COPY of a recipe does."""
        for source in [path for name in sources for path in sorted(ROOT.glob(name))]:
            destination = self.folder / target.lstrip("/")
            if source.is_dir():
                shutil.copytree(source, destination, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                destination.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, destination)

    def run(self, *command: str, **env: str) -> str:
        """What a command prints inside, which has to end well."""
        enter = ["unshare", "--mount", "bash", "-c", ENTER, str(self.folder), *self._shared, "--"]
        clean = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C"}
        settings = {
            name: value for name, value in os.environ.items() if name.startswith("PIP_") or "proxy" in name.lower()
        }
        done = subprocess.run(
            [
                *enter,
                "env",
                "-i",
                *(f"{name}={value}" for name, value in {**clean, **settings, **self._settings, **env}.items()),
                *command,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}"
        return done.stdout
