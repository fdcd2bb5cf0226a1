"""Who may import whom, read from the source; and what the command line loads.

The table is the architecture of docs and CONTRIBUTING: commands at the top, leaves at the bottom, TensorFlow,
Horovod and MPI only where it says so. A module that is not covered fails, so that a new part finds its place.
"""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "hpcgan"

# A part is the longest prefix of a module's name that occurs here. It may import itself, and the parts to the right.
#: Whom everybody may import.
LEAVES = {f"hpcgan{name}" for name in ("", ".errors", ".suggest", ".plugins", ".yamlio", ".weights", ".system")}
#: A family of problems describes its own section of the configuration, opens its own files and draws its own figures.
FAMILY = {"hpcgan.problems.base", "hpcgan.problems.figures", "hpcgan.problems.symmetries", "hpcgan.report",
          "hpcgan.metrics", "hpcgan.physics", "hpcgan.data", "hpcgan.config"}  # fmt: skip
MAY_IMPORT = {
    "hpcgan": {"hpcgan.api"},  # the public names, loaded when they are asked for
    "hpcgan.__main__": {"hpcgan.commands"},
    "hpcgan.commands": {"hpcgan.api", "hpcgan.serve", "hpcgan.sweep", "hpcgan.scaling", "hpcgan.overlay",
                        "hpcgan.chaos", "hpcgan.calochallenge", "hpcgan.training", "hpcgan.evaluation", "hpcgan.comm",
                        "hpcgan.launch", "hpcgan.runs", "hpcgan.tracking", "hpcgan.problems.base",
                        "hpcgan.problems.discovery",
                        "hpcgan.problems.events",
                        "hpcgan.problems.importers", "hpcgan.problems.layouts", "hpcgan.problems.run_data",
                        "hpcgan.data", "hpcgan.config"},
    "hpcgan.interactive": {"hpcgan.api", "hpcgan.sweep", "hpcgan.launch", "hpcgan.evaluation.epoch_samples",
                           "hpcgan.runs", "hpcgan.problems.run_data", "hpcgan.report", "hpcgan.config",
                           "hpcgan.schedule"},
    # What engines run is a rank of a job, as `hpcgan train` is one.
    "hpcgan.interactive.ranks": {"hpcgan.training", "hpcgan.comm", "hpcgan.launch.topology", "hpcgan.runs",
                                 "hpcgan.config"},
    "hpcgan.api": {"hpcgan.training", "hpcgan.evaluation", "hpcgan.comm.select", "hpcgan.launch", "hpcgan.runs",
                   "hpcgan.problems.run_data", "hpcgan.config"},
    "hpcgan.serve": {"hpcgan.evaluation", "hpcgan.launch.topology", "hpcgan.launch.world",
                     "hpcgan.problems.base", "hpcgan.problems.run_data",
                     "hpcgan.data.schema", "hpcgan.runs", "hpcgan.config"},
    "hpcgan.sweep": {"hpcgan.launch", "hpcgan.evaluation.epoch_samples", "hpcgan.runs", "hpcgan.problems.run_data",
                     "hpcgan.report", "hpcgan.config", "hpcgan.rng"},
    "hpcgan.chaos": {"hpcgan.launch", "hpcgan.runs", "hpcgan.sweep.store"},
    "hpcgan.scaling": {"hpcgan.launch", "hpcgan.runs", "hpcgan.problems.run_data", "hpcgan.report", "hpcgan.config"},
    # A comparison of calorimeter showers that others have defined: about this family.
    "hpcgan.calochallenge": {"hpcgan.evaluation", "hpcgan.comm", "hpcgan.problems.base", "hpcgan.problems.calorimeter",
                             "hpcgan.problems.events", "hpcgan.problems.run_data", "hpcgan.physics", "hpcgan.runs",
                             "hpcgan.data", "hpcgan.report", "hpcgan.metrics", "hpcgan.rng"},
    # Generated pileup laid over generated signals: about these two families.
    "hpcgan.overlay": {"hpcgan.evaluation", "hpcgan.problems.base", "hpcgan.problems.events",
                       "hpcgan.problems.run_data", "hpcgan.problems.detector_images", "hpcgan.problems.pileup",
                       "hpcgan.runs", "hpcgan.data", "hpcgan.report", "hpcgan.metrics", "hpcgan.config"},
    "hpcgan.training": {"hpcgan.evaluation", "hpcgan.methods", "hpcgan.problems.base", "hpcgan.problems.events",
                        "hpcgan.problems.run_data", "hpcgan.comm", "hpcgan.launch.world", "hpcgan.launch.topology",
                        "hpcgan.data", "hpcgan.report", "hpcgan.runs", "hpcgan.tracking", "hpcgan.metrics",
                        "hpcgan.config", "hpcgan.schedule"},
    "hpcgan.evaluation": {"hpcgan.methods", "hpcgan.networks", "hpcgan.problems.base", "hpcgan.problems.events",
                          "hpcgan.problems.figures", "hpcgan.problems.layouts", "hpcgan.problems.mesh",
                          "hpcgan.problems.run_data",
                          "hpcgan.comm", "hpcgan.data",
                          "hpcgan.runs", "hpcgan.report", "hpcgan.metrics", "hpcgan.config", "hpcgan.rng"},
    "hpcgan.methods": {"hpcgan.networks", "hpcgan.problems.base", "hpcgan.comm.base", "hpcgan.config",
                       "hpcgan.data.schema", "hpcgan.rng"},
    "hpcgan.networks": {"hpcgan.comm.base", "hpcgan.rng"},
    "hpcgan.comm": {"hpcgan.launch.world", "hpcgan.launch.topology", "hpcgan.config.registries"},
    "hpcgan.launch": {"hpcgan.config", "hpcgan.runs"},
    "hpcgan.tracking": {"hpcgan.config", "hpcgan.runs"},
    "hpcgan.launch.world": set(),
    "hpcgan.launch.topology": {"hpcgan.launch.world"},
    "hpcgan.runs": {"hpcgan.config"},
    "hpcgan.problems": set(),
    # Sums the showers of this family's generator and importers.
    "hpcgan.problems.arm": {"hpcgan.problems.base", "hpcgan.problems.calorimeter", "hpcgan.problems.figures",
                            "hpcgan.report", "hpcgan.metrics", "hpcgan.physics", "hpcgan.rng",
                            "hpcgan.data", "hpcgan.config", "hpcgan.networks"},
    "hpcgan.problems.calorimeter": {*FAMILY, "hpcgan.networks", "hpcgan.problems.files", "hpcgan.problems.mesh",
                                    "hpcgan.rng"},
    "hpcgan.problems.cosmo": {*FAMILY, "hpcgan.networks"},
    "hpcgan.problems.detector_images": {*FAMILY, "hpcgan.networks", "hpcgan.problems.files"},
    "hpcgan.problems.jet_images": {"hpcgan.problems.base", "hpcgan.problems.figures", "hpcgan.report", "hpcgan.metrics",
                                   "hpcgan.physics", "hpcgan.data", "hpcgan.config", "hpcgan.networks",
                                   "hpcgan.problems.files"},
    "hpcgan.problems.pileup": {"hpcgan.problems.base", "hpcgan.problems.files", "hpcgan.problems.detector_images",
                               "hpcgan.metrics", "hpcgan.physics", "hpcgan.data", "hpcgan.rng"},
    # Which files a run was trained with: what only its problem and its directory together know.
    "hpcgan.problems.run_data": {"hpcgan.problems.base", "hpcgan.data", "hpcgan.config", "hpcgan.runs"},
    "hpcgan.problems.events": {"hpcgan.problems.base", "hpcgan.metrics", "hpcgan.data"},
    "hpcgan.problems.layouts": {"hpcgan.problems.discovery", "hpcgan.problems.importers", "hpcgan.data"},
    "hpcgan.problems.importers": {"hpcgan.problems.discovery", "hpcgan.data.importers", "hpcgan.config.base"},
    "hpcgan.problems.base": {"hpcgan.problems.conditions", "hpcgan.problems.discovery", "hpcgan.problems.files",
                             "hpcgan.problems.mesh", "hpcgan.problems.symmetries", "hpcgan.metrics",
                             "hpcgan.data.schema"},
    "hpcgan.problems.conditions": {"hpcgan.data.schema"},
    "hpcgan.problems.mesh": set(),
    "hpcgan.problems.files": {"hpcgan.problems.discovery", "hpcgan.data"},
    "hpcgan.problems.figures": {"hpcgan.metrics", "hpcgan.data.schema"},
    "hpcgan.problems.symmetries": {"hpcgan.data.schema"},
    "hpcgan.problems.discovery": set(),  # finds problems by their names
    "hpcgan.report": {"hpcgan.metrics", "hpcgan.runs.records"},
    "hpcgan.data": {"hpcgan.rng", "hpcgan.config.base"},
    "hpcgan.metrics": set(),
    "hpcgan.physics": {"hpcgan.rng"},
    "hpcgan.config": {"hpcgan.problems.discovery"},
    "hpcgan.schedule": {"hpcgan.config"},
    "hpcgan.rng": set(),
    "hpcgan.weights": {"hpcgan.rng"},
    "hpcgan.system": set(),
    "hpcgan.suggest": set(),
    "hpcgan.plugins": set(),
    "hpcgan.yamlio": set(),
    "hpcgan.errors": set(),
}  # fmt: skip

