#!/usr/bin/env bash
# What the test of the container's image needs and this machine lacks: debootstrap.
set -euo pipefail
# shellcheck source=tools/install.sh
. "$(dirname "${BASH_SOURCE[0]}")/install.sh"
install_missing "the container's image" debootstrap
