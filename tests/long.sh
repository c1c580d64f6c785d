#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What `make test-long` runs: everything again as other builds, and the cases
# that take minutes.  Its last line is the sum of all parts.

cd "$(dirname "$0")/.." || exit 2
log=$(mktemp "${TMPDIR:-/tmp}/natmap-long.XXXXXX") || exit 2
trap 'rm -f "$log"' EXIT
bad=0

# part NAME [VAR=VALUE ...] FILE ...: one run of tests/run
part() {
	local name=$1 vars=()
	shift
	while [[ $1 == *=* ]]; do
		vars+=("$1")
		shift
	done
	echo "# ==== $name"
	env "${vars[@]}" bash tests/run "$@" 2>&1 |
	    sed -E 's/^([0-9]+ (passed|retried)|failed: )/# &/' | tee -a "$log"
	[ "${PIPESTATUS[0]}" = 0 ] || bad=1
}

# build NAME VAR=VALUE ...: a variant of the program and of the unit tests
build() {
	local name=$1
	shift
	make -s variant V="$name" "$@" && return
	echo "not ok build of the variant $name" | tee -a "$log"
	bad=1
}

san='-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined'
san="$san -fno-sanitize-recover=all"
build asan CC=clang CFLAGS="$san"
build debug CFLAGS='-g -O1'
build portable CFLAGS='-g -Os -Wall -Wextra -DNATMAP_PORTABLE'

e2e=(tests/e2e_*.sh)
grind='valgrind -q --leak-check=full --errors-for-leak-kinds=definite'
grind="$grind --error-exitcode=99 --child-silent-after-fork=yes"
grind="$grind --run-libc-freeres=no"

part 'sanitizers: unit and step tests' build/asan/test_*
part 'sanitizers: end to end' NATMAP="$PWD/build/asan/natmap" NATMAP_SLOW=2 \
    "${e2e[@]}"
part 'no Linux extras: unit and step tests' build/portable/test_*
part 'no Linux extras: relay' NATMAP="$PWD/build/portable/natmap" \
    NATMAP_PORTABLE=1 tests/e2e_relay*.sh
part 'valgrind: unit and step tests' -t 600 tests/tools/valgrind.sh
part 'valgrind: end to end' NATMAP="$PWD/build/debug/natmap" \
    NATMAP_WRAP="$grind" NATMAP_SLOW=4 tests/e2e_udp.sh tests/e2e_once.sh
# hooks.sh has a session idle beyond 300 s past a firewall, with either tool
part 'what takes minutes' NATMAP_LONG=only IDLE=310 -j 24 -t 900 \
    tests/hooks.sh "${e2e[@]}" tests/tools/firmware.sh
part 'fuzzing' tests/tools/fuzz.sh
part 'other processors' tests/tools/cross.sh
part 'builds' tests/tools/build.sh tests/tools/firmware.sh

count() {
	grep -c "^$1 " "$log"
}
failed=$(count 'not ok')
sed -nE 's/^# ([0-9]+ retried: )/\1/p; s/^not ok /failed: /p' "$log"
echo "$(count ok) passed, $failed failed, $(count skip) skipped"
[ "$failed" = 0 ] && [ $bad = 0 ]