#: Of a problem, the files of its networks.
NETWORKS = tuple(
    f"hpcgan.problems.{name}"
    for name in (
        "arm.box_tables",
        "arm.network",
        "arm.network_boxes",
        "arm.network_layer",
        "calorimeter.layer_shares",
        "calorimeter.made",
        "calorimeter.networks",
        "calorimeter.networks_multiscale",
        "calorimeter.response",
        "calorimeter.shares",
        "calorimeter.showers",
        "cosmo.networks",
        "detector_images.networks_dcgan",
        "detector_images.networks_detector",
        "detector_images.networks_multiscale",
        "detector_images.pixels",
        "detector_images.spectrum",
        "jet_images.networks_discriminator",
        "jet_images.networks_generator",
        "jet_images.networks_layers",
        "jet_images.networks_multiscale",
    )
)
# Where TensorFlow may be imported at all, even inside a function.
TENSORFLOW = (
    "hpcgan.calochallenge.classifier",
    "hpcgan.networks",
    *NETWORKS,
    "hpcgan.methods",
    "hpcgan.training",
    "hpcgan.data.pipeline",
    "hpcgan.evaluation.sampling",
    "hpcgan.evaluation.export",
    "hpcgan.evaluation.onnx_export",
    "hpcgan.evaluation.onnx_par04",
    "hpcgan.evaluation.classifier",
    "hpcgan.evaluation.condition_classifier",
    "hpcgan.evaluation.image_classifier",
    "hpcgan.comm.horovod",
    "hpcgan.comm.import_tensorflow",
    "hpcgan.comm.selftest",
)
# Parts of these that must be importable without it all the same: inside functions only.
LAZY = (
    "hpcgan.comm",
    *(f"hpcgan.training.{name}" for name in ("inputs", "pace", "profile_summary", "progress", "requests", "staged")),
    "hpcgan.training.warm_start",
    *(f"hpcgan.methods.{name}" for name in ("base", "settings")),
)
ONLY_IN = {"horovod": ("hpcgan.comm.horovod",), "mpi4py": ("hpcgan.comm.mpi",), "jinja2": ("hpcgan.report.page",),
           "mlflow": ("hpcgan.tracking.mlflow_runs",), "wandb": ("hpcgan.tracking.wandb_runs",)}  # fmt: skip


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache  # each file is asked for a hundred times
def imports(source: str, module: str, is_package: bool) -> list[tuple[str, bool]]:
    """Absolute names of what is imported, and whether that happens when the module is."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, at_import: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                for other in child.orelse:
                    visit(other, at_import)
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, at_import) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    package = module.split(".") if is_package else module.split(".")[:-1]
                    package = package[: len(package) - child.level + 1]
                    base = ".".join([*package, *([child.module] if child.module else [])])
                for alias in child.names:
                    # `from hpcgan import config` imports hpcgan.config, if there is such a module.
                    whole = f"{base}.{alias.name}"
                    found.append((whole if exists(whole) else base, at_import))
            elif (
                isinstance(child, ast.Call)
                and ast.unparse(child.func) in ("importlib.import_module", "import_module", "__import__")
                and child.args
                and isinstance(child.args[0], ast.Constant)
            ):
                found.append((str(child.args[0].value), at_import))
            lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            visit(child, at_import and not lazy)

    visit(ast.parse(source), True)
    return found


def exists(name: str) -> bool:
    if not name.startswith("hpcgan"):
        return False
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def part_of(module: str) -> str | None:
    parts = module.split(".")
    names = [".".join(parts[:n]) for n in range(len(parts), 1, -1)]
    return next((name for name in names if name in MAY_IMPORT), "hpcgan" if module == "hpcgan" else None)


def within(module: str, parts) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in parts)


def forbidden(module: str, imported: str) -> str | None:
    """Why this import may not be, or None."""
    top = imported.split(".")[0]
    if top in ONLY_IN:
        return None if module in ONLY_IN[top] else f"only {ONLY_IN[top][0]} imports {top}"
    if top in ("tensorflow", "keras"):
        return None if within(module, TENSORFLOW) else f"{part_of(module)} has no TensorFlow"
    if top != "hpcgan" or within(imported, LEAVES - {"hpcgan"}) or imported == "hpcgan":
        return None
    part = part_of(module)
    if part is None:
        return "this module has no place in the table MAY_IMPORT"
    if within(imported, [part]) or within(module, [imported]):
        return None
    allowed = MAY_IMPORT[part]
    return None if within(imported, allowed) else f"{part} may import {sorted(allowed) or 'nothing'}"


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_one_way(path):
    module = module_name(path)
    assert part_of(module) is not None, f"{module} has no place in the table MAY_IMPORT"
    wrong = [
        f"{module} imports {imported}: {why}"
        for imported, _ in imports(path.read_text(), module, path.name == "__init__.py")
        if (why := forbidden(module, imported))
    ]
    assert not wrong, "\n".join(wrong)


@functools.cache
def graph() -> dict[str, frozenset[str]]:
    """The modules that each module of this package imports, also inside functions, but not for type checkers only."""
    return {
        module_name(path): frozenset(
            imported
            for imported, _ in imports(path.read_text(), module_name(path), path.name == "__init__.py")
            if exists(imported)
        )
        for path in MODULES
    }


def cycles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The strongly connected parts of a graph with more than one node, or with an arrow to itself (Tarjan 1972)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    parts = []

    def visit(node: str) -> None:
        numbers[node] = lowest[node] = len(numbers)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in numbers:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], numbers[other])
        if lowest[node] == numbers[node]:
            part = stack[stack.index(node) :]
            del stack[-len(part) :]
            if len(part) > 1 or node in graph.get(node, ()):
                parts.append(sorted(part))

    for node in graph:
        if node not in numbers:
            visit(node)
    return parts


def test_cycles_are_found():
    assert cycles({"a": "bc", "b": "d", "c": "d", "d": ""}) == []
    assert cycles({"a": "b", "b": "cd", "c": "a", "d": "e", "e": "d", "f": "f"}) == [["d", "e"], ["a", "b", "c"], ["f"]]


def test_no_modules_import_each_other():
    assert cycles(graph()) == []


def packages() -> dict[str, set[str]]:
    """As `graph`, of the packages below `hpcgan`; in `problems`, what a problem is and each family count on their own.

    `hpcgan` itself, which has the version and gets the public names from `hpcgan.api` when they are asked for, is none.
    """

    def package(module: str) -> str:
        parts = module.split(".")
        return ".".join(parts[: 3 if parts[1:2] == ["problems"] else 2])

    arrows: dict[str, set[str]] = {}
    for module, others in graph().items():
        arrows.setdefault(package(module), set()).update(package(other) for other in others)
    return {name: others - {name, "hpcgan"} for name, others in arrows.items() if name != "hpcgan"}


def test_no_packages_import_each_other():
    assert cycles(packages()) == []


def test_training_uses_evaluation_and_not_the_other_way_round():
    assert "hpcgan.evaluation" in packages()["hpcgan.training"]
    assert "hpcgan.training" not in packages()["hpcgan.evaluation"]


def test_the_top_is_imported_by_nobody_below():
    above = {"hpcgan.api": {"hpcgan.commands", "hpcgan.interactive"}, "hpcgan.commands": {"hpcgan.__main__"},
             "hpcgan.interactive": set()}  # fmt: skip
    importers = {top: {name for name, others in packages().items() if top in others} for top in above}
    assert importers == above


def test_the_table_allows_no_more_than_there_is():
    """A right that nobody uses is a rule that says nothing."""
    used: dict[str, set[str]] = {part: set() for part in MAY_IMPORT}
    for module, others in graph().items():
        part = part_of(module)
        assert part is not None
        used[part] |= {right for right in MAY_IMPORT[part] for other in others if within(other, [right])}
    idle = {part: sorted(rights - used[part]) for part, rights in MAY_IMPORT.items()}
    assert {part: rights for part, rights in idle.items() if rights} == {}


FAMILIES = {f"hpcgan.problems.{path.parent.name}" for path in (PACKAGE / "problems").glob("*/__init__.py")}
#: The kinds of data files that `hpcgan.data.layouts` has itself, beside what a layout is.
LAYOUTS = {f"hpcgan.data.layouts.{name}" for name in ("tensors", "tensor_layout", "tensor_source")}
#: What is about families or kinds of files: among them what files a problem has that says nothing of its own.
NOT_GENERIC = {"hpcgan.calochallenge", "hpcgan.overlay", "hpcgan.problems.files", "hpcgan.problems.layouts",
               *FAMILIES, *LAYOUTS}  # fmt: skip


def test_generic_packages_import_no_problem_and_no_layout():
    wrong = [
        f"{module} imports {other}"
        for module, others in graph().items()
        if not within(module, NOT_GENERIC)
        for other in others
        if within(other, [*FAMILIES, *LAYOUTS])
    ]
    assert not wrong, "\n".join(wrong)


def test_metrics_are_numbers_only():
    for path in (PACKAGE / "metrics").glob("*.py"):
        tops = {imported.split(".")[0] for imported, _ in imports(path.read_text(), module_name(path), False)}
        assert not tops & {"matplotlib", "mplhep", "hist", "jinja2"}, path


def test_the_check_finds_what_it_looks_for():
    assert forbidden("hpcgan.training.loop", "horovod.tensorflow")
    assert forbidden("hpcgan.comm.base", "mpi4py.MPI")
    assert forbidden("hpcgan.sweep.report", "jinja2")
    assert forbidden("hpcgan.problems.detector_images.rpv", "tensorflow")
    assert forbidden("hpcgan.launch.mpirun", "hpcgan.training.loop")
    assert forbidden("hpcgan.metrics.ks", "hpcgan.physics.jets")
    assert forbidden("hpcgan.novelty", "hpcgan.config")
    assert forbidden("hpcgan.scaling.measure", "hpcgan.problems.cosmo.problem")
    assert forbidden("hpcgan.training.assembly", "hpcgan.commands.cli")
    assert not forbidden("hpcgan.methods.gan", "hpcgan.networks.layers")
    assert not forbidden("hpcgan.metrics.ks", "hpcgan.errors")
    source = """
