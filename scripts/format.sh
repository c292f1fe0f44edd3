#!/usr/bin/env bash
# Formats every C++ file that git knows with clang-format 19; `format.sh --check` only names those that would change.
# tests/acceptance is kept as it came.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
files=()
while IFS= read -r -d '' file; do
  if [ -f "$file" ]; then files+=("$file"); fi
done < <(git ls-files -z '*.hpp' '*.cpp' '*.cuh' '*.cu' ':!tests/acceptance')
[ "${#files[@]}" -gt 0 ]

if [ "${1:-}" != --check ]; then
  clang-format-19 -i "${files[@]}"
  printf '%d files\n' "${#files[@]}"
  exit
fi
status=0
found=$(printf '%s\0' "${files[@]}" | xargs -0 -P "$(nproc)" -n 50 clang-format-19 --dry-run 2>&1) || status=1
if [ -n "$found" ]; then
  printf '%s\n' "$found" | sed -nE 's/^(.*):[0-9]+:[0-9]+: warning: code should be clang-formatted.*/not formatted: \1 (scripts\/format.sh does it)/p' | sort -u
  status=1
fi
printf '%d files\n' "${#files[@]}"
exit "$status"
