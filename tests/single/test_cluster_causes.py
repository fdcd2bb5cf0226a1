"""What is said of engines that have ended, from the output of their job."""

import pytest

pytest.importorskip("ipyparallel")

from hpcgan.interactive.ipyparallel_cluster import find_cause

MPIRUN = """\
2026-11-24 20:18:12.340 [Engine.0.0] CRITICAL | received signal 15, stopping
--------------------------------------------------------------------------
prterun noticed that process rank 1 with PID 0 on node vm exited on
signal 9 (Killed).
--------------------------------------------------------------------------
"""
SRUN = """\
slurmstepd-n1: error: *** STEP 28.0 ON n1 CANCELLED AT 2026-11-24T20:03:38 ***
srun: Job step aborted: Waiting up to 7 seconds for job step to finish.
srun: error: n2: task 1: Killed
srun: error: n1: task 0: Killed
"""
RANK = """\
hpcgan: rank 0: MemoryError: Unable to allocate 2 GiB
Traceback (most recent call last):
"""
WATCHDOG = "hpcgan: error: no progress for 30 s: rank 1 does not answer (stopped, or node lost); resume\n"


@pytest.mark.parametrize(("log", "cause"), [
    (MPIRUN, "rank 1 on vm: killed by signal 9 (Killed)"),
    (SRUN, "rank 1 on n2, rank 0 on n1: Killed"),  # whichever died first: both lines say the same
    (SRUN.replace("task 0: Killed", "task 0: Exited with exit code 14"), "rank 1 on n2: Killed"),
    ("".join(f"srun: error: n{n}: tasks {2 * n}-{2 * n + 1}: Killed\n" for n in range(6)),
     "rank 0-1 on n0, rank 2-3 on n1, rank 4-5 on n2, rank 6-7 on n3 and 2 lines more: Killed"),
    (RANK + MPIRUN, "rank 0: MemoryError: Unable to allocate 2 GiB"),
    (MPIRUN + RANK, "rank 0: MemoryError: Unable to allocate 2 GiB"),  # the ranks know best
    (WATCHDOG + SRUN, "no progress for 30 s: rank 1 does not answer (stopped, or node lost); resume"),
    ("hpcgan: error: no mpirun found: run `make setup`\n", "no mpirun found: run `make setup`"),
    ("epoch 3/18  679 samples/s\n", None),
    ("", None),
])  # fmt: skip
def test_the_cause_comes_before_its_consequences(log, cause):
    assert find_cause(log) == cause
    assert find_cause(log, sure=True) == cause


def test_what_slurm_does_to_the_others_is_no_cause_as_long_as_there_may_be_another():
    first = SRUN.splitlines(keepends=True)[0]
    assert find_cause(first, sure=True) is None
    assert find_cause(first) == "*** STEP 28.0 ON n1 CANCELLED AT 2026-11-24T20:03:38 ***"
