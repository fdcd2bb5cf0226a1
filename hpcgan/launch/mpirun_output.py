"""What launchers print of the end of their ranks: mpirun's banners that say nothing new, and who was killed."""

from __future__ import annotations

import os
import re
from typing import IO

from hpcgan.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED
from hpcgan.system import streams


class BannerFilter:
    """Take mpirun's "exited with non-zero status" banner out of a byte stream.

    Only a banner about exit codes 2 and 75 is taken out: there the rank has printed its reason, or
    nothing went wrong. Everything else passes unchanged and, unless it may be the beginning of a
    banner, at once.
    """

    _RULE = re.compile(rb"-{20,}")
    _CODE = re.compile(rb"Exit code:\s*(\d+)")
    _LIMIT = 40  # lines; no banner is longer, so a lone rule cannot hold back a log

    def __init__(self) -> None:
        self._partial = b""
        self._block: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """What may be shown after `data` has come in."""
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()
        out = b"".join(self._line(line + b"\n") for line in lines)
        if not self._block and not self._partial.startswith(b"-"):
            out += self._partial
            self._partial = b""
        return out

    def finish(self) -> bytes:
        """What was still held back when the stream ended."""
        rest = b"".join(self._block) + self._partial
        self._block, self._partial = [], b""
        return rest

    def _line(self, line: bytes) -> bytes:
        is_rule = self._RULE.fullmatch(line.strip()) is not None
        if not self._block:
            if is_rule:
                self._block.append(line)
                return b""
            return line
        self._block.append(line)
        if not is_rule and len(self._block) < self._LIMIT:
            return b""
        block, self._block = b"".join(self._block), []
        code = self._CODE.search(block)
        hide = is_rule and b"non-zero" in block and (code is None or int(code[1]) in (EXIT_BAD_INPUT, EXIT_INTERRUPTED))
        return b"" if hide else block


class Deaths:
    """Which ranks were killed, as mpirun or srun tell the people: there is no other way to hear it from them."""

    LIMIT = 65536  # bytes of the end of the output, which is where it is told
    _MPIRUN = re.compile(rb"process rank (\d+) .*\bon node (\S+) exited\s+on\s+signal (.+?)\.?$", re.MULTILINE)
    _SRUN = re.compile(rb"^srun: error: (\S+): tasks? ([\d,-]+): (.+)$", re.MULTILINE)
    _STEP = re.compile(rb"^(?:srun|slurmstepd\S*): error: (.+)$", re.MULTILINE)
    _NAMED = 4  # lines of srun that are told

    def __init__(self) -> None:
        self._end = b""

    def feed(self, data: bytes) -> None:
        """Hear what was printed."""
        self._end = (self._end + data)[-self.LIMIT :]

    def of_srun(self) -> bool:
        """Whether srun has told of a rank."""
        return self._SRUN.search(self._end) is not None

    def told(self) -> str | None:
        """One line; None if nothing was said of a death."""
        if killed := self._MPIRUN.search(self._end):
            rank, node, reason = (part.decode(errors="replace") for part in killed.groups())
            return f"rank {rank} on {node}: killed by signal {reason}"
        reasons: dict[str, list[str]] = {}
        for parts in self._SRUN.findall(self._end):
            node, tasks, reason = (part.decode(errors="replace").strip() for part in parts)
            reasons.setdefault(reason, []).append(f"rank {tasks} on {node}")
        if reasons:
            # Nodes are not always heard of in the order in which their ranks died: a rank whose MPI has missed
            # another may be told first, with its exit code. Whoever was killed is named before it.
            ordered = sorted(reasons.items(), key=lambda item: item[0].startswith("Exited"))
            return "; ".join(f"{self._some(ranks)}: {reason}" for reason, ranks in ordered)
        step = self._STEP.search(self._end)
        return None if step is None else step[1].decode(errors="replace").strip()

    def _some(self, ranks: list[str]) -> str:
        more = f" and {len(ranks) - self._NAMED} lines more" if len(ranks) > self._NAMED else ""
        return f"{', '.join(ranks[: self._NAMED])}{more}"


def copy(source: IO[bytes], target: int, deaths: Deaths | None = None) -> None:
    """Copy what a process prints to a standard stream of this one; if that is gone, the process does not notice.

    Some launchers end their ranks where they cannot write, others keep silent about it. With `deaths`, mpirun's banners
    are left out, and `deaths` hears all of it.
    """
    banner = BannerFilter()
    with source:
        while data := os.read(source.fileno(), 65536):
            if deaths is not None:
                deaths.feed(data)
                data = banner.feed(data)
            streams.write(target, data)
        streams.write(target, banner.finish())
