"""Start or stop a cluster by hand: see the package."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from slurm_cluster import SlurmCluster

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("start", "stop"):
        sys.exit("usage: python tests/integration/slurm_cluster start|stop FOLDER")
    cluster = SlurmCluster(Path(sys.argv[2]))
    if sys.argv[1] == "start":
        cluster.start()
        print(f"export SLURM_CONF={cluster.env['SLURM_CONF']!r}")
    else:
        cluster.stop()
