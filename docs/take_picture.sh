#!/usr/bin/env bash
# Draws docs/report.png, the README's picture: the top of the demo's report, after `make demo`. Needs Chromium.
set -euo pipefail
cd "$(dirname "$0")/.."
page=results/demo/report/index.html
[ -f "$page" ] || { echo "error: $page does not exist. Run make demo first." >&2; exit 1; }
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
"${CHROMIUM:-chromium}" --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
  --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$profile" \
  --screenshot="$PWD/docs/report.png" --window-size=1280,2350 "file://$PWD/$page"
