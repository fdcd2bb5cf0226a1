#!/usr/bin/env bash
# What the tests on a real Slurm need and this machine lacks: Debian's Slurm, munge and PMIx, by apt. As root.
# Elsewhere it says what is missing, and the tests are skipped with the reason.
set -euo pipefail
PACKAGES=(slurm-wlm munge libpmix2 libpmix-dev) # Slurm opens libpmix.so, which is in the -dev package

missing=()
for package in "${PACKAGES[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} = 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "tools/slurm.sh: no Slurm tests here: install ${missing[*]} (as root, on Debian or Ubuntu)" >&2
    exit 0
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
