#!/bin/sh
# Writes docs/redistribution_table.md anew from the planner, in a moment: builds the one test that keeps it true, and runs it.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${CXX:-g++}" -std=c++20 -O1 -Iinclude -Itests -DSHARDWISE_TEST_DATA="\"$PWD/tests/data\"" \
  tests/redistribute/table_test.cpp src/doctest_main.cpp -o "$folder/table" -pthread
SHARDWISE_WRITE_TABLE=1 "$folder/table"
