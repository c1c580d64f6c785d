#!/bin/bash
# SPDX-License-Identifier: MIT
# libFuzzer on what reads the network's bytes, FUZZ_SECONDS each, 60 when it is
# not set.  FUZZ_CORPUS is a folder to keep what was found in, NAME below it.
. "$(dirname "$0")/../lab.sh"

SECS=${FUZZ_SECONDS:-60}
SANITIZERS=fuzzer,address,undefined

# be16 N, be32 N: as printf wants them
be16() {
	printf '\\x%02x\\x%02x' $(($1 >> 8 & 255)) $(($1 & 255))
}

be32() {
	be16 $(($1 >> 16 & 65535))
	be16 $(($1 & 65535))
}

# message TYPE ATTRIBUTE ...: a STUN message; an attribute is "TYPE:HEX"
message() {
	local type=$1 a value n len=0 body=''
	shift
	for a; do
		value=${a#*:}
		n=$((${#value} / 2))
		body="$body$(be16 "${a%%:*}")$(be16 $n)"
		while [ $((n % 4)) != 0 ]; do
			value=${value}00
			n=$((n + 1))
		done
		while [ -n "$value" ]; do
			body="$body\\x${value:0:2}"
			value=${value:2}
		done
		len=$((len + 4 + n))
	done
	# shellcheck disable=SC2059
	printf "$(be16 "$type")$(be16 $len)$(be32 0x2112a442)0123456789ab$body"
}

# RFC 8489: addresses of both kinds and families, an error, other attributes
seeds_stun() {
	local v4=0001a147e112a643 port0=00012112e112a643
	local v6=0002a14701131409d1e0ee8ed6e7cc1b8f9ab9a1
	message 0x0101 0x0020:$v4 > s1
	message 0x0101 0x0020:$v6 > s2
	message 0x0101 0x0001:00018055c0000201 > s3
	message 0x0101 0x8022:7465 0x0001:00018055c0000201 0x0020:$v4 > s4
	message 0x0101 0x0020:$port0 > s5
	message 0x0111 0x0009:00000414556e617574686f72697a6564 > s6
	message 0x0111 0x0009:0000030054 0x8023:00010d96c0000202 > s7
	message 0x0101 0x8022: 0xc001:6162636465 0x0020:$v4 > s8
	message 0x0001 > s9
}

# the first byte is the size of the pieces
seeds_http() {
	local ok='HTTP/1.1 200 OK\r\n'
	printf '\001HTTP/1.1 100 Continue\r\n\r\n%b\r\nx' "$ok" > s1
	printf '\007%bConnection: close\r\n\r\n' "$ok" > s2
	printf '\003%bKeep-Alive: timeout=5, max=99\r\n\r\n' "$ok" > s3
	printf '\037HTTP/1.0 302 Found\nConnection: keep-alive\n\n' > s4
	printf '\002%bKeep-Alive: max=1,timeout=999999999\r\n\r\n' "$ok" > s5
	printf '\005%bconnection : Up,Close\r\n folded\r\n\r\n' "$ok" > s6
	printf '\020%b%b\r\n\r\n' "$ok" "$(printf 'X%.0s' {1..300})" > s7
	printf '\020HTTP/2 99 \r\n\r\nHTTP/1.1 20x\r\n' > s8
}

# fuzz NAME LONGEST
fuzz() {
	local name=$1
	need clang
	printf 'int LLVMFuzzerTestOneInput(const char *, unsigned long);
	int LLVMFuzzerTestOneInput(const char *p, unsigned long n)
	{ return p == 0 && n == 1; }\n' > "$D/empty.c"
	clang -fsanitize=$SANITIZERS -o "$D/empty" "$D/empty.c" \
	    2> "$D/clang.err" ||
	    skip "this clang has no libFuzzer or no sanitizers (on Debian:" \
	    "apt-get install clang libclang-rt-14-dev)"
	clang -std=c99 -g -O1 -fsanitize=$SANITIZERS \
	    -fno-sanitize-recover=undefined -I "$TESTS/.." -o "$D/fuzz" \
	    "$TESTS/tools/fuzz_$name.c" "$TESTS/../timer.c" || fail "compiling"
	mkdir "$D/seeds"
	(cd "$D/seeds" && "seeds_$name")
	mkdir -p "${FUZZ_CORPUS:-$D/corpus}/$name"
	(cd "$D" && ./fuzz -max_total_time="$SECS" -max_len="$2" -timeout=10 \
	    -print_final_stats=1 "${FUZZ_CORPUS:-$D/corpus}/$name" seeds) \
	    > "$D/$name.said" 2>&1 || fail "$(tail -n 40 "$D/$name.said")"
	# nothing was tried where it ended at once
	has "$D/$name.said" '^stat::number_of_executed_units: *[0-9]{5,}' runs
	grep '^stat::number' "$D/$name.said"
}

t_stun() {
	fuzz stun 600
}

t_http() {
	fuzz http 20000
}

quick stun $((SECS + 120))
quick http $((SECS + 120))
[ $# -gt 0 ] || exec bash "$TESTS/run" -j 2 "$0"
lab_main "$@"
