"""Runs commands of hpcgan one after another in one process, which loads TensorFlow once.

A line on standard input is `[folder, kind, text]` in JSON: words of a command, or the text of Python code. The answer
is a line `[exit code, output]`. Null bands have few comparisons, figures are made but not drawn.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import sys
import tempfile
import traceback
from typing import Any

from hpcgan.comm import import_tensorflow
from hpcgan.commands import cli
from hpcgan.evaluation import compare
from hpcgan.report import plots


#: A PNG of one pixel.
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


def make_light() -> None:
    """Have reports take less."""
    vars(plots)["png"] = lambda figure, dpi=130: DOT
    vars(compare)["EvaluationOptions"] = functools.partial(compare.EvaluationOptions, repetitions=20)


def answer(folder: str, kind: str, text: Any) -> int:
    """Run one of the lines; the exit code."""
    os.chdir(folder)
    try:
        if kind == "hpcgan":
            # Graphs of images take longer to make than the few steps; those of a density sample in a loop.
            is_density = any("calo_nll" in word for word in text)
            import_tensorflow.tensorflow().config.run_functions_eagerly(not is_density)
            return cli.main(text)
        exec(compile(text, "<document>", "exec"), {"__name__": "__main__"})
        return 0
    except Exception:
        traceback.print_exc()
        return 1


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    make_light()
    for line in sys.stdin:
        with tempfile.TemporaryFile() as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            code = answer(*json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            output.seek(0)
            print(json.dumps([code, output.read().decode(errors="replace")]), file=answers, flush=True)


if __name__ == "__main__":
    main()
