"""The reference DCGAN's training step in PyTorch, as fast as it goes there on cores: a yardstick.

    pip install torch==2.13.0 numpy h5py        # an environment of its own
    python benchmarks/torch_peer.py --filters 16 [--processes 2 --threads 1] [--parallel isolated|ddp]
    python benchmarks/torch_peer.py --check step.npz        # from export_step.py: is it the same step?

The step is that of `hpcgan.methods.gan` with `architecture: dcgan`: one forward pass of the generator; the
discriminator's update on the real and the fake batch, each with batch-norm statistics of its own; then the
generator's against the updated discriminator with the same fake batch, in a pass that leaves the moving statistics
alone and computes no gradients of the discriminator's weights. Where there was a choice, PyTorch got the faster
one: fused Adam, in-place activations, unpadded views between the layouts, gradients freed and not zeroed,
denormal numbers flushed, glibc told to keep its memory, data in memory beforehand, no check for non-finite gradients
(hpcgan has one in each step). In DDP the ranks keep their own moving statistics (hpcgan averages them).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from together import run_all, total_rate, wait_for_all, write_rate
from torch import nn
from torch.nn import functional

WARM_UP = 20
BATCHES = 16  # of real images, used in turn
SCALE_MEV, THRESHOLD_MEV = 4.0e6, 500.0
EPSILON = 1e-8
SLOPE = float(np.float32(0.2))  # TensorFlow keeps that of the leaky ReLU in single precision, whatever the tensors
# Without these glibc returns each large tensor to the system, and every step pays for fresh pages.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}


class BatchNorm(nn.Module):
    """Batch norm that always uses the batch's statistics; moving ones follow only if asked to."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale, self.offset = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("moving_mean", torch.zeros(channels))
        self.register_buffer("moving_variance", torch.ones(channels))

    def forward(self, x: torch.Tensor, update: bool = True) -> torch.Tensor:
        mean, variance = (self.moving_mean, self.moving_variance) if update else (None, None)
        return functional.batch_norm(x, mean, variance, self.scale, self.offset, True, 0.1, 1e-5)


class Generator(nn.Module):
    """Noise (n, latent_dim) -> images (n, 64, 64)."""

    def __init__(self, latent_dim: int, filters: int, threshold: float, layout: str) -> None:
        super().__init__()
        widths = [8 * filters, 4 * filters, 2 * filters, filters]
        self.project = nn.Linear(latent_dim, 16 * widths[0], bias=False)
        self.norms = nn.ModuleList(BatchNorm(w) for w in widths)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False) for a, b in zip(widths, [*widths[1:], 1], strict=True)
        )
        self.width, self.threshold, self.channels_last = widths[0], threshold, layout == "channels_last"

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        x = self.project(noise)
        x = x.view(-1, 4, 4, self.width).permute(0, 3, 1, 2) if self.channels_last else x.view(-1, self.width, 4, 4)
        for norm, up in zip(self.norms, self.ups, strict=True):
            x = up(functional.relu(norm(x), inplace=True))
        x = torch.sigmoid(x[:, 0])
        return torch.where(x > self.threshold, x, 0.0)


class Discriminator(nn.Module):
    """Images (n, 64, 64) -> logits (n,)."""

    def __init__(self, filters: int, layout: str) -> None:
        super().__init__()
        widths = [filters, 2 * filters, 4 * filters, 8 * filters]
        self.downs = nn.ModuleList(
            nn.Conv2d(a, b, 4, 2, 1, bias=False) for a, b in zip([1, *widths[:-1]], widths, strict=True)
        )
        self.norms = nn.ModuleList(BatchNorm(w) for w in widths[1:])
        self.head = nn.Linear(16 * widths[-1], 1, bias=False)
        self.channels_last = layout == "channels_last"

    def forward(self, images: torch.Tensor, update: bool = True) -> torch.Tensor:
        # A view whose strides say the layout, which one channel alone leaves open.
        x = images[..., None].permute(0, 3, 1, 2) if self.channels_last else images[:, None]
        for i, down in enumerate(self.downs):
            x = down(x)
            if i > 0:
                x = self.norms[i - 1](x, update)
            x = functional.leaky_relu(x, SLOPE, inplace=True)
        return self.head((x.permute(0, 2, 3, 1) if self.channels_last else x).flatten(1))[:, 0]


