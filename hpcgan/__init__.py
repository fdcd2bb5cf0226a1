"""hpcgan: data-parallel training of generative adversarial networks for the physical sciences."""

import os
import platform
from typing import Any

# TensorFlow leaves oneDNN's kernels off where a processor has no AVX-512 VNNI; with AVX2 alone, too, a step of a DCGAN
# is 1.7 times as fast with them (docs/performance.md). TensorFlow reads this when it is loaded, wherever that is.
if platform.machine() == "x86_64":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.2.0"

_API = ("TrainResult", "generate", "train")
__all__ = ["TrainResult", "__version__", "generate", "train"]


def __getattr__(name: str) -> Any:
    """Load the API at its first use: importing a leaf module must stay cheap."""
    if name in _API:
        from hpcgan import api

        return getattr(api, name)
    raise AttributeError(f"module 'hpcgan' has no attribute '{name}'")
