"""What a profile says: the times of all ranks on one clock, their parts, the slowest rank, a trace. No TensorFlow here.

Of a rank, the time from its first profiled batch to the end of its last profiled step has parts (`PARTS`). *Input* is
what `hpcgan.training.timing` calls so. A collective is cut where the last rank has come to it, by clocks that were
compared before and after (`hpcgan.comm.spans`): what a rank waits before is *wait*, what comes then is *communication*.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcgan.comm.spans import ClockOffset

#: The parts of a rank's time.
PARTS: Mapping[str, str] = {
    "compute": "the steps without their collectives",
    "wait": "in collectives, until the last rank has come",
    "communication": "in collectives, from then on: packing, transfer, unpacking",
    "input": "for the next batch",
    "other": "between steps: records, commands, checkpoints, scores",
}


@dataclass(frozen=True)
class RankTimes:
    """What a rank has measured, in seconds since 1970.

    Attributes
    ----------
    node : str
    fetches, steps : (n, 2) float64
        Begin and end of waiting for each batch, and of each step.
    names : list of str
        Of the collectives, in order.
    spans : (m, 3) float64
        Of each collective: when it was begun, when the rank began to wait, its end.
    """

    node: str
    fetches: np.ndarray
    steps: np.ndarray
    names: list[str]
    spans: np.ndarray

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> RankTimes:
        """From plain values."""
        fetches, steps = (np.asarray(plain[key], np.float64).reshape(-1, 2) for key in ("fetches", "steps"))
        spans = np.asarray([span[1:] for span in plain["spans"]], np.float64).reshape(-1, 3)
        return cls(plain["node"], fetches, steps, [span[0] for span in plain["spans"]], spans)

    @property
    def window(self) -> tuple[float, float]:
        """From the first batch to the end of the last step."""
        return float(self.fetches[0, 0]), float(self.steps[-1, 1])

    def by_clock(self, before: ClockOffset, after: ClockOffset) -> RankTimes:
        """The same by the clock of rank 0, which was compared with this rank's before and after."""
        begin, end = self.window
        drift = (after.seconds - before.seconds) / max(end - begin, 1e-9)

        def moved(times: np.ndarray) -> np.ndarray:
            return np.asarray(times - before.seconds - drift * np.clip(times - begin, 0.0, end - begin))

        return RankTimes(self.node, moved(self.fetches), moved(self.steps), self.names, moved(self.spans))


@dataclass(frozen=True)
class Collectives:
    """The collectives that all ranks took together.

    Attributes
    ----------
    names : list of str
    waiting, ended : (ranks, n) float64
        When each rank began to wait, and had the result.
    complete : (n,) float64
        When the last rank had come.
    last : (n,) int
        That rank.
    missing : int
        Collectives of some rank that have no match on others.
    """

    names: list[str]
    waiting: np.ndarray
    ended: np.ndarray
    complete: np.ndarray
    last: np.ndarray
    missing: int

    @classmethod
    def of(cls, ranks: Sequence[RankTimes]) -> Collectives:
        """Match the collectives of ranks by name and order, from the last one back."""
        places = []
        for rank in ranks:
            by_name = defaultdict(list)
            for place, name in enumerate(rank.names):
                by_name[name].append(place)
            places.append(by_name)
        names: list[str] = []
        chosen: list[list[int]] = [[] for _ in ranks]
        for name in places[0]:
            count = min(len(of_rank[name]) for of_rank in places)
            names += [name] * count
            for index, of_rank in zip(chosen, places, strict=True):
                index += of_rank[name][len(of_rank[name]) - count :]
        spans = np.stack([rank.spans[index] for rank, index in zip(ranks, chosen, strict=True)])
        order = np.argsort(spans[0, :, 2], kind="stable")
        spans, names = spans[:, order], [names[i] for i in order]
        begun = spans[:, :, 0]
        missing = max(len(rank.names) for rank in ranks) - len(names)
        return cls(names, spans[:, :, 1], spans[:, :, 2], begun.max(axis=0), begun.argmax(axis=0), missing)

    @property
    def wait(self) -> np.ndarray:
        """(ranks, n) seconds that each rank waited for the last one."""
        return np.clip(np.minimum(self.ended, self.complete) - self.waiting, 0.0, None)

    @property
    def transfer(self) -> np.ndarray:
        """(ranks, n) seconds from then on."""
        return np.clip(self.ended - np.maximum(self.waiting, self.complete), 0.0, None)


def summarise(ranks: Sequence[RankTimes], clock_error: float) -> dict[str, Any]:
    """Parts of each rank's time, collectives by name, and the slowest rank.

    Parameters
    ----------
    ranks : sequence of RankTimes
        By one clock.
    clock_error : float
        Of any rank's clock, s.

    Returns
    -------
    dict
        `ranks`: for each `rank`, `node`, `seconds` (of the `whole` and by part), `fractions`, `step_ms` (median),
        `last_in` (collectives to which it came last) and `waited_for_s` (by all others, summed). `collectives`: for
        each name `count`, and means over ranks of `wait_s` and `communication_s`. `slowest`: the rank for
        which others waited at least twice as long as for the mean of the rest; None if there is none, or if that is
        within the error of the clocks. `clock_error_s`, `unmatched`.
    """
    together = Collectives.of(ranks)
    wait, transfer = together.wait, together.transfer
    rows: list[dict[str, Any]] = []
    for number, rank in enumerate(ranks):
        begin, end = rank.window
        inside = _inside(together.waiting[number], rank.steps)
        waiting, sending = float(wait[number, inside].sum()), float(transfer[number, inside].sum())
        fetching, stepping = (float((times[:, 1] - times[:, 0]).sum()) for times in (rank.fetches, rank.steps))
        seconds = {
            "compute": stepping - waiting - sending,
            "wait": waiting,
            "communication": sending,
            "input": fetching,
            "other": end - begin - fetching - stepping,
        }
        is_last = together.last == number
        rows.append(
            {
                "rank": number,
                "node": rank.node,
                "whole_s": end - begin,
                "seconds": seconds,
                "fractions": {part: value / (end - begin) for part, value in seconds.items()},
                "step_ms": float(np.median(rank.steps[:, 1] - rank.steps[:, 0]) * 1e3),
                "last_in": int(is_last.sum()),
                "waited_for_s": float(wait[:, is_last].sum()),
            }
        )
    count = len(together.names)
    *others, most = sorted(row["waited_for_s"] for row in rows)
    blamed = next(row for row in rows if row["waited_for_s"] == most)
    # By more than clocks can err, and more than by chance: ranks that are alike take turns.
    is_told = bool(others) and most > 2 * clock_error * count and most >= 2 * sum(others) / len(others)
    return {
        "ranks": rows,
        "collectives": _by_name(together),
        "slowest": blamed["rank"] if is_told else None,
        "clock_error_s": clock_error,
        "unmatched": together.missing,
    }


