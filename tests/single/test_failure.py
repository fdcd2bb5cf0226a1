"""Which ranks were killed, from what their launcher prints, and who is believed about it."""

import pytest

from hpcgan.errors import EnvironmentFailure, HpcganError, InputError
from hpcgan.launch.launcher import Place, Watch, launch
from hpcgan.launch.mpirun_output import Deaths
from hpcgan.launch.topology import UNKNOWN
from hpcgan.system import failure
from hpcgan.system.failure import VARIABLE, Failure

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


@pytest.mark.parametrize(("output", "cause"), [
    (MPIRUN, "rank 1 on vm: killed by signal 9 (Killed)"),
    (SRUN, "rank 1 on n2, rank 0 on n1: Killed"),  # whichever died first: both lines say the same
    (SRUN.replace("task 0: Killed", "task 0: Exited with exit code 14"),
     "rank 1 on n2: Killed; rank 0 on n1: Exited with exit code 14"),
    # The rank that has missed the other is heard of first.
    ("srun: error: n1: task 0: Exited with exit code 14\nsrun: error: n2: task 1: Killed\n",
     "rank 1 on n2: Killed; rank 0 on n1: Exited with exit code 14"),
    ("".join(f"srun: error: n{n}: tasks {2 * n}-{2 * n + 1}: Killed\n" for n in range(6)),
     "rank 0-1 on n0, rank 2-3 on n1, rank 4-5 on n2, rank 6-7 on n3 and 2 lines more: Killed"),
    (SRUN.splitlines(keepends=True)[0], "*** STEP 28.0 ON n1 CANCELLED AT 2026-11-24T20:03:38 ***"),
    ("epoch 3/18  679 samples/s\n", None),
    ("", None),
])  # fmt: skip
def test_a_launcher_tells_whom_it_has_seen_die(output, cause):
    deaths = Deaths()
    for first in range(0, len(output), 7):  # as it comes through a pipe
        deaths.feed(output[first : first + 7].encode())
    assert deaths.told() == cause


class Says:
    """A launcher of ranks that do what a line of shell does."""

    name = "mpirun"
    flavour = UNKNOWN

    def __init__(self, line):
        self.line = line

    def command(self, topology, argv, module):
        return ["sh", "-c", self.line]


RANK = Failure("training", "MemoryError: Unable to allocate 2 GiB", 0)


@pytest.mark.parametrize(("told", "code", "expected"), [
    (None, 137, Failure("environment", "rank 1 on vm: killed by signal 9 (Killed)")),
    (RANK, 137, RANK),  # the ranks know best
    (None, 0, None),
    (None, 75, None),
])  # fmt: skip
def test_the_launcher_is_heard_where_the_ranks_have_said_nothing(tmp_path, told, code, expected):
    file = tmp_path / "failure.json"
    env = {"PATH": "/usr/bin:/bin", VARIABLE: str(file)}
    if told is not None:
        failure.tell(told, env)
    script = f"cat >&2 <<'END'\n{MPIRUN}END\nexit {code}"
    assert launch([], 2, place=Place(Says(script), env=env), watch=Watch(report=lambda line: None)) == code
    assert failure.read(file) == expected


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": "luck", "text": "x", "rank": null}', '{"kind": "user"}'])
def test_what_is_no_failure_is_none(tmp_path, content):
    (tmp_path / "failure.json").write_text(content)
    assert failure.read(tmp_path / "failure.json") is None


def test_the_first_failure_stays(tmp_path):
    env = {VARIABLE: str(tmp_path / "failure.json")}
    failure.tell(RANK, env)
    failure.tell(Failure("environment", "killed"), env)
    assert failure.read(tmp_path / "failure.json") == RANK
    failure.tell(RANK, {})  # nobody wants to know
    failure.tell(RANK, {VARIABLE: str(tmp_path / "absent" / "failure.json")})


def test_a_failure_is_that_of_its_error():
    assert Failure.of(InputError("no such file"), 1) == Failure("user", "no such file", 1)
    assert Failure.of(HpcganError("the loss is NaN", collective=True), 1) == Failure("training", "the loss is NaN")
    assert Failure.of(EnvironmentFailure("the disk is full")).kind == "environment"
    assert Failure.of(OSError(5, "Input/output error")).kind == "environment"
    assert Failure.of(KeyError("x"), 2) == Failure("training", "KeyError: 'x'", 2)
    assert str(Failure.of(KeyError("x"), 2)) == "rank 2: KeyError: 'x'"
    for kind, error in (("user", InputError), ("training", HpcganError), ("environment", EnvironmentFailure)):
        again = Failure(kind, "x").error()
        assert (type(again), str(again), again.collective) == (error, "x", True)
        assert Failure.of(again) == Failure(kind, "x")
