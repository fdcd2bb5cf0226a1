"""hpcgan: data-parallel training of generative adversarial networks for the physical sciences."""

__version__ = "0.1.0"
