"""Who is to blame when a job gets on no more."""

import json
import threading
import time

import pytest

from hpcgan.comm.watchdog import Watchdog, Words, diagnose


def words(*entries):
    return {rank: Words(rank, activity, collective) for rank, activity, collective in entries}


@pytest.mark.parametrize(
    ("size", "said", "cause"),
    [
        (
            4,
            words(*((r, "step 7", "generator") for r in (0, 1, 3))),
            "no progress for 60 s: rank 2 does not answer (stopped, or node lost); "
            "ranks 0, 1, 3 are waiting in 'generator' (step 7); ",
        ),
        (2, words((1, "step 7", "discriminator")), "rank 0 does not answer (stopped, or node lost); rank 1 is waiting"),
        (
            3,
            words((0, "step 7", "discriminator"), (1, "the data of step 7", None), (2, "step 7", "discriminator")),
            "60 s: rank 1 is busy with the data of step 7; ranks 0, 2 are waiting in 'discriminator' (step 7)",
        ),
        (
            2,
            words((0, "scoring epoch 1", "gather on rank 0"), (1, "step 9", "generator")),
            "rank 0 is waiting in 'gather on rank 0' (scoring epoch 1); rank 1 is waiting in 'generator' (step 9)",
        ),
        (20, words((19, "step 1", "x")), "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 11 more do not answer"),
    ],
)
def test_the_cause_comes_first(size, said, cause):
    line = diagnose(size, said, 60.0)
    assert cause in line
    assert "\n" not in line


class Peer:
    """A watchdog whose process does not really end."""

    def __init__(self, rank, size, folder, collective=None, timeout=0.5):
        self.ended = threading.Event()
        self.code = None
        self.dog = Watchdog(rank, size, timeout, folder, lambda: collective, self.exit)

    def exit(self, code):
        self.code = code
        self.ended.set()


def test_a_rank_that_does_not_answer_is_named(tmp_path, capfd):
    folder = tmp_path / "stalled"
    peers = [Peer(rank, 3, folder, "generator") for rank in (1, 2)]
    for peer in peers:
        peer.dog.beat("step 3")
    for peer in peers:
        assert peer.ended.wait(30)
        assert peer.code == 1
    said = capfd.readouterr().err
    assert said.count("no progress") == 1  # one rank speaks for all
    assert "rank 0 does not answer (stopped, or node lost); ranks 1, 2 are waiting in 'generator' (step 3)" in said


def test_who_is_only_a_little_behind_is_not_called_silent(tmp_path, capfd):
    """Its own time is not up, but it hears that others have given up."""
    folder = tmp_path / "stalled"
    late, first = Peer(0, 2, folder, None, timeout=3.0), Peer(1, 2, folder, "discriminator", timeout=3.0)
    first.dog.beat("step 3")
    time.sleep(1.0)
    late.dog.beat("the data of step 3")
    assert first.ended.wait(40)
    assert late.ended.wait(40)
    said = capfd.readouterr().err
    assert "rank 0 is busy with the data of step 3" in said


def test_progress_keeps_it_quiet_and_nothing_is_written(tmp_path):
    folder = tmp_path / "stalled"
    peer = Peer(0, 2, folder, timeout=1.0)
    end = time.monotonic() + 1.6
    while time.monotonic() < end:
        peer.dog.beat("step")
        time.sleep(0.05)
    peer.dog.close()
    assert not peer.ended.is_set()
    assert not folder.exists()


def test_without_a_common_folder_it_still_ends_the_job(tmp_path, capfd):
    blocked = tmp_path / "file"
    blocked.write_text("")
    peer = Peer(1, 2, blocked / "stalled", "barrier")
    assert peer.ended.wait(30)
    assert "rank 1 is waiting in 'barrier'" in capfd.readouterr().err


def test_broken_last_words_of_others_do_no_harm(tmp_path, capfd):
    folder = tmp_path / "stalled"
    folder.mkdir()
    (folder / "rank-0.json").write_text("{")
    (folder / "rank-2.json").write_text(json.dumps({"rank": 2, "surprise": 1}))
    peer = Peer(1, 3, folder, "barrier")
    assert peer.ended.wait(30)
    assert "ranks 0, 2 do not answer" in capfd.readouterr().err


def test_what_may_take_longer_is_waited_for(tmp_path):
    """The right to write, which rank 0 waits for up to 35 s, with a shorter comm.timeout_s."""
    peers = [Peer(rank, 2, tmp_path / "stalled", "gather on rank 0") for rank in (0, 1)]
    for peer in peers:
        peer.dog.beat("the right to write", may_take=1.5)
    assert not any(peer.ended.wait(1.0 / len(peers)) for peer in peers)  # twice the timeout
    for peer in peers:
        assert peer.ended.wait(30)  # not for ever
