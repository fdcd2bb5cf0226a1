"""Trainings on copies of their data on the node's own storage (`data.stage`)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time

import needs
import pytest
import tiny
import yaml

needs.tensorflow()

from recorded import recorded  # noqa: E402

from hpcgan.comm.base import SerialComm  # noqa: E402
from hpcgan.commands import cli  # noqa: E402
from hpcgan.data import staging  # noqa: E402
from hpcgan.errors import EXIT_DONE, EnvironmentFailure, InputError, Interrupted  # noqa: E402
from hpcgan.problems import run_data  # noqa: E402
from hpcgan.problems.detector_images.rpv import RpvProblem  # noqa: E402
from hpcgan.runs import checkpoint, records  # noqa: E402
from hpcgan.system.files import file_lock  # noqa: E402
from hpcgan.training import staged  # noqa: E402

pytestmark = pytest.mark.usefixtures("warm")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def local(tmp_path, monkeypatch):
    """A folder of this node's, by the variable of a site."""
    monkeypatch.setenv("NODE_SCRATCH", str(tmp_path / "local"))
    return tmp_path / "local"


STAGE = "data.stage=$NODE_SCRATCH"


def train(data, folder, *overrides, stop=None, comm=None):
    return tiny.train(tiny.config(data, *overrides), folder, stop, comm)


def copies_of(run):
    return [record["copies"] for record in recorded(run.metrics_file, "start")]


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*.h5"))


def test_a_training_on_copies_has_the_bits_of_one_without(data, tmp_path, local, capsys):
    plain, copied = train(data, tmp_path / "plain"), train(data, tmp_path / "copied", STAGE)
    first = capsys.readouterr()
    ours, theirs = (checkpoint.load_latest(run.checkpoints, pytest.fail) for run in (copied, plain))
    tiny.assert_same_state(ours, theirs)
    assert copied.load_config().identity_hash() == plain.load_config().identity_hash()
    assert files_in(local) == ["train.h5", "val.h5"]

    # what it cost is recorded and said
    assert copies_of(plain) == [[]]
    ((copy,),) = copies_of(copied)
    size = sum((data / name).stat().st_size for name in ("train.h5", "val.h5"))
    assert (copy["node"], copy["copied_bytes"]) == (staging.node_name({}), size)
    assert copy["seconds"] > 0
    assert f"data copied to 1 node ({staging.size_text(size)} in " in first.out
    assert copy["folder"] in first.out

    # the run knows the data by where they are in truth, and the split that was not copied
    known = run_data.read(copied)
    assert known.places[0] == str(data)
    assert set(known.files) == {"train", "val", "test"}
    assert "hpcgan evaluate" not in first.err
    assert run_data.load(copied).data.path == data
    assert copied.load_config().data.stage == "$NODE_SCRATCH"

    # the same run goes on, on the copies that are there, or without
    train(data, copied.path, STAGE, "training.epochs=3")
    assert f"data already on 1 node: {copy['folder']}" in capsys.readouterr().out
    train(data, copied.path, "training.epochs=4")
    assert [[c["copied_bytes"] for c in copies] for copies in copies_of(copied)] == [[size], [0], []]


def test_a_file_as_the_data(data, tmp_path, local):
    """Both splits are the same one."""
    run = train(data / "train.h5", tmp_path / "run", STAGE)
    assert files_in(local) == ["train.h5"]
    assert run_data.read(run).places[0] == str(data / "train.h5")


@pytest.mark.parametrize("stop", [None, 3], ids=["done", "interrupted"])
def test_copies_that_are_not_kept(data, tmp_path, local, stop):
    """They go at the end of each attempt, however it ends; its next one makes them again."""
    not_kept = (STAGE, "data.stage_keep=false", "training.epochs=1")
    if stop is not None:
        with pytest.raises(Interrupted, match="checkpoint written"):
            train(data, tmp_path / "run", *not_kept, stop=tiny.StopAt(stop))
        assert files_in(local) == []
    run = train(data, tmp_path / "run", *not_kept)
    assert files_in(local) == []
    assert all(copies[0]["copied_bytes"] for copies in copies_of(run))


def test_copies_that_another_training_reads_are_kept(data, tmp_path, local):
    train(data, tmp_path / "first", STAGE, "training.epochs=1")
    with staged.staged(tiny.config(data, STAGE), SerialComm()) as place:
        train(data, tmp_path / "run", STAGE, "data.stage_keep=false", "training.epochs=1")
        assert files_in(place.config.data.path) == ["train.h5", "val.h5"]


