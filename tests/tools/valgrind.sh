#!/bin/sh
# SPDX-License-Identifier: MIT
# The unit and step tests of build/debug under valgrind: no error, no leak.

cd "$(dirname "$0")/../.." || exit
. tests/check.sh
export NATMAP_VALGRIND=1
log=$(mktemp) || exit
trap 'rm -f "$log"' EXIT

# FILE: what it prints is shown when it fails.  libc, when it frees all that it
# has, forgets the environment of a child.
# shellcheck disable=SC2317	# check calls it
grind() {
	valgrind -q --leak-check=full --errors-for-leak-kinds=definite \
	    --error-exitcode=99 --child-silent-after-fork=yes \
	    --run-libc-freeres=no \
	    "$1" > "$log" 2>&1 && return
	grep -v '^ok ' "$log" | sed 's/^/# /'
	return 1
}

for unit in build/debug/test_*; do
	check "valgrind-${unit##*/test_}" grind "$unit"
done
exit "$failed"
