#!/usr/bin/env bash
# What the tests on a real Slurm need and this machine lacks: Debian's Slurm, munge and PMIx.
set -euo pipefail
# shellcheck source=tools/install.sh
. "$(dirname "${BASH_SOURCE[0]}")/install.sh"
install_missing "batch jobs" slurm-wlm munge libpmix2 libpmix-dev # Slurm opens libpmix.so, which is in the -dev package