def test_a_request_to_stop_while_data_are_copied(data, tmp_path, local, monkeypatch):
    monkeypatch.setattr(staging, "PIECE", 4096)
    monkeypatch.setattr(staged, "SLICE_S", 0.0)
    with pytest.raises(Interrupted) as error:
        train(data, tmp_path / "run", STAGE, stop=tiny.StopAt(4))
    assert error.value.exit_code == 75
    assert "while data were copied (data.stage); run the same command to go on" in str(error.value)
    assert [path for path in local.rglob("*") if path.suffix in (".tmp", ".h5")] == []
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    train(data, tmp_path / "run", STAGE, "training.epochs=1")


def test_how_far_a_long_copy_is(data, tmp_path, local, monkeypatch, capsys):
    monkeypatch.setattr(staging, "PIECE", 4096)
    monkeypatch.setattr(staged, "SLICE_S", 0.0)
    monkeypatch.setattr(staged, "SAY_EVERY_S", 0.0)
    with staged.staged(tiny.config(data, STAGE), SerialComm()):
        pass
    assert "copying data: 4.1 kB of 88.8 kB\ncopying data: 8.19 kB of 88.8 kB\n" in capsys.readouterr().out


def test_whose_copy_is_waited_for_is_said_while_another_job_copies(data, tmp_path, local, monkeypatch, capsys):
    """The job that waits does not know how much there is to be copied."""
    monkeypatch.setattr(staged, "SLICE_S", 0.0)
    monkeypatch.setattr(staged, "SAY_EVERY_S", 0.0)
    monkeypatch.setattr(staging, "POLL_S", 0.0)
    store = staging.Store(STAGE.partition("=")[2])
    store.make()
    lock = file_lock(store.path / ".copying")
    lock.__enter__()
    looks = iter(range(5))
    poll = time.sleep

    def sleep(seconds):
        if next(looks, None) is None:
            lock.__exit__(None, None, None)  # the other job is done
        poll(seconds)

    monkeypatch.setattr(staging.time, "sleep", sleep)
    with staged.staged(tiny.config(data, STAGE), SerialComm()):
        pass
    assert "copying data: another job's copy is waited for\n" in capsys.readouterr().out


def test_data_that_are_not_there(data, tmp_path, local):
    with pytest.raises(InputError, match="no such file"):
        train(tmp_path / "nowhere", tmp_path / "run", STAGE)
    assert not local.exists()


@pytest.mark.parametrize(
    ("stage", "error", "text"),
    [
        ("$NO_SUCH_VARIABLE/x", InputError, r"data\.stage: \$NO_SUCH_VARIABLE of .* is not set on node"),
        ("~nobody-of-this-name/x", InputError, r"data\.stage: '~nobody-of-this-name/x' on node"),
        ("/proc/hpcgan", InputError, r"data\.stage: /proc/hpcgan on node .* cannot be written"),
    ],
)
def test_a_folder_that_cannot_be_used(data, tmp_path, stage, error, text):
    with pytest.raises(error, match=text):
        train(data, tmp_path / "run", f"data.stage={stage}")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_folder_on_a_file_system_that_nodes_share(data, tmp_path, local, monkeypatch, capsys):
    monkeypatch.setattr(staging, "_file_system", lambda path: "lustre")
    with staged.staged(tiny.config(data, STAGE), SerialComm()):
        pass
    assert capsys.readouterr().err == (
        f"hpcgan: warning: data.stage: {local} on node {staging.node_name({})} is on a file system that nodes share "
        "(lustre), and no storage of the node's own: a copy gains nothing there\n"
    )


def test_a_run_with_other_data_is_refused_by_the_name_of_the_file(data, tmp_path, local):
    run = train(data, tmp_path / "run", STAGE, "training.epochs=1")
    other = tiny.write_data(tmp_path / "other", 120)
    with pytest.raises(InputError, match=str(other / "train.h5")):
        train(other, run.path, STAGE)


def test_a_copy_that_cannot_be_made_is_the_environments_fault(data, tmp_path, local, monkeypatch):
    def fill(store, needed):
        raise EnvironmentFailure("no room on node n7")

    monkeypatch.setattr(staging.Store, "make_room", fill)
    with pytest.raises(Exception, match="no room on node n7") as error:
        train(data, tmp_path / "run", STAGE)
    assert error.value.kind == "environment"


@pytest.fixture
def file(data, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny.config(data, STAGE).dump()))
    return str(path)


