"""The documents of the repository as tests read them: their blocks, and the command lines in them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: The documents whose blocks are executed by tests, or say why not.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: The documents whose commands are checked.
DOCUMENTS = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "slurm" / "README.md", ROOT / "benchmarks" / "README.md"]
LANGUAGES = ("sh", "python", "ipython", "yaml", "toml", "text")
MARKER = re.compile(r"<!-- not executed: (.+) -->")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes
    ----------
    document : str
        Path below the root.
    line : int
        Of its fence.
    language : str
    text : str
    reason : str or None
        Why no test executes the block, as the comment above says.
    """

    document: str
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(path: Path) -> list[Block]:
    """The blocks of a document."""
    document = str(path.relative_to(ROOT))
    parts: list[Block] = []
    lines = path.read_text().splitlines()
    opened: int | None = None
    for number, line in enumerate(lines):
        if not line.lstrip().startswith("```"):
            continue
        if opened is None:
            opened = number
            continue
        marker = MARKER.fullmatch(lines[opened - 1].strip()) if opened else None
        language, text = lines[opened].strip().strip("`"), "\n".join(lines[opened + 1 : number])
        parts.append(Block(document, opened + 1, language, text, marker.group(1) if marker else None))
        opened = None
    assert opened is None, f"{document}: a block does not end"
    return parts


def inline_code(path: Path) -> list[str]:
    """The pieces of code in a document's sentences and tables; a piece may go over the end of a line."""
    prose = re.sub(r"^ *```.*?^ *```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(code.split()).replace("\\|", "|") for code in re.findall(r"`([^`]+)`", prose)]


def shell_commands(script: str, folder: Path) -> list[list[str]]:
    """The command lines of a script, after the shell has gone through loops, variables and quotes; nothing is run.

    Parameters
    ----------
    script : str
        In bash. A word that is no command of the shell itself counts as a command.
    folder : Path
        An empty one, in which the shell stands.
    """
    calls = folder / ".calls"
    calls.write_text("")
    # A path is no command that the handler hears of.
    script = re.sub(r"(^\s*|&& *)\S*/bin/(\w+)", r"\1\2", script, flags=re.MULTILINE)
    handler = 'command_not_found_handle() { printf "%s\\0" "$@" >> "$CALLS"; printf "\\n" >> "$CALLS"; }\n'
    env = {"PATH": str(folder / "nothing"), "CALLS": str(calls), "TMPDIR": "/tmp"}
    done = subprocess.run(
        [BASH, "-c", handler + script], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert not done.stderr, f"{done.stderr}\n{script}"
    return [line.rstrip("\0").split("\0") for line in calls.read_text().splitlines()]


BASH = next(path for path in ("/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash") if os.path.exists(path))

#: What stands for a value in a synopsis.
VALUES = {
    "N": "2",
    "R": "2",
    "K": "2",
    "S": "1",
    "T": "1:00:00",
    "k": "2",
    "W": "1",
    "NAME": "rpv",
    "NETWORK=RATE": "generator=1e-4",
    "NAME=VALUE,...": "mGlu=1600",
}


def synopsis_commands(code: str) -> list[list[str]]:
    """The command lines that a piece of code in a sentence stands for; optional parts are given, alternatives all are.

    `hpcgan train CONFIG [--ranks N]` is one command, `hpcgan control RUN pause|resume` two.
    """
    words = [word for word in shlex.split(re.sub(r"[\[\]]", " ", code)) if word != "..."]
    commands: list[list[str]] = [[]]
    for word in words:
        alternatives = [word] if "=" in word or "/" in word else word.split("|")
        values = [VALUES.get(alternative, alternative) for alternative in alternatives]
        commands = [[*command, value] for command in commands for value in values]
    return commands