class DiscriminatorLoss(nn.Module):
    """Both passes and the loss: what DDP wraps, since it wants one forward call for each backward pass."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, real: torch.Tensor, fake: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
        real_logits, fake_logits = self.discriminator(real), self.discriminator(fake)
        return functional.softplus(-sign * real_logits).mean() + functional.softplus(sign * fake_logits).mean()


class Gan:
    """Networks, optimizers, and the step."""

    def __init__(
        self,
        latent_dim: int,
        filters: int,
        layout: str,
        *,
        threshold: float = THRESHOLD_MEV / SCALE_MEV,
        dtype: torch.dtype = torch.float32,
        compiled: bool = False,
        ddp: bool = False,
        adam: dict[str, dict[str, float]] | None = None,
    ) -> None:
        torch.set_flush_denormal(True)
        self.generator = Generator(latent_dim, filters, threshold, layout).to(dtype)
        self.discriminator = Discriminator(filters, layout).to(dtype)
        if layout == "channels_last":
            self.generator.to(memory_format=torch.channels_last)
            self.discriminator.to(memory_format=torch.channels_last)
        settings = adam or {"generator": {}, "discriminator": {}}
        self.optimizers = [
            torch.optim.Adam(
                network.parameters(),
                lr=chosen.get("learning_rate", 1e-4),
                betas=(chosen.get("beta1", 0.5), chosen.get("beta2", 0.999)),
                fused=True,
            )
            for network, chosen in (
                (self.generator, settings["generator"]),
                (self.discriminator, settings["discriminator"]),
            )
        ]
        self.steps = 0
        self._generate: Any = self.generator
        self._discriminator_loss: Any = DiscriminatorLoss(self.discriminator)
        self._criticise: Any = self._generator_loss
        if ddp:
            options = {"forward_sync_buffers": False, "gradient_as_bucket_view": True, "static_graph": True}
            self._generate = nn.parallel.DistributedDataParallel(self._generate, **options)
            self._discriminator_loss = nn.parallel.DistributedDataParallel(self._discriminator_loss, **options)
        if compiled:
            self._generate = torch.compile(self._generate)
            self._discriminator_loss = torch.compile(self._discriminator_loss)
            self._criticise = torch.compile(self._criticise)

    def _generator_loss(self, fake: torch.Tensor) -> torch.Tensor:
        return functional.softplus(-self.discriminator(fake, update=False)).mean()

    def step(self, real: torch.Tensor, noise: torch.Tensor, flip: float) -> tuple[float, float]:
        """Update both networks once; real images (n, 64, 64), noise (n, latent_dim)."""
        self.steps += 1
        fake = self._generate(noise)
        sign = torch.tensor(1.0 - 2.0 * flip, dtype=real.dtype)
        d_loss = self._discriminator_loss(real, fake.detach(), sign)
        d_loss.backward()
        self._apply(self.optimizers[1])
        g_loss = self._criticise(fake)
        (upstream,) = torch.autograd.grad(g_loss, fake)
        fake.backward(upstream)
        self._apply(self.optimizers[0])
        return d_loss.item(), g_loss.item()

    def _apply(self, optimizer: torch.optim.Adam) -> None:
        (group,) = optimizer.param_groups
        # hpcgan has Adam in its efficient form, whose epsilon is not divided by the bias correction.
        group["eps"] = EPSILON / (1.0 - group["betas"][1] ** self.steps) ** 0.5
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @property
    def named(self) -> dict[str, torch.Tensor]:
        """Parameters and moving statistics under hpcgan's names."""
        found = {"generator/project/kernel": self.generator.project.weight}
        found["discriminator/head/kernel"] = self.discriminator.head.weight
        for i, up in enumerate(self.generator.ups):
            found[f"generator/up{i}/kernel"] = up.weight
        for i, down in enumerate(self.discriminator.downs):
            found[f"discriminator/down{i}/kernel"] = down.weight
        for prefix, norms in (
            ("generator/norm", self.generator.norms),
            ("discriminator/norm", self.discriminator.norms),
        ):
            for i, norm in enumerate(norms, start=int(prefix.startswith("d"))):
                for key in ("scale", "offset", "moving_mean", "moving_variance"):
                    found[f"{prefix}{i}/{key}"] = getattr(norm, key)
        return found

    def to_torch(self, name: str, array: np.ndarray) -> np.ndarray:
        """One of hpcgan's arrays in this model's order of axes."""
        if array.ndim == 4:  # both kinds of convolution: (k, k, a, b) -> (b, a, k, k)
            return array.transpose(3, 2, 0, 1)
        if array.ndim == 2:
            array = array.T  # (outputs, inputs)
            if not self.generator.channels_last:
                if name == "generator/project/kernel":
                    array = array.reshape(4, 4, -1, array.shape[1]).transpose(2, 0, 1, 3).reshape(array.shape)
                else:
                    array = array.reshape(1, 4, 4, -1).transpose(0, 3, 1, 2).reshape(array.shape)
        return array