def dry_run(file, capsys, *overrides):
    """What `--dry-run` says, whose output is YAML all the same."""
    assert cli.main(["train", file, *overrides, "--dry-run"]) == EXIT_DONE
    out = capsys.readouterr().out
    assert yaml.safe_load(out)["name"] == "tiny"
    return out.splitlines()[-1]


def test_a_dry_run_says_what_would_be_copied(file, local, capsys, monkeypatch):
    text = dry_run(file, capsys)
    assert text.startswith(f"# data.stage: 2 of 2 files, 88.8 kB, are to be copied to {local}/hpcgan-data-")
    assert not local.exists()
    with staged.staged(tiny.config(staged_data(file), STAGE), SerialComm()) as place:
        assert dry_run(file, capsys) == f"# data.stage: 2 files are in {place.config.data.path} already, on this node"
    assert "/nowhere/train.h5: no such file" in dry_run(file, capsys, "data.path=/nowhere")
    monkeypatch.delenv("NODE_SCRATCH")
    unset = "# data.stage on this node: data.stage: $NODE_SCRATCH of '$NODE_SCRATCH' is not set on node"
    assert dry_run(file, capsys).startswith(unset)
    assert "data.stage" not in dry_run(file, capsys, "data.stage=null")


def test_files_in_folders_keep_their_places(data, tmp_path, local, monkeypatch):
    """As those of several particles have them; a file elsewhere is refused."""
    shutil.copytree(data, tmp_path / "several" / "gamma")
    config = tiny.config(tmp_path / "several", STAGE)
    monkeypatch.setattr(RpvProblem, "files", lambda self, path, split: {"gamma": path / "gamma" / f"{split}.h5"})
    with staged.staged(config, SerialComm()) as place:
        assert files_in(place.config.data.path / "gamma") == ["train.h5", "val.h5"]
    monkeypatch.setattr(RpvProblem, "files", lambda self, path, split: {"": data / f"{split}.h5"})
    with pytest.raises(InputError, match="is not in the folder of the data"), staged.staged(config, SerialComm()):
        pass


@pytest.mark.parametrize("synthetic", [False, True])
def test_a_study_of_speed_reads_copies_as_a_training_does(file, local, tmp_path, synthetic):
    request = {"config": file, "overrides": [], "folder": str(tmp_path), "kind": "steps"}
    request |= {"steps": 10, "warm_up": 1, "synthetic": synthetic}
    (tmp_path / "request.json").write_text(json.dumps(request))
    argv = [sys.executable, "-m", "hpcgan.training.timing", str(tmp_path / "request.json")]
    subprocess.run(argv, check=True, timeout=600)
    assert (tmp_path / "0.json").exists()
    assert files_in(local) == ([] if synthetic else ["train.h5", "val.h5"])


def staged_data(file):
    with open(file) as stream:
        return yaml.safe_load(stream)["data"]["path"]


def test_copies_are_removed_by_a_command(data, local, capsys):
    with staged.staged(tiny.config(data, STAGE), SerialComm()) as place:
        store = place.config.data.path.parent
        assert cli.main(["data", "unstage", "$NODE_SCRATCH"]) == EXIT_DONE
        assert capsys.readouterr().out.endswith(f"{store}: 0 data sets removed (0 kB), 1 left that are being read\n")
    assert cli.main(["data", "unstage", "$NODE_SCRATCH"]) == EXIT_DONE
    assert capsys.readouterr().out == f"{store}: 1 data set removed (88.8 kB)\n"
    assert files_in(local) == []


def test_a_record_of_an_attempt_without_copies_is_read():
    line = {"kind": "start", "attempt": 1, "step": 0, "time": 1.0, "ranks": 2, "samples": 0}
    assert records._ANY.validate_json(json.dumps(line)).copies == ()


@pytest.mark.parametrize(
    ("copies", "text"),
    [
        ([("n1", "/a", 2_000_000_000, 3.0), ("n2", "/a", 1_000, 4.0)], "copied to 2 nodes (2 GB in 4.0 s): /a"),
        ([("n1", "/a", 0, 0.1), ("n2", "/b", 5_000_000, 2.0)],
         "copied to 1 node (5 MB in 2.0 s), already on 1 node: /a and others"),
        ([("n1", "/a", 0, 0.1), ("n2", "/a", 0, 0.1)], "already on 2 nodes: /a"),
    ],
)  # fmt: skip
def test_the_line_on_all_nodes(copies, text):
    assert staged.summary(tuple(records.NodeCopy(*copy) for copy in copies)) == f"data {text}"
