"""Command lines that are wrong: exit code 2, one line, and what was meant."""

import pytest

from hpcgan.commands.cli import main
from hpcgan.suggest import choose, nearest


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["trian", "c.yaml"], "did you mean 'train'?"),
        (["data", "rpvv"], "did you mean 'rpv'?"),
        (["train", "c.yaml", "--rnaks", "2"], "did you mean '--ranks'?"),
        (["train", "c.yaml", "--epoch", "3"], "did you mean 'training.epochs=...'?"),
        (["train", "c.yaml", "--epochs=3"], "did you mean 'training.epochs=...'?"),
        (["evaluate", "x", "--smples", "3"], "did you mean '--samples'?"),
        (["sweep", "stauts", "runs/x"], "did you mean 'status'?"),
        (["train"], "required: config"),
        ([], "required: COMMAND"),
        (["data", "rpv", "--out", "x", "--events", "5", "--mass", "-5,3"], "a mass must be a positive number"),
        (["train", "c.yaml", "--ranks", "two"], "'two' is not a whole number"),
    ],
)
def test_one_line_with_what_was_meant(words, meant, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = main(words)
    said = capsys.readouterr().err
    assert code == 2
    assert meant in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(("word", "found"), [("HDRR", "hdr"), ("GeneratoR", "generator"), ("xyzzy", None), ("", None)])
def test_the_nearest_whatever_the_case(word, found):
    assert nearest(word, ["hdr", "generator"]) == found


def test_without_a_near_one_all_are_named():
    assert choose("xyzzy", ["hdr", "edr"], "networks") == "; the networks are: hdr, edr"
    assert choose("xyzzy", []) == ""
