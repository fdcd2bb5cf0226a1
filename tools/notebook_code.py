"""What mypy says of the code in notebooks: `python tools/notebook_code.py`.

Each notebook becomes a module in a temporary folder, its cells in their order, without the lines that are IPython's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def module(notebook: Path) -> str:
    """The code of a notebook as Python, each cell after a comment with its id."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [(cell["id"], "".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]
    return "\n".join(f"# {name}\n{_python(source)}" for name, source in code) + "\n"


def _python(source: str) -> str:
    return "\n".join("" if line.startswith(("%", "!")) else line for line in source.splitlines())


def check(notebooks: list[Path]) -> tuple[int, str]:
    """Exit code and output of mypy."""
    with tempfile.TemporaryDirectory() as folder:
        for notebook in notebooks:
            # A name may not begin with a digit, and each module stands alone.
            (Path(folder) / f"notebook_{notebook.stem}.py").write_text(module(notebook), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            str(ROOT / "pyproject.toml"),
            "--no-error-summary",
            "--disable-error-code",
            "var-annotated",
        ]
        done = subprocess.run(
            [*command, *sorted(map(str, Path(folder).glob("*.py")))],
            cwd=ROOT,
            env={**os.environ, "MYPYPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    return done.returncode, (done.stdout + done.stderr).replace(f"{folder}/", "")


if __name__ == "__main__":
    code, output = check(sorted((ROOT / "notebooks").glob("*.ipynb")))
    print(output, end="")
    sys.exit(code)
