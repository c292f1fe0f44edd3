#!/usr/bin/env bash
# Formats every C++ file that git knows with clang-format 19; `format.sh --check` only names those that would change.
# tests/acceptance is kept as it came.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
status=0 checked=0
while IFS= read -r -d '' file; do
  [ -f "$file" ] || continue
  checked=$((checked + 1))
  if [ "${1:-}" != --check ]; then
    clang-format-19 -i "$file"
  elif ! clang-format-19 "$file" | cmp -s "$file" -; then
    printf 'not formatted: %s (scripts/format.sh does it)\n' "$file"
    status=1
  fi
done < <(git ls-files -z '*.hpp' '*.cpp' '*.cuh' '*.cu' ':!tests/acceptance')
printf '%d files\n' "$checked"
[ "$checked" -gt 0 ] && exit "$status"
