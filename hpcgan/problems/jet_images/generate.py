"""Jet images of both classes from PYTHIA, made on any number of processes.

Images come in fixed blocks of one class. A block has a seed of its own, which depends on the seed of the data set, the
process and the number of the block alone; its events are generated until enough jets have passed the selection. Blocks
are written in order, the classes taking turns image by image, so the files do not depend on how many processes made
them, and each has as many of either class, up to one.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from hpcgan.data.generators import DataSet, Generator
from hpcgan.data.layouts.base import Layout
from hpcgan.data.schema import Sample, concatenate, take
from hpcgan.data.storage import SPLIT_EDGES, Target
from hpcgan.errors import HpcganError, InputError
from hpcgan.physics import pythia
from hpcgan.problems.jet_images import cells, files, preprocessing, processes, trimming, veto, windows
from hpcgan.problems.jet_images.layout import JETS
from hpcgan.problems.jet_images.preprocessing import Rotation

CLASSES = (processes.SIGNAL, processes.BACKGROUND)
"""The order in which they take turns."""

MOST_EVENTS = 10_000
"""Of PYTHIA's events for a jet that passes: with more than that on average, something is wrong."""


@dataclass(frozen=True)
class Block:
    """A unit of work: `n` images of a process, the `index`-th block of it; `integrals` spare PYTHIA some work."""

    process: pythia.Process
    index: int
    n: int
    integrals: str


@dataclass(frozen=True)
class Selection:
    """What became of a block: its images, and of how many events how many jets have passed."""

    sample: Sample
    events: int
    passed: int


