# SPDX-License-Identifier: MIT
# shellcheck shell=sh
# shellcheck disable=SC2034	# failed is for those who source this
# Sourced by tests that are plain shell scripts; they end with `exit $failed`.

failed=0

# NAME COMMAND...: the command tells whether the test passed
check() {
	name=$1
	shift
	if "$@"; then
		echo "ok $name"
	else
		echo "not ok $name"
		failed=1
	fi
}
