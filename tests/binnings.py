"""Binning files of the CaloChallenge's form."""

from __future__ import annotations

from collections.abc import Sequence


def xml(layers: Sequence[tuple[int, Sequence[float], int]], name: str = "photon") -> str:
    """A binning file of the published form: layers of (number, edges, angles), those between without voxels."""
    held: dict[int, tuple[Sequence[float], int]] = {number: (edges, angles) for number, edges, angles in layers}
    rows = []
    for number in range(max(held) + 1):
        edges, angles = held.get(number, ([0], 1))
        text = ",".join(f"{edge:g}" for edge in edges)
        rows.append(f'      <Layer id="{number}" r_edges="{text}" n_bin_alpha="{angles}" /> \n')
    return f'<Bins>\n   <Bin pid="22" etaMin="0" etaMax="130" name="{name}">\n{"".join(rows)}   </Bin>\n</Bins>\n'
