"""What launchers promise, and the refusal when MPI reports something else."""

import pytest

from hpcgan.errors import HpcganError, InputError
from hpcgan.launch.world import (
    World,
    check_world,
    expected_world,
    process_age,
    ranks_of_launcher,
    starts_ranks,
    stdout_is_terminal,
)
from hpcgan.system.allocation import between_steps, in_step, outside

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


# --- who starts ranks -------------------------------------------------------------------------------------

SHELL = {  # of `srun --pty bash`
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
SALLOC = {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "4", "SLURM_JOB_NUM_NODES": "2"}


@pytest.mark.parametrize(
    ("env", "asked", "starts"),
    [
        ({}, None, False),
        ({}, 1, False),
        ({}, 2, True),
        (SHELL, None, False),
        (SHELL, 2, True),
        (SALLOC, 4, True),
        (SALLOC, 1, False),
        (OPEN_MPI, None, False),
        (OPEN_MPI, 4, False),
        (SRUN, 7, False),
        ({**SHELL, **OPEN_MPI}, 4, False),  # mpirun, started in the shell of a step
    ],
)
def test_who_starts_ranks(env, asked, starts, capsys):
    assert starts_ranks(asked, env) is starts
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("env", [SRUN, OPEN_MPI, {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}])
def test_ranks_of_a_launcher_start_no_ranks(env):
    with pytest.raises(InputError, match=r"--ranks 3: the launcher has already started \d ranks; leave it out"):
        starts_ranks(3, env)


@pytest.mark.parametrize("env", [SALLOC, {"SLURM_JOB_ID": "17", "SLURM_TASKS_PER_NODE": "2(x2)"}])
def test_one_rank_in_an_allocation_of_several_tasks_gives_a_hint(env, capsys):
    assert not starts_ranks(None, env)
    (line,) = capsys.readouterr().err.splitlines()
    assert "4 tasks" in line
    assert "--ranks 4" in line
    assert "srun --mpi=pmix" in line


def test_a_step_of_one_task_is_a_shell_and_its_terminal_a_terminal(monkeypatch):
    assert expected_world(SHELL) == World(1, 0, 0, 1, "srun")
    assert ranks_of_launcher(SHELL) is None
    assert ranks_of_launcher(SRUN) == expected_world(SRUN)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert stdout_is_terminal(SHELL)


def test_the_shell_of_salloc_is_no_step():
    """Slurm calls it one, of a number that it keeps for that."""
    own = {**SHELL, "SLURM_STEP_ID": "4294967290"}
    assert in_step(SHELL)
    assert not in_step(own)
    assert expected_world(own) is None


def test_ranks_that_are_started_in_a_step_are_told_of_the_allocation_alone():
    of_step = {**SHELL, "PMIX_RANK": "0", "PMI_FD": "3", "SLURM_CPU_BIND": "mask_cpu:0x1", "SLURM_SRUN_COMM_HOST": "n1"}
    kept = {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "1", "SLURM_CONF": "/s", "PATH": "/bin", "OMPI_MCA_btl": "tcp"}
    assert between_steps({**of_step, **kept}) == {**kept, "SLURM_OVERLAP": "1"}
    assert between_steps({**SALLOC, "SLURM_EXPORT_ENV": "NONE"}) == SALLOC


def test_outside_of_a_job_only_the_configuration_of_slurm_is_left():
    inside = {**SRUN, **OPEN_MPI, "SLURM_MEM_PER_CPU": "200", "SLURM_TRES_PER_TASK": "cpu:2", "SLURMD_NODENAME": "n1"}
    kept = {"SLURM_CONF": "/s", "SLURM_JWT": "x", "PATH": "/bin", "SBATCH_ACCOUNT": "a", "OMPI_MCA_btl": "tcp"}
    assert outside({**inside, **kept, "OMPI_MCA_orte_x": "1", "PMIX_X": "", "HPCGAN_TERMINAL": "1"}) == kept


def test_the_age_of_this_process():
    first = process_age()
    assert 0 < first <= process_age()
