"""Where the time of a training step goes: each layer by itself, against the machine's matrix-multiply peak.

    python benchmarks/layers.py [CONFIG ...] [--set key=value ...] [--out layers.json]

The peak is the best of several large float32 matrix products, through TensorFlow (oneDNN) and through NumPy, on one
core and on all. The layers are read from the graph of the step that the training runs: every convolution and matrix
product that its results need, with its shapes, strides and padding, attributed to a variable and a pass. Each is
timed in a compiled function of its own with one thread, on tensors that differ from call to call. FLOPs are two for
each multiply-add, those with padding included. Batch norm is timed in the same way, Adam and the Python around the
graph by themselves; what is left of the measured step is activations, losses and other element-wise work. Every time
is the fastest of many calls; on a busy machine the parts can still add up to more than the step.
A step with the R1 penalty, one in many, is not looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcgan.launch.topology import available_cores, plan

CONFIGS = ("configs/rpv_reference.yaml", "configs/rpv_gan.yaml")
CONVOLUTIONS = ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter")
NORMS = ("FusedBatchNormV3", "FusedBatchNormGradV3")
COPIES = 4  # tensors that a timed operation goes through, so that they do not all stay in a cache
PEAK_SIZES = (1024, 2048, 3072)


# --- counting ------------------------------------------------------------------------------------------------------


def convolution_flops(small: Sequence[int], kernel: Sequence[int]) -> int:
    """Floating-point operations of a convolution, or of either of its gradients: the three need the same.

    Parameters
    ----------
    small : (n, height, width, outputs)
        Shape on the side that the stride makes small: a convolution's result, or the gradient that arrives there;
        a transposed convolution's input.
    kernel : (height, width, inputs, outputs)
        Shape of the kernel; `outputs` is the small side's.

    Returns
    -------
    int
        Two for each multiply-add; those with the zeros of the padding count as if they were done.
    """
    n, height, width, outputs = small
    return 2 * n * height * width * outputs * kernel[0] * kernel[1] * kernel[2]


def product_flops(rows: int, inner: int, columns: int) -> int:
    """Floating-point operations of a matrix product (rows, inner) x (inner, columns)."""
    return 2 * rows * inner * columns


# --- the graph -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """One kind of operation of the step.

    Attributes
    ----------
    layer, role : str
        The variable that it works with, and `forward`, `input gradient` or `weight gradient`.
    kind : str
        TensorFlow's name of the operation.
    shapes : tuple
        Of the two tensors it takes, or for batch norm of its images.
    result : tuple
        Shape of what it makes.
    options : tuple
        Strides, padding and explicit paddings, or which factors are transposed.
    """

    layer: str
    role: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]
    result: tuple[int, ...]
    options: tuple[Any, ...]

    @property
    def flops(self) -> int:
        """Of one call; 0 for batch norm, which is bound by memory."""
        if self.kind == "Conv2D" and any(self.options[2:]):
            # A transposed convolution to few channels as an ordinary one, which makes one more place a row and column.
            return convolution_flops((*self.shapes[0][:3], self.result[3]), self.shapes[1])
        if self.kind == "Conv2D":
            return convolution_flops(self.result, self.shapes[1])
        if self.kind == "Conv2DBackpropInput":
            return convolution_flops(self.shapes[1], self.shapes[0])
        if self.kind == "Conv2DBackpropFilter":
            return convolution_flops(self.shapes[1], self.result)
        if self.kind == "MatMul":
            (rows, inner), columns = self.shapes[0], self.result[1]
            return product_flops(inner if self.options[0] else rows, rows if self.options[0] else inner, columns)
        return 0


def needed(graph: Any) -> list[Any]:
    """Operations that the results and the updates of a function need, in the order of its making."""
    todo = [tensor.op for tensor in graph.outputs] + list(graph.control_outputs)
    seen = set()
    while todo:
        op = todo.pop()
        if op not in seen:
            seen.add(op)
            todo += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return [op for op in graph.get_operations() if op in seen]


def step_work(function: Any, batch: int) -> Counter[Work]:
    """Convolutions, matrix products and batch norms of a compiled step, with their numbers."""
    graph = function.graph
    names = {p.name: v.name for v in graph.variables for e, p in graph.captures if e is v.handle}

    def variable(tensor: Any) -> str | None:
        """The variable that a kernel is made of, seen through paddings and sums."""
        if tensor.name in names:
            return names[tensor.name].removesuffix(":0")
        if tensor.op.type in (
            "ReadVariableOp",
            "Identity",
            "Pad",
            "PadV2",
            "AddV2",
            "Reshape",
            "Transpose",
            "ReverseV2",
        ):
            return variable(tensor.op.inputs[0])
        return None

    def shape(tensor: Any) -> tuple[int, ...]:
        return tuple(batch if size is None else size for size in tensor.shape)

    found: Counter[Work] = Counter()
    first_kind: dict[str, tuple[Any, ...]] = {}  # how a layer's forward pass looks
    inputs: dict[str, str] = {}  # whose input a tensor is
    for op in needed(graph):
        if op.type in CONVOLUTIONS:
            a, b = {"Conv2D": (0, 1), "Conv2DBackpropInput": (1, 2), "Conv2DBackpropFilter": (0, 2)}[op.type]
            margins = tuple(op.get_attr("explicit_paddings"))
            options: tuple[Any, ...] = (tuple(op.get_attr("strides")), op.get_attr("padding").decode(), margins)
            weight = {"Conv2D": 1, "Conv2DBackpropInput": 1}.get(op.type)
            data = [op.inputs[i] for i in (0, 2) if op.type != "Conv2D" or i == 0]
        elif op.type == "MatMul":
            a, b = 0, 1
            options = (op.get_attr("transpose_a"), op.get_attr("transpose_b"))
            weight = 1 if variable(op.inputs[1]) else None
            data = list(op.inputs)
        elif op.type in NORMS:
            images = shape(op.inputs[0])
            role = "forward" if op.type == NORMS[0] else "gradients"
            found[Work("batch norm", role, op.type, (images,), images, ())] += 1
            continue
        else:
            continue
        layer = variable(op.inputs[weight]) if weight is not None else None
        if layer is None:
            layer = next((inputs[t.name] for t in data if t.name in inputs), "?")
            role = "weight gradient"
        else:
            look = (op.type, options)
            role = "forward" if first_kind.setdefault(layer, look) == look else "input gradient"
            if role == "forward":
                source = op.inputs[2] if op.type == "Conv2DBackpropInput" else op.inputs[0]
                inputs[source.name] = layer
        shapes = (shape(op.inputs[a]), shape(op.inputs[b]))
        found[Work(layer, role, op.type, shapes, _result(op, shape), options)] += 1
    return found


def _result(op: Any, shape: Callable[[Any], tuple[int, ...]]) -> tuple[int, ...]:
    """Shape of what an operation makes, which the graph may leave open where a tensor says it."""
    import tensorflow as tf

    place = {"Conv2DBackpropInput": 0, "Conv2DBackpropFilter": 1}.get(op.type)
    if place is None:
        return shape(op.outputs[0])
    said = op.inputs[place]
    if said.op.type in ("Shape", "ShapeN"):
        return shape(said.op.inputs[said.value_index])
    given = tf.get_static_value(said, partial=True)
    fallback = shape(op.outputs[0])
    return tuple(int(f if size is None else size) for size, f in zip(given, fallback, strict=True))


# --- timing --------------------------------------------------------------------------------------------------------


def best_of(call: Callable[[], Any], seconds: float = 0.3, least: int = 5) -> float:
    """Seconds of the fastest of as many calls as fit: what other programs disturb least."""
    call(), call()
    times: list[float] = []
    while len(times) < least or (sum(times) < seconds and len(times) < 200):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def time_work(work: Work) -> float:
    """Seconds of one call of an operation by itself, the call of the function around it taken off."""
    import tensorflow as tf

    rng = np.random.default_rng(1)

    def random(shape: tuple[int, ...]) -> Any:
        return tf.constant(rng.normal(size=shape).astype(np.float32))

    pairs = [tuple(random(s) for s in work.shapes) for _ in range(COPIES)]

    def apply(a: Any, b: Any = None) -> Any:
        if work.kind == "MatMul":
            return tf.raw_ops.MatMul(a=a, b=b, transpose_a=work.options[0], transpose_b=work.options[1])
        if work.kind in NORMS:
            channels = work.result[-1]
            one, none = tf.ones([channels]), tf.constant([], tf.float32)
            if work.kind == NORMS[0]:
                made = tf.raw_ops.FusedBatchNormV3(
                    x=a, scale=one, offset=one, mean=none, variance=none, epsilon=1e-5, is_training=True
                )
                return made.y
            made = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=a,
                x=b,
                scale=one,
                reserve_space_1=one,
                reserve_space_2=one,
                reserve_space_3=none,
                epsilon=1e-5,
                is_training=True,
            )
            return made.x_backprop
        strides, padding, margins = work.options
        common = {"strides": list(strides), "padding": padding, "explicit_paddings": list(margins)}
        if work.kind == "Conv2D":
            return tf.raw_ops.Conv2D(input=a, filter=b, **common)
        if work.kind == "Conv2DBackpropInput":
            return tf.raw_ops.Conv2DBackpropInput(input_sizes=work.result, filter=a, out_backprop=b, **common)
        return tf.raw_ops.Conv2DBackpropFilter(input=a, filter_sizes=work.result, out_backprop=b, **common)

    if work.kind == NORMS[1]:
        pairs = [(a, b) for (a,), (b,) in zip(pairs, pairs[1:] + pairs[:1])]

    # One number of each result is asked for: nothing is left out, and nothing large is copied.
    def corner(x: Any) -> Any:
        return tf.strided_slice(tf.reshape(x, [-1]), [0], [1])

    # The tensors are arguments: constants would be computed with once and for all when the graph is optimised.
    flat = [x for pair in pairs for x in pair]
    each = len(pairs[0])
    full = tf.function(lambda *xs: [corner(apply(*xs[i : i + each])) for i in range(0, len(xs), each)])
    empty = tf.function(lambda *xs: [corner(xs[i]) for i in range(0, len(xs), each)])
    return max(best_of(lambda: full(*flat)) - best_of(lambda: empty(*flat)), 0.0) / COPIES


def measure_peak() -> dict[str, float]:
    """GFLOP/s of large matrix products in this process, the best of several sizes and calls."""
    import tensorflow as tf

    threads = int(os.environ["OMP_NUM_THREADS"])
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    rng = np.random.default_rng(1)
    product = tf.function(lambda a, b: tf.matmul(a, b))
    found = {"tensorflow": 0.0, "numpy": 0.0}
    for size in PEAK_SIZES:
        a, b = (rng.normal(size=(size, size)).astype(np.float32) for _ in range(2))
        c, d = tf.constant(a), tf.constant(b)
        for name, call in (("tensorflow", lambda c=c, d=d: product(c, d)), ("numpy", lambda a=a, b=b: a @ b)):
            call()
            for _ in range(6):
                started = time.perf_counter()
                call()
                seconds = time.perf_counter() - started
                found[name] = max(found[name], product_flops(size, size, size) / seconds / 1e9)
    return found


def peak(threads: int) -> dict[str, float]:
    """The same in a process of its own with so many threads."""
    env = {**os.environ, **plan(1, threads=threads).env, "OPENBLAS_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, __file__, "--peak-worker"], env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit("the measurement of the peak failed")
    return json.loads(done.stdout.splitlines()[-1])


def measure_config(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The step and its parts, in this process with one thread."""
    import tensorflow as tf

    from hpcgan import config as configuration
    from hpcgan.comm.base import SerialComm
    from hpcgan.comm.devices import configure_devices
    from hpcgan.methods.gan import Gan, Kind
    from hpcgan.problems.base import problem_class

    comm = SerialComm()
    configure_devices(comm, 1)
    config = configuration.load(path, overrides)
    if config.training.dtype != "float32":
        sys.exit(f"{path}: the peak is that of float32, training.dtype is {config.training.dtype}")
    if config.method != "gan":
        sys.exit(f"{path}: only steps of GANs are read, whose products have the same shapes in every step")
    problem, batch = problem_class(config.problem)(config.model), config.training.batch_size
    gan = Gan(problem, config.training, comm, config.seed, config.data.augment, config.comm.compression)
    rng = np.random.default_rng(1)
    # Of every thousand cells of detector images 30 are lit; what they hold does not matter to the time.
    real = {
        name: (rng.exponential(0.05, (batch, *spec.shape)) * (rng.random((batch, *spec.shape)) < 0.03)).astype("f4")
        for name, spec in problem.schema.items()
    }
    draws = gan.draws(1, 0, batch)
    rates = {"generator": 1e-4, "discriminator": 1e-4}

    def step() -> None:
        gan.step(1, real, draws, learning_rates=rates, samples=batch, attention=False)  # step 1 has no penalty

    arguments = (
        {k: tf.constant(v) for k, v in real.items()},
        {k: tf.constant(v) for k, v in draws.items()},
        {k: tf.constant(v) for k, v in rates.items()},
        tf.constant(0.5),
        tf.constant(0.0),
    )
    compiled = gan.compiled(Kind(penalise=False, update_generator=True))  # without R1, with both updates
    works = step_work(compiled.get_concrete_function(*arguments), batch)
    whole = best_of(step, 5.0, 10)
    graph = best_of(lambda: compiled(*arguments)[0].numpy(), 5.0, 10)
    rows = []
    for work, number in works.items():
        seconds = time_work(work)
        rows.append(
            {
                "layer": work.layer,
                "role": work.role,
                "operation": work.kind,
                "shapes": [list(s) for s in work.shapes],
                "result": list(work.result),
                "calls": number,
                "flops": work.flops,
                "seconds": seconds,
            }
        )
    return {
        "config": str(path),
        "overrides": list(overrides),
        "batch": batch,
        "step_s": whole,
        "python_s": max(whole - graph, 0.0),
        "adam_s": time_adam(gan),
        "rows": rows,
    }


