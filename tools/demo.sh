#!/usr/bin/env bash
# The whole way once: events, a training on two ranks, samples, score and report. Eight to twelve minutes on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BIN=${HPCGAN_VENV:-$PWD/.venv}/bin
RUN=${HPCGAN_DEMO_RUN:-runs/demo}
DATA=data/rpv

say() { printf '\n== [%4d s] %s\n' "$SECONDS" "$*"; }

say "24,000 RPV events with PYTHIA into $DATA"
"$BIN/hpcgan" data rpv --out "$DATA" --events 24000 --mass 1400,850 --seed 1 --jobs "$(nproc)"
say "training on two ranks into $RUN"
"$BIN/hpcgan" train configs/rpv_quick.yaml --ranks 2 --run "$RUN"
say "1000 samples of the best epoch into $RUN/samples/demo.h5"
mkdir -p "$RUN/samples"
"$BIN/hpcgan" generate "$RUN" -n 1000 --out "$RUN/samples/demo.h5" --force
say "score and report"
"$BIN/hpcgan" evaluate "$RUN"