def _inside(times: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Whether each time lies in one of the steps, which are in order."""
    step = np.searchsorted(steps[:, 0], times, side="right") - 1
    return np.asarray((step >= 0) & (times <= steps[np.maximum(step, 0), 1]))


def _by_name(together: Collectives) -> list[dict[str, Any]]:
    names = np.asarray(together.names, dtype=object)
    rows = []
    for name in dict.fromkeys(together.names):
        is_named = names == name
        rows.append(
            {
                "name": name,
                "count": int(is_named.sum()),
                "wait_s": float(together.wait[:, is_named].sum(axis=1).mean()),
                "communication_s": float(together.transfer[:, is_named].sum(axis=1).mean()),
            }
        )
    return sorted(rows, key=lambda row: -row["wait_s"] - row["communication_s"])


LOOP, COLLECTIVES = 0, 1  # rows of a rank in the trace


def trace(ranks: Sequence[RankTimes], first_step: int) -> dict[str, Any]:
    """All ranks on one axis of time, as Chrome's trace format has it; for Perfetto or chrome://tracing.

    Parameters
    ----------
    ranks : sequence of RankTimes
        By one clock.
    first_step : int
        Number of the first profiled step, from 1.
    """
    origin = min(rank.window[0] for rank in ranks)
    events: list[dict[str, Any]] = []

    def add(place: tuple[int, int], name: str, kind: str, begin: float, end: float) -> None:
        at, took = (round(seconds * 1e6, 1) for seconds in (begin - origin, end - begin))
        if took > 0:
            pid, row = place
            events.append({"ph": "X", "pid": pid, "tid": row, "name": name, "cat": kind, "ts": at, "dur": took})

    together = Collectives.of(ranks)
    for number, rank in enumerate(ranks):
        about = [("process_name", "name", f"rank {number} ({rank.node})"), ("process_sort_index", "sort_index", number)]
        events += [{"ph": "M", "pid": number, "name": name, "args": {key: value}} for name, key, value in about]
        for row, title in ((LOOP, "loop"), (COLLECTIVES, "collectives")):
            events.append({"ph": "M", "pid": number, "tid": row, "name": "thread_name", "args": {"name": title}})
        for times in rank.fetches:
            add((number, LOOP), "input", "input", *times)
        for step, times in enumerate(rank.steps, first_step):
            add((number, LOOP), f"step {step}", "step", *times)
        waiting, ended = together.waiting[number], together.ended[number]
        for name, begin, complete, end in zip(together.names, waiting, together.complete, ended, strict=True):
            add((number, COLLECTIVES), f"wait: {name}", "wait", begin, min(end, complete))
            add((number, COLLECTIVES), name, "communication", max(begin, complete), end)
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"origin_s": origin}}


def verdict(summary: Mapping[str, Any]) -> str:
    """Who is the slowest, in one sentence."""
    rows, slowest = summary["ranks"], summary["slowest"]
    count = sum(row["count"] for row in summary["collectives"])
    if len(rows) == 1:
        return "one rank, which waits for nobody"
    if not count:
        return "no collective was recorded, so nobody knows which rank is the slowest"
    if slowest is None:
        return "no rank is clearly slower than the others"
    row = rows[slowest]
    others = row["waited_for_s"] / (len(rows) - 1)
    return (
        f"rank {slowest} ({row['node']}) is the slowest: last in {row['last_in']} of {count} collectives, "
        f"for which each other rank waited {others:.2f} s ({others / row['whole_s']:.0%} of the time)"
    )


def text(summary: Mapping[str, Any]) -> str:
    """The summary as a page of text."""
    rows = summary["ranks"]
    lines = [summary["title"], "", f"{verdict(summary)}.", ""]
    lines.append(f"{'rank':<6}{'node':<20}{'step ms':>9}" + "".join(f"{part:>15}" for part in PARTS))
    for row in rows:
        parts = "".join(f"{row['fractions'][part]:>15.1%}" for part in PARTS)
        lines.append(f"{row['rank']:<6}{row['node'][:19]:<20}{row['step_ms']:>9.1f}{parts}")
    lines += ["", *(f"{part}: {what}" for part, what in PARTS.items())]
    if summary["collectives"]:
        lines += ["", f"{'collective':<44}{'count':>7}{'wait s':>10}{'comm. s':>10}   means over ranks"]
        lines += [
            f"{row['name'][:43]:<44}{row['count']:>7}{row['wait_s']:>10.3f}{row['communication_s']:>10.3f}"
            for row in summary["collectives"][:15]
        ]
    lines += ["", *summary["notices"]]
    return "\n".join(lines).rstrip() + "\n"