@dataclass(frozen=True)
class JetImages(DataSet):
    """Images of boosted W and of QCD jets, half each.

    Attributes
    ----------
    n, seed
        As of the base class.
    rotation : "cubic" or "cells"
        How images are turned: :mod:`hpcgan.problems.jet_images.preprocessing`.
    """

    n: int
    seed: int = 1
    rotation: Rotation = "cubic"
    layout: ClassVar[Layout] = JETS
    noun: ClassVar[str] = "images"
    #: Of QCD jets a minute of work.
    block: ClassVar[int] = 250

    def check(self) -> None:
        if self.n < 10:
            raise InputError(f"{self.n} {self.noun}: at least 10 are needed so that every split holds both classes")

    def settings(self) -> dict[str, Any]:
        return {
            "kind": "jet images",
            "processes": [process.describe() for process in CLASSES],
            "images": self.n,
            "seed": self.seed,
            "rotation": self.rotation,
            "block_images": self.block,
            "batch_events": processes.BATCH_EVENTS,
            "split_edges": SPLIT_EDGES,
            "pythia": pythia.version(),
            "pythia_settings": [*pythia.COMMON_SETTINGS, *(line for kind in CLASSES for line in kind.settings())],
            "cells": [cells.N_ETA, cells.N_PHI, cells.ETA_MAX],
            "trimming": [trimming.SUBJET_RADIUS, trimming.PT_FRACTION],
            "tau_axes": trimming.TAU_AXES,
            "pt_gev": windows.PT_GEV,
            "mass_gev": windows.MASS_GEV,
            "eta_max": windows.ETA_MAX,
            "veto_scale_gev": veto.SCALE_GEV,
            "veto_margins_gev": [veto.PT_MARGINS_GEV, veto.MASS_MARGINS_GEV],
        }

    def attributes(self) -> dict[str, Any]:
        return {
            "problem": JETS.problem,
            "generator": f"PYTHIA {pythia.version()}",
            "ecm_gev": processes.ECM_GEV,
            "detector": "cells of 0.1 x 0.1",
            "rotation": self.rotation,
            "pt_range_gev": windows.PT_GEV,
            "mass_range_gev": windows.MASS_GEV,
        }

    def tasks(self) -> list[Block]:
        """The blocks in the order they are written: block k of either class, then block k + 1."""
        integrals = processes.tables(self.seed)
        shares = (self.n - self.n // 2, self.n // 2)
        firsts = range(0, shares[0], self.block)
        return [
            Block(process, index, min(self.block, share - first), integrals)
            for index, first in enumerate(firsts)
            for process, share in zip(CLASSES, shares, strict=True)
            if first < share
        ]

    def make(self, task: Block, advance: Callable[[int], None]) -> Selection:
        seed = processes.pythia_seed(self.seed, task.process.describe(), task.index)
        samples: list[Sample] = []
        events = passed = 0
        for batch in processes.events(task.process, seed, task.integrals):
            sample = sample_of(batch.particles, task.process.label, self.rotation)
            new = len(sample[files.SIGNAL])
            events, passed = events + batch.begun, passed + new
            samples.append(sample)
            advance(min(new, max(task.n - passed + new, 0)))
            if passed >= task.n:
                break
            if events > MOST_EVENTS * (passed + 1):
                raise HpcganError(f"PYTHIA made {passed} {task.process.name} jets that pass in {events} events")
        return Selection(take(concatenate(samples), slice(task.n)), events, passed)

    def writer(self, target: Target) -> files.Writer:
        return files.Writer(target)

    def write(self, writer: files.Writer, results: Iterator[tuple[Block, Selection]]) -> None:
        """Write all blocks, and what share of the events has passed: in the files, and on standard error."""
        counts = {process.name: np.zeros(2, np.int64) for process in CLASSES}
        for _, blocks in itertools.groupby(results, key=lambda task_and_selection: task_and_selection[0].index):
            samples = []
            for block, selection in blocks:
                counts[block.process.name] += (selection.passed, selection.events)
                samples.append(selection.sample)
            writer.append(in_turns(samples))
        for name, (passed, events) in counts.items():
            writer.note(**{f"{name}_events": int(events), f"{name}_efficiency": passed / events})
            error = math.sqrt(passed * (1 - passed / events)) / events
            text = f"{passed} of {events} events pass, {passed / events:.2%} +- {error:.2%}"
            if sys.stderr is not None:
                print(f"{name}: {text}", file=sys.stderr)


def sample_of(particles: pythia.Particles, label: int, rotation: Rotation) -> Sample:
    """The jets of a batch of events that pass, in the published layout.

    Parameters
    ----------
    particles : hpcgan.physics.pythia.Particles
    label : int
        Their `signal`.
    rotation : "cubic" or "cells"
    """
    jets = trimming.leading_jets(cells.hit_cells(particles), windows.PT_GEV[0])
    jets = jets.take(windows.passes(jets))
    tau = jets.tau()
    columns = {
        files.SIGNAL: np.full(len(jets), label),
        "jet_pt": jets.pt,
        "jet_eta": jets.eta,
        "jet_phi": jets.phi,
        "jet_mass": jets.mass,
        "jet_delta_R": jets.delta_r,
        **{f"tau_{i + 1}": tau[:, i] for i in range(trimming.MAX_TAU)},
    }
    return {
        files.IMAGE: preprocessing.images_of(jets, rotation),
        **{name: values.astype(np.float32) for name, values in columns.items()},
    }


def in_turns(samples: Sequence[Sample]) -> Sample:
    """Samples of several classes as one: the first of each, the second of each and so on."""
    turn = np.concatenate([np.arange(len(sample[files.SIGNAL])) for sample in samples])
    return take(concatenate(list(samples)), np.argsort(turn, kind="stable"))


class JetGenerator(Generator):
    """Generate images of boosted W jets (W' -> W Z) and of QCD jets, half each, in pp collisions at 14 TeV, and write
    train.h5, val.h5 and test.h5 (60/20/20 percent) in the layout of the published LAGAN data. The number of events is
    that of jets which pass the selection: 250 < pT < 300 GeV and 60 < mass < 100 GeV after trimming.
    """

    summary: ClassVar[str] = "generate 25 x 25 images of W and QCD jets"

    rotation: Rotation = Field(
        "cubic",
        description="turn images by cubic convolution, as the published ones, or cells before they are binned",
    )

    def data_set(self, n: int, seed: int) -> JetImages:
        return JetImages(n, seed, self.rotation)
