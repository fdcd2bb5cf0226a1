"""Standard output that is closed, full or goes away, and users without a home: nothing dies of it with a traceback."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap

import pytest

from hpcgan.system import home

FULL = "No space left on device"


def run(code: str, *, shell: str = "", stderr=subprocess.PIPE, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python with its standard output as a shell makes it."""
    words = [sys.executable, "-c", textwrap.dedent(code)]
    full = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = ["bash", "-c", f'set -o pipefail; "$@" {shell}', "bash", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, env={**full, **env}, timeout=300, check=False)


CLI = """
import sys
from hpcgan.commands.cli import main
sys.exit(main({argv}))
"""
WORK = """
import select
import sys
from hpcgan.system import streams
streams.guard()
streams.go_on("the work goes on, see there")
for i in range(2000):
    print("line", i, flush=i % 3 == 0)
    if i == 0 and LEAVES:
        poll = select.poll()
        poll.register(1, 0)
        poll.poll()
print("done", file=sys.stderr)
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["jobs", "."], ["train", "configs/rpv.yaml", "--dry-run"]])
@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        (">/dev/full", 1, f"hpcgan: error: standard output cannot be written: {FULL}\n"),
        (">&-", 1, "hpcgan: error: standard output cannot be written: it is closed\n"),
        ("| sleep 0", 141, ""),
    ],
)
def test_commands_whose_output_is_all_they_make(shell, code, said, argv, unbuffered):
    if "sleep" in shell:  # whose end is waited for before anything is written
        program = "import time, select; p = select.poll(); p.register(1, 0); p.poll()\n" + CLI.format(argv=argv)
    else:
        program = CLI.format(argv=argv)
    done = run(program, shell=shell, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr.decode()) == (code, said)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("shell", "reason"),
    [(">/dev/full", FULL), (">&-", "it is closed"), ("| head -1", "Broken pipe"), ("</dev/null", "")],
)
def test_work_goes_on_and_says_so_once(shell, reason, unbuffered):
    # A reader that leaves is waited for: the pipe would hold all lines, and nothing be amiss until the end.
    done = run(f"LEAVES = {'head' in shell}\n{WORK}", shell=shell, PYTHONUNBUFFERED=unbuffered)
    notice = f"hpcgan: warning: standard output is gone ({reason}); the work goes on, see there\n" if reason else ""
    assert (done.returncode, done.stderr.decode()) == (0, notice + "done\n")


@pytest.mark.parametrize("shell", [">&- 2>&-", ">&- 2>&- <&-", ">/dev/full 2>&1", "2>/dev/full", "2>&- >/dev/full"])
def test_nobody_hears_it(shell):
    assert run(f"LEAVES = False\n{WORK}", shell=shell).returncode == 0


def test_descriptors_that_are_closed_are_not_given_to_files(tmp_path):
    code = f"""
    import os
    from hpcgan.system import streams
    streams.guard()
    file = open({str(tmp_path / "data")!r}, "wb")
    assert file.fileno() > 2, file.fileno()
    for descriptor in (1, 2):
        os.write(descriptor, b"of a library in C")
    """
    assert run(code, shell=">&- 2>&- <&-").returncode == 0
    assert (tmp_path / "data").read_bytes() == b""


def test_a_pipe_that_does_not_wait_gets_everything():
    code = """
    import os
    os.set_blocking(1, False)
    from hpcgan.system import streams
    streams.guard()
    for i in range(100_000):
        print("0123456789")
    """
    done = run(code, shell="| { sleep 0.2; wc -l; }")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, b"100000", b"")


@pytest.mark.parametrize(
    "env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_characters_that_the_encoding_lacks(env):
    code = r"""
    import sys, warnings
    from hpcgan.system import streams
    from hpcgan.system.console import print_table
    streams.guard(); streams.insist()
    print("1 \xb1 2"); print("a name with \udcff")
    print_table(["name"], [["\xfc"]], ["after \xfc"])
    print("\xb1 too", file=sys.stderr)
    """
    done = run(code, **env)
    assert (done.returncode, done.stderr) == (0, b"\\xb1 too\n")
    assert done.stdout.splitlines()[:2] == [b"1 \\xb1 2", b"a name with \\udcff"]


def test_what_others_print_with_goes_through_it_too():
    code = """
    import logging, sys, warnings
    from rich.console import Console
    from rich.progress import Progress
    from hpcgan.system import streams
    streams.guard(); streams.go_on("on")
    warnings.warn("a warning"); logging.warning("a line of a log")
    console = Console(force_terminal=True, force_interactive=True)
    with Progress(console=console) as bar:
        task = bar.add_task("x", total=200)
        for i in range(200):
            bar.update(task, advance=1); console.print("line"); print("error", file=sys.stderr)
    """
    done = run(code, shell=">/dev/full")
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"standard output is gone") == 1
    done = run(code, shell=">/dev/full 2>&1")
    assert (done.returncode, done.stderr) == (0, b"")


# --- the user's folder ---------------------------------------------------------------------------------------------


def test_a_home_is_what_the_environment_or_the_system_says(tmp_path, monkeypatch):
    assert home.find({"HOME": str(tmp_path)}) == tmp_path
    monkeypatch.setattr("pwd.getpwuid", lambda number: (_ for _ in ()).throw(KeyError(number)))
    assert home.find({}) is None
    assert home.find({"HOME": ""}) is None


def test_without_a_home_there_is_a_private_stand_in(tmp_path, monkeypatch):
    monkeypatch.setattr("pwd.getpwuid", lambda number: (_ for _ in ()).throw(KeyError(number)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(home, "_stand_in", None)
    env: dict[str, str] = {}
    note = home.provide(env)
    assert note is not None
    assert "set HOME" in note
    folder = tmp_path / f"hpcgan-{os.getuid()}"
    assert env == {"HOME": str(folder)}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert home.provide(env) == note
    assert home.provide({"HOME": str(tmp_path)}) is None


def test_a_stand_in_that_somebody_else_may_write_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = tmp_path / f"hpcgan-{os.getuid()}"
    made.mkdir()
    made.chmod(0o777)
    assert home.stand_in() != made
    made.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    made.symlink_to("elsewhere")
    assert home.stand_in() != made


def test_a_home_that_cannot_be_written_stays_and_caches_go_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(home, "_writable", lambda folder: False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    env = {"HOME": "/proc/none", "XDG_CACHE_HOME": "/mine"}
    assert home.provide(env) is None
    stand_in = str(tmp_path / f"hpcgan-{os.getuid()}")
    assert env == {"HOME": "/proc/none", "XDG_CACHE_HOME": "/mine", "MPLCONFIGDIR": stand_in}


NAMELESS = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
NAMELESS += ["env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME"]


def may_be_nameless() -> bool:
    try:
        return subprocess.run([*NAMELESS, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


nameless = pytest.mark.skipif(not may_be_nameless(), reason="this system does not permit user namespaces")


@nameless
@pytest.mark.parametrize("env", [[], ["HOME=/proc/none"]], ids=str)
def test_mpirun_and_pictures_for_a_user_without_name_and_home(tmp_path, env):
    code = """
    import os, sys
    from hpcgan.system import home
    from hpcgan.launch.mpirun import find_mpirun
    home.provide(os.environ)
    from matplotlib.figure import Figure
    Figure().savefig("x.png")
    print(find_mpirun().version)
    """
    tmp_path.chmod(0o777)
    command = [*NAMELESS, *env, sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
