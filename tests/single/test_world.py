"""What launchers promise, and the refusal when MPI reports something else."""

import pytest

from hpcgan.errors import HpcganError
from hpcgan.launch.world import World, check_world, expected_world, stdout_is_terminal

OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
SRUN = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
    "SLURM_NTASKS": "7",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
}


@pytest.mark.parametrize(
    ("env", "world"),
    [
        ({}, None),
        ({"PATH": "/bin", "OMPI_MCA_mpi_yield_when_idle": "1"}, None),
        (OPEN_MPI, World(4, 3, 1, 2, "mpirun")),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, World(1, 0, None, None, "mpirun")),
        ({"MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_RANK": "1"}, World(2, 1, None, None, "mpirun")),
        (
            {"PMI_SIZE": "2", "PMI_RANK": "0", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"},
            World(2, 0, 0, 2, "mpirun"),
        ),
        (SRUN, World(7, 5, 1, 2, "srun")),
        ({**SRUN, "SLURM_NODEID": "3"}, World(7, 5, 1, 1, "srun")),
        ({**SRUN, "SLURM_STEP_TASKS_PER_NODE": "what"}, World(7, 5, 1, None, "srun")),
        # pmi2 sets these beside Slurm's own; it is srun that has to be told --mpi=pmix.
        ({**SRUN, "PMI_SIZE": "7", "PMI_RANK": "5"}, World(7, 5, 1, 2, "srun")),
        # A batch shell, and an interactive one: Slurm runs it, but it is no task of a step.
        ({"SLURM_JOB_ID": "17", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS": "8"}, None),
        # mpirun in a batch job starts its daemons as a step of one task a node; the ranks inherit it.
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", **OPEN_MPI}, World(4, 3, 1, 2, "mpirun")),
    ],
)
def test_expected_world(env, world):
    assert expected_world(env) == world


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "two", "OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_SIZE='two'"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "-1"}, "OMPI_COMM_WORLD_RANK='-1'"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "without OMPI_COMM_WORLD_RANK"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "2"}, "does not fit"),
        ({"OMPI_COMM_WORLD_SIZE": "0", "OMPI_COMM_WORLD_RANK": "0"}, "does not fit"),
    ],
)
def test_a_broken_environment_is_named(env, says):
    with pytest.raises(HpcganError, match=says):
        expected_world(env)


def test_the_promised_world_is_accepted():
    check_world(World(4, 3, 1, 2, "mpirun"), 4, 3)
    check_world(World(1, 0, None, None, "srun"), 1, 0)
    check_world(None, 1, 0)


@pytest.mark.parametrize(
    ("expected", "size", "rank", "says"),
    [
        (
            World(2, 1, 1, 2, "mpirun"),
            1,
            0,
            r"mpirun started 2 ranks, but MPI reports a world of 1; .*mpirun",
        ),
        (World(4, 1, 1, 2, "srun"), 1, 0, r"srun started 4 ranks, but .* world of 1; .*--mpi=pmix"),
        (World(4, 1, 1, 2, "mpirun"), 2, 1, "started 4 ranks, but MPI reports a world of 2"),
        (World(4, 1, 1, 2, "mpirun"), 4, 2, r"rank 1 of 4, MPI calls it rank 2"),
        (None, 2, 0, "no launcher"),
    ],
)
def test_another_world_is_refused_with_a_remedy(expected, size, rank, says):
    with pytest.raises(HpcganError, match=says) as caught:
        check_world(expected, size, rank)
    assert "\n" not in str(caught.value)


def test_stdout_is_terminal(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert stdout_is_terminal({})
    assert not stdout_is_terminal(OPEN_MPI)  # mpirun's pseudo-terminal
    assert not stdout_is_terminal(SRUN)
    assert stdout_is_terminal({**OPEN_MPI, "HPCGAN_TERMINAL": "1"})
    assert not stdout_is_terminal({**OPEN_MPI, "HPCGAN_TERMINAL": "0"})
    monkeypatch.setattr("sys.stdout.isatty", lambda: False)
    assert not stdout_is_terminal({})