import importlib
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import tensorflow
def f():
    from . import jets
    from ..metrics import ks
    importlib.import_module("mpi4py")
class A:
    import yaml
"""
    assert imports(source, "hpcgan.physics.images", False) == [
        ("importlib", True),
        ("typing", True),
        ("hpcgan.physics.jets" if exists("hpcgan.physics.jets") else "hpcgan.physics", False),
        ("hpcgan.metrics.ks" if exists("hpcgan.metrics.ks") else "hpcgan.metrics", False),
        ("mpi4py", False),
        ("yaml", True),
    ]


def _reaches(module: str, seen: set[str]) -> None:
    """Modules of this package that are loaded with `module`."""
    if module in seen or not exists(module):
        return
    seen.add(module)
    if "." in module:
        _reaches(module.rsplit(".", 1)[0], seen)
    base = PACKAGE.parent.joinpath(*module.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    for imported, at_import in imports(path.read_text(), module, path.name == "__init__.py"):
        if at_import:
            _reaches(imported, seen)


LIGHT = [path for path in MODULES if not within(module_name(path), TENSORFLOW) or within(module_name(path), LAZY)]


@pytest.mark.parametrize("path", LIGHT, ids=module_name)
def test_modules_without_tensorflow_import_without_it(path):
    module = module_name(path)
    reached: set[str] = set()
    _reaches(module, reached)
    heavy = {"tensorflow", "keras", "horovod", "mpi4py"}
    wrong = []
    for other in sorted(reached):
        base = PACKAGE.parent.joinpath(*other.split("."))
        source = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        for imported, at_import in imports(source.read_text(), other, base.is_dir()):
            if at_import and imported.split(".")[0] in heavy:
                wrong.append(f"{module} loads {other}, which imports {imported}")
    assert not wrong, "\n".join(wrong)


LOADS = """
import contextlib, io, json, sys
from hpcgan.commands.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["data", "rpv", "--help"],
        ["overlay", "--help"],
        ["generate", "--help"],
        ["export", "--help"],
        ["train", str(PACKAGE.parent / "configs" / "rpv.yaml"), "--dry-run"],
        ["train", str(PACKAGE.parent / "configs" / "pileup.yaml"), "--dry-run"],
    ],
    ids=" ".join,
)
def test_help_and_configurations_load_nothing_heavy(command):
    done = subprocess.run([sys.executable, "-c", LOADS, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    heavy = {"tensorflow", "keras", "horovod", "mpi4py", "matplotlib", "mplhep", "hist", "pythia8mc", "pythia8"}
    assert not loaded & (heavy | {"fastjet", "awkward", "uproot", "scipy", "pandas"})


def test_it_works_where_tensorflow_horovod_and_mpi_are_not_installed():
    """As on a login node: all modules that promise it are imported with the three made unimportable."""
    light = [module_name(path) for path in LIGHT if path.name != "__main__.py"]
    code = """
import importlib, sys
for name in ("tensorflow", "keras", "horovod", "mpi4py"):
    sys.modules[name] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", code, *light], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