def check(file: Path, layout: str, compiled: bool) -> bool:
    """Repeat hpcgan's steps; print how far losses and weights are from its own.

    Relative: the losses of each step; the norm of the difference to that of a network's weights, and to that of their
    change over the steps; the latter also tensor by tensor.
    """
    given = np.load(file)
    dtype = torch.float64 if given["real"].dtype == np.float64 else torch.float32
    # In float32 sums in another order differ by 1e-7, and Adam's first updates are nearly the signs of the gradients:
    # where one is nearly zero, rounding decides on its sign. So the proof is float64.
    single = {"losses": 1e-3, "weights": 1e-3, "changes": 1e-2, "tensor": math.inf}
    bounds = single if dtype == torch.float32 else dict.fromkeys(single, 1e-8)
    names = ("generator", "discriminator")
    adam = {n: {k: float(given[f"{n}/{k}"]) for k in ("learning_rate", "beta1", "beta2")} for n in names}
    if any(float(given[f"{n}/epsilon"]) != EPSILON for n in names):
        sys.exit(f"{file}: the peer has Adam's epsilon fixed at {EPSILON}")
    gan = Gan(
        int(given["latent_dim"]),
        int(given["filters"]),
        layout,
        threshold=float(given["threshold"]),
        dtype=dtype,
        compiled=compiled,
        adam=adam,
    )
    with torch.no_grad():
        for name, tensor in gan.named.items():
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(gan.to_torch(name, given[f"initial/{name}"]))))
    expected = {key.removeprefix("final/") for key in given.files if key.startswith("final/")}
    if expected != set(gan.named):
        sys.exit(f"{file}: other variables than the peer's: {sorted(expected ^ set(gan.named))}")
    losses = [
        gan.step(torch.from_numpy(real), torch.from_numpy(noise), float(flip))
        for real, noise, flip in zip(given["real"], given["noise"], given["flip"], strict=True)
    ]
    worst = {"losses": (float(np.max(np.abs(np.array(losses) / given["losses"] - 1.0))), "any step")}
    squares = {n: np.zeros(3) for n in names}  # of the distance, the weights, their changes
    worst["tensor"] = (0.0, "")
    for name, tensor in gan.named.items():
        final, initial = (gan.to_torch(name, given[f"{kind}/{name}"]) for kind in ("final", "initial"))
        norms = [float(np.linalg.norm(x)) for x in (tensor.detach().numpy() - final, final, final - initial)]
        squares[name.split("/")[0]] += np.square(norms)
        worst["tensor"] = max(worst["tensor"], (norms[0] / norms[2], name))
    worst["weights"] = max((float(np.sqrt(s[0] / s[1])), n) for n, s in squares.items())
    worst["changes"] = max((float(np.sqrt(s[0] / s[2])), n) for n, s in squares.items())
    good = True
    for what, (distance, where) in worst.items():
        good &= distance <= bounds[what]
        verdict = "ok" if distance <= bounds[what] else "NOT THE SAME STEP"
        print(f"{layout} {given['real'].dtype} {what}: {distance:.1e} (bound {bounds[what]:.0e}) {where}: {verdict}")
    return good