def time_adam(gan: Any) -> float:
    """Seconds of both networks' updates; the weights stay as they are (rate 0)."""
    import tensorflow as tf

    rate, gradients = tf.constant(0.0), {}
    for name, optimizer in gan.optimizers.items():
        gradients[name] = [tf.random.stateless_normal(v.shape, [1, 2]) for v in optimizer._variables]

    @tf.function
    def update(gradients: Any) -> Any:
        for name, optimizer in gan.optimizers.items():
            optimizer.apply(gradients[name], rate)

    @tf.function
    def nothing(gradients: Any) -> Any:
        return rate

    return max(best_of(lambda: update(gradients)) - best_of(lambda: nothing(gradients)), 0.0)


# --- what is said --------------------------------------------------------------------------------------------------


def summarise(result: dict[str, Any], peak_flops: float) -> dict[str, Any]:
    """Add rates and shares to what was measured; `peak_flops` in FLOP/s of one core."""
    for row in result["rows"]:
        if row["flops"]:
            row["gflop_s"] = row["flops"] / row["seconds"] / 1e9 if row["seconds"] else None
            row["of_peak"] = row["gflop_s"] * 1e9 / peak_flops if row["seconds"] else None
    layers = sum(row["calls"] * row["seconds"] for row in result["rows"] if row["flops"])
    norms = sum(row["calls"] * row["seconds"] for row in result["rows"] if not row["flops"])
    flops = sum(row["calls"] * row["flops"] for row in result["rows"])
    step = result["step_s"]
    rest = step - layers - norms - result["adam_s"] - result["python_s"]
    parts = {
        "convolutions and products": layers,
        "batch norm": norms,
        "Adam": result["adam_s"],
        "Python": result["python_s"],
        "the rest": rest,
    }
    result |= {
        "flops": flops,
        "step_gflop_s": flops / step / 1e9,
        "step_of_peak": flops / step / peak_flops,
        "parts_s": parts,
        "shares": {name: seconds / step for name, seconds in parts.items()},
    }
    return result


