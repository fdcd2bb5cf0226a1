"""hpcgan: data-parallel training of generative adversarial networks for the physical sciences."""

from typing import Any

__version__ = "0.1.0"

_API = ("TrainResult", "generate", "train")
__all__ = ["TrainResult", "__version__", "generate", "train"]


def __getattr__(name: str) -> Any:
    """Load the API at its first use: importing a leaf module must stay cheap."""
    if name in _API:
        from hpcgan import api

        return getattr(api, name)
    raise AttributeError(f"module 'hpcgan' has no attribute '{name}'")
