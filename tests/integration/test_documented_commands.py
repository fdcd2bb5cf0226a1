"""The blocks of README and docs are executed here, with few events and small networks, or say why not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import documents
import fake_sweeps
import h5py
import needs
import numpy as np
import pytest
from documents import PAGES, ROOT, Block

needs.found("tensorflow", "optuna")

#: What a command of a document is given in place of the option's value, so that it takes seconds.
SMALL = {"--events": "150", "--maps": "100", "--jobs": "1", "-n": "40", "--classifier-units": "8"}
#: What is added to a command, by its first words.
ADDED = {
    ("generate",): ["--force"],
    ("data", "cosmo"): ["--side", "32"],
    **{("control", "RUN", name): ["--wait", "0"] for name in ("pause", "set", "resume", "checkpoint", "stop")},
    ("evaluate", "--real"): ["--classifier-epochs", "1", "--out", "report"],
}
SHORT = ["training.epochs=1", "training.batch_size=8", "scoring.events=20"]
NETWORKS = [*SHORT, "model.filters=1", "model.latent_dim=3"]
#: What is added to the trainings of a configuration.
TRAININGS = {
    "configs/conditional.yaml": [*SHORT, "model.hidden_units=4"],
    "configs/calo_nll.yaml": [
        "training.epochs=1",
        "training.batch_size=8",
        "scoring.events=20",
        "model.hidden_units=4",
    ],
    "configs/cosmo.yaml": [*NETWORKS, "model.side=32"],
}
#: What is changed in Python code: a small network of which graphs are soon made, in one process.
OVERRIDES = [*NETWORKS, "data.path=files"]
CODE = {
    '"configs/rpv.yaml", ["training.epochs=20"], ranks=2': f'"configs/rpv_reference.yaml", {OVERRIDES}',
    "result.run, 1000": "result.run, 40",
}
#: Options that the test leaves out: more ranks are those of other tests.
LEFT_OUT = ("--ranks",)


#: Words that other programs answer to.
OTHERS = ("optuna-dashboard",)


class Runner:
    """A process that runs commands, and a folder for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        line = [sys.executable, str(Path(__file__).with_name("run_documented.py"))]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def run(self, place: str, kind: str, text: Any) -> str:
        """The output of a command or of Python code, which has to end well."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([str(self.folder), kind, text]), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, f"{place}: {text} ended the process"
        code, output = json.loads(answer)
        assert code == 0, f"{place}: {text}\n{output}"
        return str(output)

    def run_block(self, block: Block, run: str | None = None) -> None:
        """Run the commands of a block; `run` stands for the run that they name, by default the newest one."""
        folder = self.folder / ".shell"
        folder.mkdir(exist_ok=True)
        for words in documents.shell_commands(block.text, folder):
            if words[0] in OTHERS:
                continue
            assert words[0] == "hpcgan", f"{block.place}: say why {words[0]} is not executed"
            self.run(block.place, "hpcgan", [self._meant(word, run) for word in small(words[1:])])

    def _meant(self, word: str, run: str | None) -> str:
        if word == "runs/sweep-...":
            return "DIR"
        if not word.endswith("..."):
            return word
        newest = max((self.folder / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime)
        return run or str(newest)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    runner = Runner(tmp_path_factory.mktemp("documented"))
    prepare(runner.folder)
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def trained(runner: Runner) -> str:
    """The run of docs/conditional.md, which other documents take, and a copy that has not ended: `RUN`."""
    (block,) = [block for block in executed("sh") if block.document == "docs/conditional.md"]
    runner.run_block(block)
    (run,) = (runner.folder / "runs").glob("conditional-*")
    shutil.copytree(run, runner.folder / "RUN")
    shutil.rmtree(runner.folder / "RUN" / "attempts")
    metrics = runner.folder / "RUN" / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(line for line in lines if '"kind": "end"' not in line))
    shutil.copytree(runner.folder / "data" / "conditional", runner.folder / "files")
    shutil.copy(runner.folder / "files" / "val.h5", runner.folder / "a.h5")
    shutil.copy(runner.folder / "files" / "test.h5", runner.folder / "b.h5")
    return str(run)


def prepare(folder: Path) -> None:
    """What the documents take as given: files of other people, a study."""
    for name in ("configs", "slurm"):
        (folder / name).symlink_to(ROOT / name)
    for particle in ("gamma", "eplus"):
        shutil.copy(ROOT / "tests" / "data" / f"geant4_{particle}.h5", folder)
    rng = np.random.default_rng(1)
    with h5py.File(folder / "gamma.hdf5", "w") as file:  # as published with CaloGAN
        for name, shape in (("layer_0", (3, 96)), ("layer_1", (12, 12)), ("layer_2", (12, 6)), ("overflow", (3,))):
            file[name] = rng.random((20, *shape))
        file["energy"] = rng.uniform(1, 100, (20, 1))
    with h5py.File(folder / "showers.hdf5", "w") as file:  # CaloChallenge
        file["showers"], file["incident_energies"] = rng.random((20, 504)), rng.uniform(1e3, 1e5, (20, 1))
    (folder / "asked.csv").write_text("mGlu,mNeu\n1400,850\n1500,850\n")
    study = fake_sweeps.study_in(folder / "DIR")
    for number in range(3):
        fake_sweeps.finish(study, number, 10.0 + number)


def small(words: list[str]) -> list[str]:
    """A command with small numbers."""
    cut: list[str] = []
    left = iter(words)
    for word in left:
        if word in LEFT_OUT:
            next(left)
            continue
        cut.append(word)
        if word in SMALL:
            next(left)
            cut.append(SMALL[word])
    for first, options in ADDED.items():
        if tuple(words[: len(first)]) == first:
            cut += options
    return cut + (TRAININGS.get(words[1], []) if words[0] == "train" else [])


def executed(language: str) -> list[Block]:
    """The blocks that are not marked; those of the page on plug-ins have a test of their own."""
    of_pages = (block for path in PAGES for block in documents.blocks(path))
    return [
        block
        for block in of_pages
        if block.language == language and block.reason is None and block.document != "docs/new_problem.md"
    ]


@pytest.mark.parametrize("block", executed("sh"), ids=lambda block: block.place)
def test_commands(block: Block, runner: Runner, trained: str) -> None:
    if block.document != "docs/conditional.md":  # whose commands were run for `trained`
        runner.run_block(block, trained if block.document == "docs/distances.md" else None)


@pytest.mark.parametrize("block", executed("python"), ids=lambda block: block.place)
def test_python(block: Block, runner: Runner, trained: str) -> None:
    if "models/events/1" in block.text and not (runner.folder / "models").exists():
        runner.run(block.place, "hpcgan", ["export", trained, "--out", "models/events/1"])
    text = block.text
    for documented, short in CODE.items():
        text = text.replace(documented, short)
    assert ("hpcgan.train(" not in text) or text != block.text, "a whole training is none for a test"
    runner.run(block.place, "python", text)