def show(result: dict[str, Any]) -> None:
    """The table."""
    print(f"\n{result['config']} {' '.join(result['overrides'])} batch {result['batch']}, one thread")
    print(f"{'layer':<28} {'pass':<16} {'calls':>5} {'MFLOP':>8} {'ms':>8} {'GFLOP/s':>8} {'of peak':>7}  shapes")
    for row in result["rows"]:
        shapes = " ".join("x".join(map(str, s)) for s in [*row["shapes"], row["result"]])
        rate = f"{row['gflop_s']:>8.1f} {row['of_peak']:>7.2f}" if row.get("gflop_s") else f"{'-':>8} {'-':>7}"
        mega, ms = row["flops"] / 1e6, 1e3 * row["seconds"]
        print(f"{row['layer']:<28} {row['role']:<16} {row['calls']:>5} {mega:>8.1f} {ms:>8.3f} {rate}  {shapes}")
    for name, seconds in result["parts_s"].items():
        print(f"{name + ', a step':<45} {1e3 * seconds:>17.2f} ms {result['shares'][name]:>8.1%}")
    print(
        f"{'the whole step':<45} {1e3 * result['step_s']:>17.2f} ms, {result['flops'] / 1e9:.2f} GFLOP, "
        f"{result['step_gflop_s']:.1f} GFLOP/s, {result['step_of_peak']:.2f} of the peak, "
        f"{result['batch'] / result['step_s']:.0f} samples/s",
        flush=True,
    )


