"""What a user names on the command line, numbers and outputs, is looked at first: by each command alike."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys

import pytest

from hpcgan import errors
from hpcgan.commands import arguments, cli

NUMBERS = [
    (["data", "rpv", "--mass", "1400,850", "--out", "d", "--events", "10"], ["--events", "--seed", "--jobs"]),
    (["data", "qcd", "--out", "d", "--events", "10"], ["--events", "--seed", "--jobs"]),
    (["data", "pileup", "--out", "d", "--events", "10"], ["--events", "--seed", "--jobs", "--mu"]),
    (["data", "cosmo", "--out", "d", "--maps", "10"], ["--maps", "--seed", "--jobs", "--side"]),
    (["data", "calo", "--particle", "gamma", "--out", "d", "--events", "10"], ["--events", "--seed", "--jobs"]),
    (["generate", "run", "-n", "1", "--out", "g.h5"], ["-n", "--seed", "--ranks", "--batch-size"]),
    (["evaluate", "run"], ["--events", "--samples", "--classifier-units", "--classifier-epochs"]),
    (["overlay", "--pileup", "p", "--signal", "s", "--mu", "1", "--out", "o"], ["--mu", "--events", "--seed"]),
    (["scaling", "c.yaml", "--ranks", "1"], ["--repeats", "--steps", "--warm-up", "--limit"]),
    (["scaling", "model", "study"], ["--ranks-per-node", "--seed"]),
    (["sweep", "c.yaml"], ["--trials", "--concurrency", "--ranks", "--seed", "--top", "--repeats", "--retries"]),
    (
        ["submit", "c.yaml"],
        ["--nodes", "--ranks-per-node", "--threads", "--gpus", "--signal", "--requeues", "--retries", "--min-ranks"],
    ),
    (["train", "c.yaml"], ["--ranks"]),
    (["supervise"], ["--ranks", "--retries", "--requeues", "--min-ranks"]),
    (["chaos", "c.yaml", "--out", "o"], ["--failures", "--mtbf", "--seed", "--ranks", "--patience"]),
    (["doctor"], ["--ranks", "--timeout"]),
    (["control", "run", "pause"], ["--wait"]),
]
OPTIONS = [(command, option) for command, options in NUMBERS for option in options]


def refused(capsys, *argv) -> str:
    """What the command line says of arguments that it does not take."""
    assert cli.main([str(part) for part in argv]) == errors.EXIT_BAD_INPUT
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("number", ["-1", "nan", "1e400", str(10**30), str(2**400), "much", "", "1\n2"])
@pytest.mark.parametrize(("command", "option"), OPTIONS, ids=lambda part: part if isinstance(part, str) else part[0])
def test_numbers_out_of_range(command, option, number, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, *command, f"{option}={number}" if option != "-n" else f"-n{number}")
    assert option in said
    assert len(said) < 300
    assert not list(tmp_path.iterdir())


def test_whole_numbers_and_their_limits():
    assert arguments.count("7") == 7
    assert arguments.seed(str(2**63 - 1)) == 2**63 - 1
    assert arguments.seed("0") == 0
    assert arguments.whole(0)("0") == 0
    for text, said in (
        ("0", "give at least 1"),
        ("1e3", "is not a whole number"),
        ("1.5", "is not a whole number"),
        ("٣", "is not a whole number"),
        (str(10**13), f"give at most {10**12}"),
        ("9" * 5000, "is not a whole number"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=said):
            arguments.count(text)
    with pytest.raises(argparse.ArgumentTypeError, match=r"2\^63 - 1"):
        arguments.seed(str(2**63))


def test_numbers_with_a_fraction():
    assert arguments.seconds("0.5") == 0.5
    assert arguments.real()("0") == 0.0
    for text, said in (("0", "more than 0"), ("-1", "more than 0"), ("inf", "at most"), ("nan", "not a number")):
        with pytest.raises(argparse.ArgumentTypeError, match=said):
            arguments.seconds(text)


FILES = [
    (["generate", "run", "-n", "1"], "--out"),
    (["data", "info", "some.h5"], "--picture"),
]
FOLDERS = [
    (["data", "qcd", "--events", "10"], "--out"),
    (["data", "import", "some.root"], "--out"),
    (["data", "export", "some.h5"], "--out"),
    (["evaluate", "run"], "--out"),
    (["overlay", "--pileup", "p", "--signal", "s", "--mu", "1"], "--out"),
    (["export", "run"], "--out"),
    (["scaling", "c.yaml", "--ranks", "1"], "--out"),
    (["sweep", "c.yaml"], "--out"),
    (["train", "c.yaml"], "--run"),
    (["submit", "c.yaml"], "--run"),
]


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A folder with what a name may stand for."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to-folder").symlink_to("folder")
    (tmp_path / "to-file").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    yield tmp_path
    assert (tmp_path / "file").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {
        "file", "folder", "loop", "to-folder", "to-file", "pipe", "socket"
    }  # fmt: skip
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder", "is a folder"),
        ("to-folder", "is a folder"),
        ("new.h5/", "folder"),
        ("pipe", "a device, a pipe or a socket"),
        ("socket", "a device, a pipe or a socket"),
        ("/dev/null", "a device, a pipe or a socket"),
        ("/dev/full", "a device, a pipe or a socket"),
        ("none/x.h5", "there is no folder none"),
        ("file/x.h5", "is not a folder"),
        ("loop", "leads to itself"),
        ("n" * 300 + ".h5", "too long"),
        ("n" * 230 + ".h5", "too long"),
        ("a\nb.h5", "a line break"),
        ("", "is empty"),
        ("~nobody-of-this-name/x.h5", "there is no such user"),
    ],
)
@pytest.mark.parametrize(("command", "option"), FILES, ids=lambda part: part if isinstance(part, str) else part[0])
def test_files_that_cannot_be_written(command, option, name, reason, capsys, places):
    said = refused(capsys, *command, f"{option}={name}")
    assert option in said
    assert reason in said


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file", "is not a folder"),
        ("to-file", "is not a folder"),
        ("pipe", "is not a folder"),
        ("/dev/null", "is not a folder"),
        ("file/below", "is not a folder"),
        ("file/far/below", "is not a folder"),
        ("loop", "leads to itself"),
        ("n" * 300, "too long"),
        ("new/" + "n" * 230, "too long"),
        ("/".join(["n" * 100] * 50), "too long"),
        ("a\nb", "a line break"),
        ("", "is empty"),
        ("~nobody-of-this-name/x", "there is no such user"),
    ],
)
@pytest.mark.parametrize(("command", "option"), FOLDERS, ids=lambda part: part if isinstance(part, str) else part[0])
def test_folders_that_cannot_be_written(command, option, name, reason, capsys, places):
    said = refused(capsys, *command, f"{option}={name}")
    assert option in said
    assert reason in said


def test_links_are_written_through(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "new.h5").symlink_to("far/other.h5")  # of which there is none yet
    (tmp_path / "place").symlink_to("far/made")
    assert arguments.output_file(str(tmp_path / "new.h5")) == tmp_path.resolve() / "far" / "other.h5"
    assert arguments.output_folder(str(tmp_path / "place")) == tmp_path.resolve() / "far" / "made"
    (tmp_path / "lost.h5").symlink_to("none/other.h5")
    with pytest.raises(argparse.ArgumentTypeError, match="there is no folder"):
        arguments.output_file(str(tmp_path / "lost.h5"))


def test_names_that_are_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert arguments.output_file("~/x.h5") == tmp_path / "x.h5"
    assert str(arguments.output_file("x.h5")) == "x.h5"
    assert str(arguments.output_folder("a/b/c")) == "a/b/c"
    assert str(arguments.output_folder("new/")) == "new"
    assert str(arguments.run_folder("ü ± x")) == "ü ± x"


READ_ONLY = """
import argparse, os, sys
from hpcgan.commands import arguments
os.setgid(54321); os.setuid(54321)
for kind, name in ((arguments.output_file, "/x.h5"), (arguments.output_folder, "/x/y"), (arguments.output_folder, "/")):
    try:
        print(kind(name))
    except argparse.ArgumentTypeError as error:
        print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_read_only_folders():
    done = subprocess.run([sys.executable, "-c", READ_ONLY], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines() == [
        f"{path}: cannot be written ({where}Permission denied); name another place"
        for path, where in (("/x.h5", "/: "), ("/x/y", "/: "), ("/", ""))
    ]


def test_what_was_worked_out_is_shown_where_its_file_cannot_be_written(monkeypatch, capsys):
    from hpcgan.commands import jobs

    def run(args):
        raise errors.Unwritten("report.html: no room", "score 7")

    monkeypatch.setattr(jobs, "run", run)
    assert cli.main(["jobs"]) == errors.EXIT_FAILED
    said = capsys.readouterr()
    assert said.out == "score 7\n"
    assert said.err == "hpcgan: error: report.html: no room\n"


def test_data_are_not_put_in_the_place_of_links(tmp_path, capsys):
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere.h5"
    folder.mkdir()
    (folder / "val.h5").symlink_to(elsewhere)
    argv = ["data", "cosmo", "--maps", "10", "--side", "32", "--out", str(folder), "--force"]
    assert cli.main(argv) == errors.EXIT_BAD_INPUT
    assert "val.h5: is a symbolic link to" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["val.h5"]


def test_what_a_file_holds_is_shown_where_its_picture_cannot_be_written(tmp_path, capsys):
    argv = ["data", "cosmo", "--maps", "10", "--side", "32", "--out", str(tmp_path)]
    assert cli.main(argv) == errors.EXIT_DONE
    (tmp_path / "val.info.png").mkdir()
    capsys.readouterr()
    assert cli.main(["data", "info", str(tmp_path / "val.h5")]) == errors.EXIT_FAILED
    said = capsys.readouterr()
    assert "readable and valid" in said.out
    assert "picture cannot be written" in said.err


@pytest.mark.parametrize("setting", ["training.epochs", "training.batch_size", "scoring.events", "seed"])
@pytest.mark.parametrize("number", [-1, 2**64, 10**30])
def test_numbers_of_a_configuration(setting, number, capsys):
    assert cli.main(["train", "configs/rpv.yaml", f"{setting}={number}", "--dry-run"]) == errors.EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert f"{setting}: " in said
    assert len(said.splitlines()) == 1
