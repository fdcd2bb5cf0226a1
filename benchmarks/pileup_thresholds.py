"""What it changes to sum images of minimum-bias events instead of their deposits in the calorimeter.

The same PYTHIA events go through the calorimeter twice: each by itself, so that thresholds and noise act on single
events and the images are summed (as `problem: pileup` does, and the paper), and mu at a time, so that they act on
the sum of the deposits (as in a detector). Prints energy, lit pixels and jets of both; docs/pileup.md has a table.

    python benchmarks/pileup_thresholds.py --mu 20 60 140 --sums 40
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from hpcgan.physics import pythia
from hpcgan.physics.detector import Calorimeter
from hpcgan.physics.images import bin_towers
from hpcgan.physics.jets import cluster, image_geometry
from hpcgan.physics.pythia import MinBiasProcess, Particles


def groups(mu: int, sums: int, seed: int) -> Iterator[Particles]:
    """`sums` times `mu` events, with the number of the event in its group."""
    collected: list[Particles] = []
    for batch in pythia.events(MinBiasProcess(), seed, mu * sums, batch=np.gcd(mu, 20)):
        collected.append(batch)
        n = sum(part.n_events for part in collected)
        assert n <= mu, "PYTHIA left out an event"
        if n == mu:
            starts = np.cumsum([0, *(part.n_events for part in collected)])
            event = np.concatenate([part.event + start for part, start in zip(collected, starts)])
            pid = np.concatenate([part.pid for part in collected])
            momentum = np.concatenate([part.momentum for part in collected], axis=1)
            vertex = np.concatenate([part.vertex for part in collected], axis=1)
            yield Particles(event, pid, momentum, vertex, mu)
            collected = []


def images(mu: int, sums: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Summed images, and images of summed deposits, (sums, 64, 64) each."""
    calorimeter, rng = Calorimeter(), np.random.default_rng(seed)
    summed, merged = [], []
    for particles in groups(mu, sums, seed):
        towers = calorimeter.simulate(particles, rng)
        summed.append(bin_towers(*towers, mu).sum(axis=0, dtype=np.float64))
        together = particles._replace(event=np.zeros_like(particles.event), n_events=1)
        merged.append(bin_towers(*calorimeter.simulate(together, rng), 1)[0])
    return np.array(summed), np.array(merged)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mu", type=int, nargs="+", default=[20, 60, 140], help="events of a pileup")
    parser.add_argument("--sums", type=int, default=40, help="pileups of each mu")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    sech = image_geometry().sech.reshape(64, 64)
    central = np.abs(image_geometry().eta) < 1.5
    print("mu     quantity                     images summed   deposits summed   ratio")
    for mu in args.mu:
        sides = images(mu, args.sums, args.seed)
        values = [
            {
                "summed pT [GeV]": (side * sech).sum(axis=(1, 2)) / 1e3,
                "summed pT, |eta| < 1.5 [GeV]": (side * sech)[:, central].sum(axis=(1, 2)) / 1e3,
                "lit pixels": np.count_nonzero(side, axis=(1, 2)).astype(float),
                "jets above 20 GeV": cluster(side, 20.0).counts.astype(float),
            }
            for side in sides
        ]
        for name, one in values[0].items():
            other = values[1][name]
            ratio = other.mean() / one.mean()
            error = np.std(other - ratio * one, ddof=1) / np.sqrt(len(one)) / one.mean()
            print(f"{mu:<6} {name:<28} {one.mean():<15.1f} {other.mean():<17.1f} {ratio:.3f} +- {error:.3f}")


if __name__ == "__main__":
    main()