def main() -> None:
    """Measure the peak, then every configuration in a process of its own; print and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="*", type=Path, default=[Path(name) for name in CONFIGS])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides, for all configurations")
    parser.add_argument("--out", type=Path, default=Path("layers.json"))
    parser.add_argument("--peak-worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak_worker:
        print(json.dumps(measure_peak()))
        return
    if args.worker:
        args.out.write_text(json.dumps(measure_config(args.configs[0], args.set)))
        return
    cores = available_cores()
    peaks = {str(threads): peak(threads) for threads in sorted({1, cores})}
    for threads, found in peaks.items():
        said = ", ".join(f"{name} {rate:.0f}" for name, rate in found.items())
        print(f"matrix-multiply peak, {threads} thread(s), float32: {said} GFLOP/s", flush=True)
    best = max(peaks["1"].values())
    results = []
    env = {**os.environ, **plan(1, threads=1).env}
    for config in args.configs:
        command = [sys.executable, __file__, str(config), "--out", str(args.out), "--worker", "--set", *args.set]
        if subprocess.run(command if args.set else command[:-1], env=env).returncode:
            sys.exit(f"{config}: the measurement failed")
        results.append(summarise(json.loads(args.out.read_text()), 1e9 * best))
        show(results[-1])
    args.out.write_text(json.dumps({"cores": cores, "peak_gflop_s": peaks, "configs": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
