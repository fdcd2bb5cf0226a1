r"""Extrapolation of a scaling study: what a step would take on many ranks of a named network. A model.

With :math:`p` ranks, :math:`n` bytes and a network of latency :math:`\alpha` (seconds a message) and inverse
bandwidth :math:`\beta` (seconds a byte), an allreduce takes (Thakur, Rabenseifner, Gropp, IJHPCA 19 (2005) 49)

- as a ring: :math:`2 (p - 1) \alpha + 2 \frac{p - 1}{p} n \beta`,
- by recursive halving and doubling ("tree"):
  :math:`2 \lceil \log_2 p \rceil \alpha + 2 \frac{p - 1}{p} n \beta`,

the arithmetic of the reduction being part of a measured :math:`\beta` and left out for a named network. A step is

.. math:: T(p) = C + I + \sigma e(p) + \sum_k \left( t_0 + t_k(p) \right),

compute and input as measured, the wait for the slowest of :math:`p` ranks, and two collectives :math:`k` of the sizes
that the study recorded. :math:`\sigma` is the measured spread of a local step and :math:`e(p)` the mean of the largest
of :math:`p` standard normal numbers. :math:`t_0` is the fixed cost of a collective as measured with the study's
backend (negotiation, packing, calls), which no network takes away. Weak efficiency is :math:`(C + I) / T(p)`.

What it leaves out: contention in the network, ranks of a node sharing one port, collectives that overlap with compute,
a coordinator whose cost grows with the ranks, file systems, stragglers beyond the measured spread.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcgan.errors import InputError
from hpcgan.scaling.measure import ISOLATED, Study
from hpcgan.scaling.summary import Blocks, blocks, summarise
from hpcgan.suggest import did_you_mean
from hpcgan.system.files import write_atomic

ALGORITHMS = ("ring", "tree")
RESAMPLES = 400
MEASURED = "measured"


@dataclass(frozen=True)
class Network:
    """Published figures of an interconnect, of one port of a node.

    Attributes
    ----------
    latency_s : float
        A small message from process to process.
    bytes_per_second : float
        One way.
    source : str
        Where both come from.
    """

    latency_s: float
    bytes_per_second: float
    source: str


_TCP = "latency: 10 us assumed, the order of kernel TCP (Larsen et al., SBAC-PAD 2007, measured it on 10 GbE)"
_IB = "latency: about 1 us between MPI processes, as the MVAPICH project publishes for EDR and HDR adapters"
NETWORKS: dict[str, Network] = {
    "10GbE": Network(10e-6, 1.25e9, f"line rate of IEEE 802.3ae; {_TCP}"),
    "25GbE": Network(10e-6, 3.125e9, f"line rate of IEEE 802.3by; {_TCP}"),
    "100GbE": Network(10e-6, 12.5e9, f"line rate of IEEE 802.3ba; {_TCP}"),
    "InfiniBand-EDR": Network(1.0e-6, 12.5e9, f"data rate of EDR 4x, 100 Gb/s (InfiniBand Trade Association); {_IB}"),
    "InfiniBand-HDR": Network(1.0e-6, 25e9, f"data rate of HDR 4x, 200 Gb/s (InfiniBand Trade Association); {_IB}"),
    "InfiniBand-NDR": Network(
        1.0e-6, 50e9, "data rate of NDR 4x, 400 Gb/s (InfiniBand Trade Association); latency: as EDR and HDR, assumed"
    ),
    "Aries": Network(
        1.2e-6,
        9.96e9,
        "measured with the OSU benchmarks and Open MPI between nodes of a Cray XC40 (H. Pritchard, "
        "gist.github.com/hppritcha/6a3acd0c192fcfd082bd543fc98e6fe6 and /200bc7a2d4dfde709245d6ffa7b2b971, 2016)",
    ),
    "Slingshot-11": Network(
        2.0e-6,
        25e9,
        "rate of a port, 200 Gb/s; latency: about 2 us (De Sensi et al., SC20, arXiv:2008.08886, on Slingshot with "
        "100 Gb/s adapters)",
    ),
}
NETWORK_COLUMNS = ("interconnect", "latency us", "GB/s", "source")

#: Efficiencies that others reached, for comparison. Other networks, other machines, other codes.
PUBLISHED: tuple[dict[str, Any], ...] = (
    {
        "name": "CosmoFlow",
        "efficiency": 0.77,
        "devices": 8192,
        "unit": "nodes",
        "reference": "Mathuriya et al., SC18, arXiv:1808.04728: 8192 nodes of Cori (Aries), Cray PE ML plugin",
    },
    {
        "name": "PI-GAN",
        "efficiency": 0.931,
        "devices": 27500,
        "unit": "GPUs",
        "reference": "Yang et al., DLS 2019, arXiv:1910.13444: 27,500 GPUs on 4584 nodes of Summit (InfiniBand EDR)",
    },
)


#: What `--interconnect` takes by name.
NETWORK_NAMES = (MEASURED, *NETWORKS)


def network_rows() -> list[list[str]]:
    """The table of networks for people."""
    return [
        [name, f"{1e6 * n.latency_s:.1f}", f"{n.bytes_per_second / 1e9:.2f}", n.source] for name, n in NETWORKS.items()
    ]


def network(name: str) -> Network:
    """A network by name, or as `US,GB/s` (e.g. `1.5,12`).

    Raises
    ------
    InputError
        Unknown.
    """
    by_lower = {name_of.lower(): network for name_of, network in NETWORKS.items()}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    match = re.fullmatch(r"(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)", name)
    if match and float(match[2]) > 0:
        return Network(1e-6 * float(match[1]), 1e9 * float(match[2]), "given on the command line")
    raise InputError(
        f"--interconnect {name}: choose one of {', '.join(NETWORK_NAMES)}, or give latency in us and GB/s as 1.5,12"
        f"{did_you_mean(name, NETWORK_NAMES)}"
    )


# --- formulas ---------------------------------------------------------------------------------------


def allreduce_s(algorithm: str, p: float | np.ndarray, n: float, alpha: Any, beta: Any) -> Any:
    """Seconds of an allreduce (see the module).

    Parameters
    ----------
    algorithm : "ring" or "tree"
    p : int or array
        Ranks.
    n : float
        Bytes.
    alpha : float or array
        Seconds a message.
    beta : float or array
        Seconds a byte.

    Raises
    ------
    KeyError
        Another algorithm.
    """
    ranks = np.asarray(p, dtype=np.float64)
    messages = {"ring": 2.0 * (ranks - 1.0), "tree": 2.0 * np.ceil(np.log2(ranks))}[algorithm]
    return messages * alpha + 2.0 * (ranks - 1.0) / ranks * n * beta


def fit(p: int, sizes: Sequence[float], seconds: Sequence[float], algorithm: str = "ring") -> tuple[float, float]:
    """Latency and inverse bandwidth that describe measured allreduces best.

    Least squares of relative residuals, so that small messages count as much as large ones, with neither below zero.

    Parameters
    ----------
    p : int
        Ranks, at least 2.
    sizes : (k,) sequence of float
        Bytes.
    seconds : (k,) sequence of float
    algorithm : "ring" or "tree"

    Returns
    -------
    alpha, beta : float
        Seconds a message and seconds a byte.
    """
    from scipy.optimize import nnls

    n, t = np.asarray(sizes, np.float64), np.asarray(seconds, np.float64)
    messages = allreduce_s(algorithm, p, 0.0, 1.0, 0.0)
    columns = np.stack([np.full_like(n, messages), 2.0 * (p - 1) / p * n], axis=1) / t[:, None]
    scale = np.linalg.norm(columns, axis=0)  # alpha and beta differ by orders of magnitude
    (alpha, beta), _ = nnls(columns / scale, np.ones_like(t))
    return float(alpha / scale[0]), float(beta / scale[1])


def expected_maximum(p: float | np.ndarray) -> Any:
    r"""Mean of the largest of `p` standard normal numbers.

    :math:`e(p) = \int_0^\infty (1 - \Phi^p) dx - \int_{-\infty}^0 \Phi^p dx`; exactly :math:`e(2) = 1/\sqrt{\pi}` and
    :math:`e(3) = 3 / (2 \sqrt{\pi})` (David and Nagaraja, Order Statistics, 2003).

    Parameters
    ----------
    p : float or (k,) array
        At least 1.
    """
    from scipy import integrate
    from scipy.special import log_ndtr

    x = np.linspace(-12.0, 12.0, 24001)
    power = np.exp(np.multiply.outer(np.asarray(p, np.float64), log_ndtr(x)))
    integrand = np.where(x > 0, 1.0 - power, -power)
    integrand[..., x == 0] += 0.5  # the mean of both sides of the jump
    # Of one number it is 0, not the rounding of the integral, which a logarithmic axis would show.
    return np.where(np.asarray(p) == 1, 0.0, integrate.trapezoid(integrand, x))[()]


# --- what a study says ------------------------------------------------------------------------------


def parse_nodes(text: str) -> list[int]:
    """Numbers of nodes: `1..8192` (powers of two, and both ends) or `1,16,512`.

    Raises
    ------
    InputError
        Another form, or a number below 1.
    """
    match = re.fullmatch(r"(\d{1,7})\.\.(\d{1,7})", text)
    if match and 1 <= int(match[1]) <= int(match[2]):
        low, high = int(match[1]), int(match[2])
        return sorted({low, high, *(1 << k for k in range(24) if low <= 1 << k <= high)})
    parts = text.split(",")
    if all(re.fullmatch(r"\d{1,7}", part.strip()) for part in parts) and all(int(part) >= 1 for part in parts):
        return sorted({int(part) for part in parts})
    raise InputError(f"--nodes {text}: write 1..8192 or 1,16,512")


@dataclass(frozen=True)
class Observed:
    """What the model takes from the measured points of one backend.

    Attributes
    ----------
    compute_s, input_s : (repeats,) list of (blocks,) arrays
        Seconds of a step, in each block.
    residuals_s : (k,) array
        Single local steps minus the median of their kind (with R1, the generator's update, both or neither).
    batch_size : int
        Samples of a rank and step.
    """

    compute_s: list[np.ndarray]
    input_s: list[np.ndarray]
    residuals_s: np.ndarray
    batch_size: int


def observe(results: Sequence[Mapping[str, Any]]) -> Observed:
    """Compute, input and spread from the repeats of one point."""
    compute, waiting, residuals = [], [], []
    batch_size = 0
    for result in results:
        times: Blocks = blocks(result)
        batch_size = times.batch_size
        compute.append(times.local_s.mean(axis=(0, 2)))
        waiting.append(times.wait_s.mean(axis=(0, 2)))
        first = result["ranks_measured"][0]
        every, steps = first["penalty_every"], times.local_s.shape[1] * times.steps
        number = first["first_step"] + np.arange(steps).reshape(-1, times.steps)
        penalised = number % every == 0 if every else np.zeros_like(number, bool)
        turns = first.get("critic_steps", 1)
        kinds = 2 * penalised + (number % turns == turns - 1)  # with the generator's update or without
        for kind in (kinds == k for k in range(4)):
            if kind.any():
                chosen = times.local_s[:, kind]
                residuals.append((chosen - np.median(chosen)).ravel())
    return Observed(compute, waiting, np.concatenate(residuals), batch_size)


def spread(residuals: np.ndarray) -> float:
    """Standard deviation from the median absolute deviation, which rare outliers do not move."""
    return float(1.4826 * np.median(np.abs(residuals - np.median(residuals))))


def _resample(generator: np.random.Generator, repeats: Sequence[np.ndarray]) -> np.ndarray:
    """Blocks of randomly chosen repeats."""
    chosen = generator.integers(len(repeats), size=len(repeats))
    return np.concatenate([generator.choice(repeats[i], len(repeats[i])) for i in chosen])


def extrapolate(
    study: Study,
    nodes: Sequence[int],
    ranks_per_node: int,
    interconnect: str,
    *,
    comm: str | None = None,
    seed: int = 1,
) -> dict[str, Any]:
    """Model of the study's training on a cluster, with uncertainties by bootstrap.

    Repeats are drawn with replacement, blocks within them too, single steps for the spread, and single calls of the
    allreduces; intervals are the central 68%. They say how well this machine was measured, not how true the model is.

    Parameters
    ----------
    study : Study
    nodes : sequence of int
    ranks_per_node : int
        Every rank counts as one of the network's: a node's own memory is not modelled.
    interconnect : str
        A name of `NETWORKS`, `US,GB/s`, or `measured`: what the study's own machine has.
    comm : str, optional
        Backend; by default the one with the most ranks.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        `curves`: for each algorithm a list with, for each number of ranks, seconds of a step and its parts, `rate` and
        `efficiency` (value, low, high). `parameters`: what went in. `measured`, `published`: for comparison.

    Raises
    ------
    InputError
        No such points, or no measured allreduce where one is needed.
    """
    setting = study.setting()
    results = [r for r in study.results() if "failure" not in r and r["comm"] != ISOLATED]
    if not results:
        raise InputError(f"{study.path}: no point was measured; run 'hpcgan scaling' first")
    kinds = {r["comm"]: max(q["ranks"] for q in results if q["comm"] == r["comm"]) for r in results}
    comm = comm or max(kinds, key=lambda name: (kinds[name], name))
    if comm not in kinds:
        raise InputError(f"--comm {comm}: the study has no point of it, only of {', '.join(sorted(kinds))}")
    results = [r for r in results if r["comm"] == comm]
    reference = setting.fullest((r["ranks"], r["nodes"]) for r in results)  # its compute is that of a busy node
    point = [r for r in results if r["ranks"] == reference]
    observed = observe(point)
    sweeps = [s for s in study.allreduce() if s["comm"] == comm and "failure" not in s]
    ranks_swept = setting.fullest((s["ranks"], s["nodes"]) for s in sweeps) if sweeps else 0
    calls = next((_calls(s) for s in sweeps if s["ranks"] == ranks_swept), {})
    link = None if interconnect == MEASURED else network(interconnect)
    if link is None and not calls:
        raise InputError(
            f"{study.path}: no measured allreduce of {comm}: measure on 2 ranks or more, or name a network"
        )
    ranks = np.array(sorted({n * ranks_per_node for n in nodes}), np.float64)
    if setting.mode == "strong":
        ranks = ranks[ranks <= setting.batch]
        if not len(ranks):
            raise InputError(f"a strong study ends at {setting.batch} ranks, one sample each: give fewer nodes")
    first = point[0]["ranks_measured"][0]
    payload = first["payload_bytes"]
    share = first.get("updates", {"generator": 1 / first.get("critic_steps", 1)})  # so many of each collective a step
    collectives = [(size, share.get(network, 1.0)) for network, size in payload.items()]
    batches = _batch_law(results) if setting.mode == "strong" else None
    cluster = _Cluster(ranks, link, collectives, setting.batch, observed.batch_size, batches)
    generator = np.random.default_rng(seed)
    best = _inputs(observed, calls, ranks_swept, None)
    draws = [_inputs(observed, calls, ranks_swept, generator) for _ in range(RESAMPLES)]
    curves: dict[str, list[dict[str, Any]]] = {}
    for algorithm in ALGORITHMS:
        central = cluster.step(algorithm, best)
        cloud = np.stack([cluster.step(algorithm, inputs)["efficiency"] for inputs in draws])
        low, high = np.quantile(cloud, [0.16, 0.84], axis=0)
        curves[algorithm] = [
            {
                "ranks": int(ranks[i]),
                "nodes": int(ranks[i]) // ranks_per_node,
                **{name: float(central[name][i]) for name in central if name != "efficiency"},
                "efficiency": {
                    "value": float(central["efficiency"][i]), "low": float(low[i]), "high": float(high[i]),
                },
            }
            for i in range(len(ranks))
        ]  # fmt: skip
    fixed = best["fixed_s"]
    notes = [
        f"compute, input and spread: {len(point)} measurement{'s' * (len(point) > 1)} on {reference} "
        f"rank{'s' * (reference > 1)} ({comm})",
        "efficiency: against one rank beside as busy neighbours; the study's is against one rank alone on its node",
        f"fixed cost of a collective: {1e6 * fixed:.0f} us, measured on {ranks_swept} ranks here"
        if calls and link is not None
        else "fixed cost of a collective: none was measured, taken as 0"
        if link is not None
        else f"allreduce as fitted to a measurement on {ranks_swept} ranks here: not a network between nodes",
        f"interconnect: {interconnect}: {link.source}" if link is not None else "interconnect: this machine",
        *(f"published: {entry['name']}, {entry['reference']}" for entry in PUBLISHED),
        "intervals: central 68% of a bootstrap over what was measured; the model's own error is not in them",
    ]
    summary = summarise(results, setting)["points"]
    return {
        "kind": "model",
        "warning": "A model, not a measurement.",
        "title": f"{study.config().name}, {setting.mode} scaling on {interconnect}, {comm}, "
        f"{ranks_per_node} rank{'s' * (ranks_per_node > 1)} a node",
        "interconnect": interconnect,
        "comm": comm,
        "seed": seed,
        "parameters": {**best, "payload_bytes": list(payload.values()), "batch": setting.batch,
                       "reference_ranks": reference, "latency_s": None if link is None else link.latency_s,
                       "bytes_per_second": None if link is None else link.bytes_per_second},
        "curves": curves,
        "measured": [
            {"ranks": p["ranks"], "efficiency": p["efficiency"]["value"], "error": p["efficiency"]["error"]}
            for p in summary
            if p["efficiency"] is not None and not p["oversubscribed"]
        ],
        "published": [dict(entry) for entry in PUBLISHED],
        "notes": notes,
    }  # fmt: skip


def _calls(swept: Mapping[str, Any]) -> dict[int, np.ndarray]:
    """Seconds of each call, by size in bytes: the mean over ranks."""
    first = swept["ranks_measured"][0]["times_s"]
    return {int(size): np.mean([r["times_s"][size] for r in swept["ranks_measured"]], axis=0) for size in first}


def _inputs(
    observed: Observed, calls: Mapping[int, np.ndarray], p: int, generator: np.random.Generator | None
) -> dict[str, float]:
    """Numbers of the model, from all measurements or from a bootstrap sample of them."""
    if generator is None:
        compute, waiting = np.concatenate(observed.compute_s), np.concatenate(observed.input_s)
        residuals = observed.residuals_s
    else:
        compute = _resample(generator, observed.compute_s)
        waiting = _resample(generator, observed.input_s)
        residuals = generator.choice(observed.residuals_s, len(observed.residuals_s))
    inputs = {
        "compute_s": float(compute.mean()),
        "input_s": float(waiting.mean()),
        "sigma_s": spread(residuals),
        "alpha_s": 0.0,
        "beta_s_per_byte": 0.0,
        "fixed_s": 0.0,
    }
    if calls:
        sample = {n: t if generator is None else generator.choice(t, len(t)) for n, t in calls.items()}
        alpha, beta = fit(p, list(sample), [float(np.median(t)) for t in sample.values()])
        inputs.update(alpha_s=alpha, beta_s_per_byte=beta, fixed_s=float(allreduce_s("ring", p, 0.0, alpha, 0.0)))
    return inputs


def _batch_law(results: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Compute of a local step as fixed + slope * batch of a rank, from all points of a strong study.

    Raises
    ------
    InputError
        All points have the same batch.
    """
    from scipy.optimize import nnls

    sizes, seconds = [], []
    for result in results:
        times = blocks(result)
        sizes.append(times.batch_size)
        seconds.append(times.local_s.mean())
    if len(set(sizes)) < 2:
        raise InputError("a strong study needs points on at least two numbers of ranks to be extrapolated")
    columns = np.stack([np.ones(len(sizes)), np.asarray(sizes, np.float64)], axis=1)
    (constant, slope), _ = nnls(columns, np.asarray(seconds))
    return float(constant), float(slope)


@dataclass(frozen=True)
class _Cluster:
    """What a training is extrapolated to.

    Attributes
    ----------
    ranks : (n,) float64
    link : Network or None
        None: the network that was measured.
    collectives : sequence of (int, float)
        Bytes, and how many of them there are in a step.
    batch : int
        Of the study: of a rank (weak), or of all ranks together (strong).
    measured_batch : int
        Of a rank, where compute was measured.
    batches : (float, float) or None
        Of a strong study: compute of a step as fixed + slope * batch of a rank.
    """

    ranks: np.ndarray
    link: Network | None
    collectives: Sequence[tuple[float, float]]
    batch: int
    measured_batch: int
    batches: tuple[float, float] | None

    @functools.cached_property
    def extreme(self) -> np.ndarray:
        """(n,) expected maximum of as many standard normal numbers."""
        return expected_maximum(self.ranks)

    def step(self, algorithm: str, inputs: Mapping[str, float]) -> dict[str, np.ndarray]:
        """A step on each number of ranks."""
        ranks = self.ranks
        if self.link is None:
            alpha, beta, fixed = inputs["alpha_s"], inputs["beta_s_per_byte"], 0.0
        else:
            alpha, beta, fixed = self.link.latency_s, 1.0 / self.link.bytes_per_second, inputs["fixed_s"]
        communication = sum(
            share * np.where(ranks > 1, fixed + allreduce_s(algorithm, ranks, size, alpha, beta), 0.0)
            for size, share in self.collectives
        )
        if self.batches is None:
            batch = np.full_like(ranks, self.batch)
            compute = np.full_like(ranks, inputs["compute_s"])
            one = inputs["compute_s"]
        else:
            batch = self.batch / ranks
            constant, slope = self.batches
            law = np.array(self.batches) * inputs["compute_s"] / max(constant + slope * self.measured_batch, 1e-12)
            compute, one = law[0] + law[1] * batch, law[0] + law[1] * self.batch
        # Input and spread in proportion to compute, which matters where the batch of a rank changes.
        share = compute / inputs["compute_s"]
        waiting, imbalance = inputs["input_s"] * share, inputs["sigma_s"] * share * self.extreme
        step = compute + waiting + imbalance + communication
        alone = one * (1.0 + inputs["input_s"] / inputs["compute_s"])
        rate = ranks * batch / step
        return {
            "step_s": step,
            "compute_s": compute,
            "input_s": waiting,
            "imbalance_s": imbalance,
            "communication_s": np.asarray(communication),
            "rate": rate,
            "efficiency": rate / (ranks * self.batch / alone),
        }


# --- output -----------------------------------------------------------------------------------------

COLUMNS = (
    "nodes",
    "ranks",
    "algorithm",
    "samples/s",
    "efficiency",
    "step ms",
    "compute",
    "imbalance",
    "comm.",
    "input",
)


def rows(model: Mapping[str, Any]) -> list[list[str]]:
    """The table for people, times in ms."""
    lines = []
    for name, curve in model["curves"].items():
        for p in curve:
            e = p["efficiency"]
            times = (p[k] for k in ("step_s", "compute_s", "imbalance_s", "communication_s", "input_s"))
            efficiency = f"{e['value']:.3f} ({e['low']:.3f}-{e['high']:.3f})"
            line = [f"{p['nodes']}", f"{p['ranks']}", name, f"{p['rate']:.0f}", efficiency]
            lines.append([*line, *(f"{1e3 * t:.2f}" for t in times)])
    return lines


def write(study: Study, model: Mapping[str, Any]) -> list[Path]:
    """Write `model-INTERCONNECT.json` and `.png` into the study."""
    from hpcgan.report.plots import png
    from hpcgan.scaling.figures import model_figure

    stem = re.sub(r"[^A-Za-z0-9.-]+", "_", f"model-{model['interconnect']}")
    files = [study.path / f"{stem}.json", study.path / f"{stem}.png"]
    write_atomic(files[0], json.dumps(model, indent=2) + "\n")
    write_atomic(files[1], png(model_figure(model)))
    return files
