"""How the launcher starts a rank: `python -m hpcgan.launch.rank_shim MODULE ARGS...` runs `python -m MODULE ARGS...`.

The rank is tied to the life of mpirun before anything else happens. mpirun cannot be relied upon to end its
ranks when it ends: not when it is killed, and not when it gets two SIGTERM in a row, which is what a launcher
with several threads sends when the kernel tears it down thread by thread.
"""

from __future__ import annotations

import runpy
import sys

from hpcgan.launch.world import die_with_parent


def main() -> None:
    """Run the module that the command line names in place of this one."""
    die_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
