"""Write a few training steps of the reference DCGAN for `torch_peer.py --check`: inputs, and what came of them.

    python benchmarks/export_step.py step.npz [--config configs/rpv_reference.yaml] [key=value ...] [--dtype float64]

The file has the initial weights (`initial/NAME`), per step the real images, the noise and whether labels were
flipped, the losses of the steps, and weights and moving statistics after the last one (`final/NAME`). Images are
random and as sparse as the real ones, so no data set is needed. The second step has its labels flipped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from hpcgan import config as configuration
from hpcgan.comm.base import SerialComm
from hpcgan.methods.gan import Gan
from hpcgan.problems.base import problem_class

STEPS = 3


def sparse_images(rng: np.random.Generator, n: int) -> np.ndarray:
    """Encoded images (n, 64, 64): 3% of the pixels are lit, with exponential intensities."""
    return rng.exponential(0.05, (n, 64, 64)) * (rng.random((n, 64, 64)) < 0.03)


def main() -> None:
    """Run the steps and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--config", type=Path, default=Path("configs/rpv_reference.yaml"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    args = parser.parse_intermixed_args()
    config = configuration.load(args.config, [*args.overrides, f"training.dtype={args.dtype}"])
    model, training = config.model, config.training
    known = ("dcgan", "zero", "batch", None)
    if (model.architecture, model.phi_padding, model.normalisation, model.discriminator_normalisation) != known:
        sys.exit(f"{args.config}: the peer knows architecture dcgan with zero padding and batch norm only")
    if training.r1.weight or training.augment_generated or training.average_half_life:
        sys.exit(f"{args.config}: the peer knows neither R1 nor augmented generated samples nor averaging")
    more = (training.label_smoothing, training.instance_noise.sigma, training.critic_steps)
    if training.loss != "bce" or more != (0.0, 0.0, 1):
        sys.exit(f"{args.config}: the peer knows loss bce only, without smoothing, instance noise and critic steps")
    gan = Gan(problem_class(config.problem)(model), training, SerialComm(), config.seed)
    found = {
        "latent_dim": model.latent_dim,
        "filters": model.filters,
        "threshold": model.encoded_threshold,
        **{
            f"{name}/{key}": getattr(getattr(training, name), key)
            for name in ("generator", "discriminator")
            for key in ("learning_rate", "beta1", "beta2", "epsilon")
        },
    }
    variables = {k: v for name in ("generator", "discriminator") for k, v in gan.networks[name].named.items()}
    found |= {f"initial/{k}": v.numpy() for k, v in variables.items()}
    rng = np.random.default_rng(config.seed)
    rates = {name: getattr(training, name).learning_rate for name in ("generator", "discriminator")}
    real, noise, flips, losses = [], [], [], []
    for step in range(STEPS):
        images = sparse_images(rng, training.batch_size).astype(args.dtype)
        draws = {**gan.draws(step, 0, training.batch_size), "flip": np.array(step == 1, args.dtype)}
        samples = (step + 1) * training.batch_size
        said = gan.step(step, {"hist": images}, draws, learning_rates=rates, samples=samples, attention=False).metrics
        real.append(images)
        noise.append(draws["noise"])
        flips.append(draws["flip"])
        losses.append([said["discriminator_loss"], said["generator_loss"]])
    found |= {"real": np.stack(real), "noise": np.stack(noise), "flip": np.stack(flips), "losses": np.array(losses)}
    found |= {f"final/{k}": v.numpy() for k, v in variables.items()}
    np.savez(args.out, **found)


if __name__ == "__main__":
    main()
