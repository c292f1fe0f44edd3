#!/bin/sh
# Writes the tables of docs/growth.md anew, and the picture beside them from the tables: builds the one test that keeps them true,
# and runs it. Needs Eigen and doctest; the picture needs matplotlib (Debian: python3-matplotlib) and is left out without it.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
eigen=$(pkg-config --cflags-only-I eigen3 2>/dev/null || echo -I/usr/include/eigen3)
# shellcheck disable=SC2086
"${CXX:-g++}" -std=c++20 -O1 -Iinclude -Itests $eigen -DSHARDWISE_TEST_DATA="\"$PWD/tests/data\"" \
  tests/comm/growth_test.cpp src/doctest_main.cpp -o "$folder/growth" -pthread
SHARDWISE_WRITE_TABLE=1 "$folder/growth" >/dev/null || true  # it says that the tables were others
"$folder/growth" --minimal
python=${PYTHON:-python3}
if "$python" -c 'import matplotlib' 2>/dev/null; then
  "$python" scripts/growth_picture.py
else
  echo 'growth: docs/growth.svg is left as it is: it needs matplotlib (Debian: python3-matplotlib)'
fi
