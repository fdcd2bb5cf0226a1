"""No function and no constructor takes more than seven parameters, those of Python's public interface excepted."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "hpcgan"
MOST = 7
#: Layers, of which packages of other people build networks, too: what comes after the sizes is given by keyword.
PUBLIC = {f"hpcgan.networks.layers.{layer}.__init__" for layer in ("Conv2D", "ConvTranspose2D", "Dense")}
PUBLIC |= {"hpcgan.problems.calorimeter.local.LocallyConnected2D.__init__"}


def signatures(source: str, module: str) -> dict[str, int]:
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

    visit(ast.parse(source), module, False)
    return counts


def long_signatures() -> dict[str, int]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        found.update({k: n for k, n in signatures(path.read_text(), module).items() if n > MOST})
    return found


def test_no_function_takes_more_than_seven_parameters():
    signatures_to_cut = {name: count for name, count in long_signatures().items() if name not in PUBLIC}
    assert not signatures_to_cut, "\n".join(f"{name} takes {n} parameters" for name, n in signatures_to_cut.items())


def test_only_what_is_there_is_public():
    assert long_signatures().keys() >= PUBLIC


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("def f(a, b, /, c, *, d): ...", {"m.f": 4}),
        ("class A:\n    def __init__(self, a, *rest, b=1, **more): ...", {"m.A.__init__": 2}),
        ("class A:\n    @staticmethod\n    def f(a): ...", {"m.A.f": 1}),
    ],
)
def test_the_count(source, count):
    assert signatures(source, "m") == count


#: Participles and pointers, which say nothing of a value: what it is called in the field says more.
NAMELESS = {"found", "made", "given", "said", "there", "shown", "wanted", "mine", "drawn"}


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
        or (isinstance(node, ast.FunctionDef) and node.name in NAMELESS)
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