def worker(args: argparse.Namespace) -> None:
    """Time steps as one of the processes; write the result beside the others."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.index)
    ddp = args.parallel == "ddp"
    if ddp:
        store = torch.distributed.FileStore(str(args.folder / "store"), args.processes)
        torch.distributed.init_process_group(
            "gloo", store=store, rank=args.index, world_size=args.processes, timeout=timedelta(seconds=120)
        )
    gan = Gan(args.latent_dim, args.filters, args.layout, compiled=args.compile, ddp=ddp)
    with h5py.File(args.data) as file:
        stored = file["all_events/hist"]
        first = args.index * BATCHES * args.batch
        images = np.asarray(stored[first : first + BATCHES * args.batch], np.float32) / SCALE_MEV
    if len(images) < BATCHES * args.batch:
        sys.exit(f"{args.data}: {len(stored)} events, too few for {args.processes} x {BATCHES} batches of {args.batch}")
    real = torch.from_numpy(images).split(args.batch)
    started = 0.0
    for step in range(args.warm_up + args.steps):
        if step == args.warm_up:
            wait_for_all(args.folder, args.processes, args.index)
            started = time.monotonic()
        gan.step(real[step % BATCHES], torch.randn(args.batch, args.latent_dim), 0.0)
    write_rate(args.folder, args.index, args.steps * args.batch / (time.monotonic() - started))
    if ddp:
        sums = torch.stack([p.detach().double().sum() for p in gan.named.values() if p.requires_grad])
        others = [torch.empty_like(sums) for _ in range(args.processes)]
        torch.distributed.all_gather(others, sums)
        if any(not torch.equal(other, sums) for other in others):
            sys.exit("the ranks have different weights")
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def main() -> None:
    """Check, or measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", type=Path, metavar="FILE.npz", help="compare with hpcgan's steps, and stop")
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--latent-dim", type=int, default=16)
    parser.add_argument("--batch", type=int, default=64, help="samples a process and step")
    parser.add_argument("--threads", type=int, default=1, help="of a process")
    parser.add_argument("--layout", default="channels_last", choices=("contiguous", "channels_last"))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--parallel", default="isolated", choices=("isolated", "ddp"), help="several processes")
    parser.add_argument("--compile", action="store_true", help="torch.compile the passes (takes minutes at first)")
    parser.add_argument("--data", type=Path, default=Path("data/rpv/train.h5"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=WARM_UP)
    parser.add_argument("--default-malloc", action="store_true", help="leave glibc's malloc as it is")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--index", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.check:
        sys.exit(not check(args.check, args.layout, args.compile))
    if args.folder:
        worker(args)
        return
    if not args.data.is_file():
        sys.exit(f"{args.data}: no such file; make it with 'hpcgan data rpv', or give --data")
    env = {"OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads)}
    if not args.default_malloc:
        env |= MALLOC
    with tempfile.TemporaryDirectory() as name:
        common = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--folder", name]
        run_all([[*common, "--index", str(i)] for i in range(args.processes)], env)
        rate = total_rate(Path(name))
    settings = ("filters", "batch", "threads", "layout", "processes", "parallel", "compile")
    print(json.dumps({**{k: getattr(args, k) for k in settings}, "torch": torch.__version__, "samples_per_s": rate}))


if __name__ == "__main__":
    main()
