"""No function and no constructor takes more than seven parameters, and variables are called what they hold.

Constructors that are generated count, too: those of dataclasses and of named tuples, inherited fields included.
Sections of the configuration do not: users write them by key, and each key is documented by itself.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "hpcgan"
MOST = 7
#: Layers, of which packages of other people build networks, too: what comes after the sizes is given by keyword.
PUBLIC = {f"hpcgan.networks.layers.{layer}.__init__" for layer in ("Conv2D", "ConvTranspose2D", "Dense")}
PUBLIC |= {"hpcgan.networks.local.LocallyConnected2D.__init__"}
#: Rows of a file or a table. A field is a column there, so a row is as wide as what is recorded; parts would nest the
#: file for the sake of a constructor that nobody calls by position. A row is made by name (`kw_only`), by who records
#: it and by its reader, and never changes (`frozen`). The list may only get shorter.
ROWS = {
    "hpcgan.runs.records.Command",
    "hpcgan.runs.records.Epoch",
    "hpcgan.sweep.store.Assignment",
    "hpcgan.sweep.store.Description",
    "hpcgan.sweep.store.Outcome",
    "hpcgan.sweep.store.Result",
    "hpcgan.sweep.statistics.Standing",
    "hpcgan.sweep.table.Row",
}


def modules() -> dict[str, ast.Module]:
    names = {path: path.relative_to(PACKAGE.parent).with_suffix("") for path in sorted(PACKAGE.rglob("*.py"))}
    return {".".join(name.parts).removesuffix(".__init__"): ast.parse(path.read_text()) for path, name in names.items()}


def signatures(tree: ast.Module, module: str) -> dict[str, int]:
    """Functions and constructors by name with their numbers of parameters; `self` and `cls` do not count."""
    counts = {}

    def visit(node: ast.AST, prefix: str, is_class: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                every = child.args
                names = [a.arg for a in (*every.posonlyargs, *every.args, *every.kwonlyargs)]
                own = is_class and names[:1] in (["self"], ["cls"])
                counts[f"{prefix}.{child.name}"] = len(names) - own
                visit(child, f"{prefix}.{child.name}", False)
            elif isinstance(child, ast.ClassDef):
                visit(child, f"{prefix}.{child.name}", True)
            else:
                visit(child, prefix, is_class)

    visit(tree, module, False)
    return counts


def fields(cls: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[str]:
    """Fields of a dataclass or a named tuple that its constructor takes, with those of its bases among `classes`."""
    bases = [classes[base.id] for base in cls.bases if isinstance(base, ast.Name) and base.id in classes]
    names = [name for base in bases if is_generated(base) for name in fields(base, classes)]
    for line in cls.body:
        if not isinstance(line, ast.AnnAssign) or "ClassVar" in ast.unparse(line.annotation):
            continue
        if line.value is None or "init=False" not in ast.unparse(line.value):
            names.append(ast.unparse(line.target))
    return list(dict.fromkeys(names))


def is_generated(cls: ast.ClassDef) -> bool:
    """Whether Python writes the constructor of a class."""
    marks = [ast.unparse(mark) for mark in cls.decorator_list] + [f"base {ast.unparse(base)}" for base in cls.bases]
    return any("dataclass" in mark or mark.endswith("NamedTuple") for mark in marks)


def constructors(trees: dict[str, ast.Module]) -> dict[str, tuple[ast.ClassDef, int]]:
    """Classes whose constructors are generated, with the numbers of their parameters."""
    by_module = {
        module: {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        for module, tree in trees.items()
    }
    generated = {}
    for module, tree in trees.items():
        classes = dict(by_module[module])
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                others = by_module.get(node.module or "", {})
                classes |= {name.asname or name.name: others[name.name] for name in node.names if name.name in others}
        for name, cls in by_module[module].items():
            if is_generated(cls):
                generated[f"{module}.{name}"] = cls, len(fields(cls, classes))
    return generated


def test_no_function_takes_more_than_seven_parameters():
    counts = [signatures(tree, module) for module, tree in modules().items()]
    long = {name: n for of_module in counts for name, n in of_module.items() if n > MOST}
    assert long.keys() == PUBLIC, "\n".join(f"{name} takes {n} parameters" for name, n in long.items())


def test_no_generated_constructor_takes_more_than_seven_parameters():
    long = {name: n for name, (_, n) in constructors(modules()).items() if n > MOST}
    assert long.keys() == ROWS, (
        f"cut: {sorted(long.keys() - ROWS)}; no longer too long, so to be taken off the list: "
        f"{sorted(ROWS - long.keys())}"
    )


def test_rows_are_made_by_name_and_do_not_change():
    generated = constructors(modules())
    for name in ROWS:
        marks = " ".join(ast.unparse(mark) for mark in generated[name][0].decorator_list)
        assert "kw_only=True" in marks, name
        assert "frozen=True" in marks, name


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("def f(a, b, /, c, *, d): ...", {"m.f": 4}),
        ("class A:\n    def __init__(self, a, *rest, b=1, **more): ...", {"m.A.__init__": 2}),
        ("class A:\n    @staticmethod\n    def f(a): ...", {"m.A.f": 1}),
    ],
)
def test_the_count(source, count):
    assert signatures(ast.parse(source), "m") == count


@pytest.mark.parametrize(
    ("source", "count"),
    [
        (
            "@dataclass\nclass A:\n    a: int\n    b: ClassVar[int]\n    c: int = field(init=False)\n    d: int = 0",
            1 + 1,
        ),
        ("@dataclasses.dataclass(frozen=True)\nclass A(B):\n    b: int\n    c: int\n", 3),
        ("class A(NamedTuple):\n    a: int\n    b: int = 0", 2),
    ],
)
def test_the_count_of_fields(source, count):
    base = ast.parse("@dataclass\nclass B:\n    a: int\n    b: int\n")
    trees = {"n": base, "m": ast.parse(f"from n import B\n{source}")}
    assert {name: n for name, (_, n) in constructors(trees).items() if name != "n.B"} == {"m.A": count}


#: Participles and pointers, which say nothing of a value: what it is called in the field says more.
NAMELESS = {"found", "made", "given", "said", "there", "shown", "wanted", "mine", "drawn"}
NAMELESS |= {"kept", "known", "left", "written", "read"}


def nameless(tree: ast.Module) -> list[int]:
    """Lines that bind such a word to a variable, an argument or a function; fields of classes are what files say."""
    fields = {
        id(line.target)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for line in node.body
        if isinstance(line, ast.AnnAssign)
    }
    return [
        node.lineno
        for node in ast.walk(tree)
        if (
            isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Store)
            and id(node) not in fields
            and node.id in NAMELESS
        )
        or (isinstance(node, ast.arg) and node.arg in NAMELESS)
        or (isinstance(node, ast.FunctionDef) and node.name in NAMELESS - {"read"})  # which says what it does
    ]


def test_variables_say_what_they_hold():
    lines = [f"{path}:{n}" for path in sorted(PACKAGE.rglob("*.py")) for n in nameless(ast.parse(path.read_text()))]
    assert not lines, "name what the value is:\n" + "\n".join(lines)


def test_nameless_variables_are_seen():
    source = (
        "class A:\n    wanted: int\ndef f(given, n):\n    found = n\n    return [x for made in found for x in made]\n"
    )
    assert sorted(nameless(ast.parse(source))) == [3, 4, 5]
    assert nameless(ast.parse("def said():\n    for there, n in ():\n        n = lambda mine: there\n")) == [1, 2, 3]
