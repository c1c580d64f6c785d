#!/bin/bash
# SPDX-License-Identifier: MIT
# Options: what is accepted, what is refused and how.
. "$(dirname "$0")/lab.sh"

# cli ARGS ...: in an empty namespace; c.out, c.err and STATUS
cli() {
	STATUS=0
	# shellcheck disable=SC2086
	timeout -s KILL $((3 * SLOW)) ip netns exec "$L-void" $NATMAP_WRAP \
	    "$NATMAP" "$@" > "$D/c.out" 2> "$D/c.err" < /dev/null || STATUS=$?
}

# bad OPTION VALUE ARGS ...: refused; the message names option and value
bad() {
	local option=$1 value=$2
	shift 2
	cli "$@"
	eq $STATUS 2 "status of: $*"
	eq "$(wc -c < "$D/c.out")" 0 "stdout of: $*"
	[ -z "$option" ] || grep -qe "$option" "$D/c.err" ||
	    fail "$*: no $option in '$(cat "$D/c.err")'"
	[ -z "$value" ] || grep -qFe "$value" "$D/c.err" ||
	    fail "$*: no $value in '$(cat "$D/c.err")'"
}

# good ARGS ...: still running after a moment
good() {
	cli -q "$@"
	eq $STATUS 137 "status of: $* ($(cat "$D/c.err"))"
}

# warns TEXT ARGS ...: runs all the same, with one line that says TEXT
warns() {
	local text=$1
	shift
	cli "$@"
	eq $STATUS 137 "status of: $* ($(cat "$D/c.err"))"
	eq "$(grep -cFe "$text" "$D/c.err")" 1 \
	    "lines with '$text' of: $* ($(cat "$D/c.err"))"
}

void() {
	[ "$(id -u)" = 0 ] || skip "needs root"
	need ip
	lab_netns void
}

t_no_arguments() {
	void
	cli
	[ $STATUS != 0 ] || fail "status 0"
	eq "$(wc -c < "$D/c.out")" 0 stdout
	eq "$(tail -n 1 "$D/c.err" | grep -Ec '^Version: [0-9]+\.[0-9.]+$')" 1 \
	    "last line"
}

t_help_and_version() {
	local o
	void
	cli --help
	eq $STATUS 0 "status of --help"
	for o in -4 -6 -u -d -k -c -s -h -e -f -b -C -T -t -p -i -1 -v -q -V -n
	do
		has "$D/c.out" "^ *${o}[, ]" "usage of $o"
	done
	cli --version
	eq $STATUS 0 "status of --version"
	has "$D/c.out" '[0-9]+\.[0-9]+' version
	cp "$D/c.out" "$D/long.out"
	cli -V
	cmp "$D/c.out" "$D/long.out"
}

t_unknown_or_incomplete() {
	void
	bad '-Z' '' -Z
	bad '' '--nonsense' --nonsense
	bad '-k' '' -k
	bad '--script' '' -u --script
	bad -t 'found -b' -u -t -b 22
	bad '--help lists them' '"-Z"' -u -Z
	bad -b '"8080"' 8080
}

t_numbers() {
	local v
	void
	for v in x 1x 0x10 -1 1.5; do
		bad -k "$v" -k "$v" -s 192.0.2.1
	done
	bad -c 1e3 --stun-cycle=1e3
	bad -T -5 -T -5
	bad -f 0xzz -f 0xzz
	bad -f 4294967296 -f 4294967296
	bad -n 0 -n 0 -t 192.0.2.1 -p 1
	bad max-sessions many --max-sessions=many
}

t_ports() {
	local v
	void
	for v in x 65536 -1 5-4 5~4 1-65536 0-5 5- -5 5~ 1-2-3 '5 6' 70000-1
	do
		bad -b "$v" -b "$v"
	done
	bad -p 1 -p 1
	bad -p missing -t 192.0.2.1
	bad -p 65536 -t 192.0.2.1 -p 65536
	bad -p -1 -t 192.0.2.1 -p -1
	bad -p no-such-service -t 192.0.2.1 -p no-such-service
}

t_hosts() {
	local v long
	void
	long=$(printf '%0254d' 0)
	for v in ':3478' '[' '[::1' '[]:1' 'a:0' 'a:65536' 'a:x' \
	    'a:' '[::1]x'; do
		bad -s "$v" -s "$v"
	done
	bad -s "${long:0:40}" -s "$long"
	bad -h ':80' -h ':80'
	bad -s 2001:db8::1 -4 -s 2001:db8::1
	bad -h 2001:db8::1 -4 -h '[2001:db8::1]:80'
	bad -s 192.0.2.1 -6 -s 192.0.2.1
	bad -i 192.0.2.1 -6 -i 192.0.2.1
	bad -s s16 -s s0,s1,s2,s3,s4,s5,s6,s7 -s s8,s9,s10,s11,s12,s13,s14,s15 \
	    -s s16
}

# What heiher/natmap runs with.
t_forgiven() {
	local o
	void
	for o in i k c b f T C t h s e; do
		warns "-$o/--" "-$o" '' -s 192.0.2.1 -u
	done
	warns '"": used as "0"' -t 192.0.2.9 -p '' -s 192.0.2.1
	warns '"4294967": used as "2678400"' -T 4294967 -s 192.0.2.1
	warns '"0x10/0xff": used as "0x10"' -f 0x10/0xff -s 192.0.2.1
	warns '"192.0.2.1, 192.0.2.2": used as "192.0.2.1,192.0.2.2"' \
	    -s '192.0.2.1, 192.0.2.2'
	warns 'used as "www.example.com"' -u -s 192.0.2.1 \
	    -h https://www.example.com/
	warns '"stray" is not an option, ignored' -u -s 192.0.2.1 stray
	# The kernel would cut the name and take this interface.
	ip -n "$L-void" link add a-name-longer-t type veth peer name other
	warns 'a-name-longer-than-15-bytes": does not exist' \
	    -i a-name-longer-than-15-bytes -s 192.0.2.1
	warns nosuch -6 -i fe80::1%nosuch -s 2001:db8::1
	warns '%nosuch": there is no such' -6 -s '[fe80::1%nosuch]'
}

t_accepted() {
	void
	good -k 30 -c 2 -s stun.test -h www.test -f 0x10 -b 5000-6000 -4 -u \
	    -i lo -t 192.0.2.9 -p 0 -T 2678400 -C cubic -e /bin/true
	good -4uk86400 -c 10000 -s192.0.2.1:1,stun.test:2 -6 -b 5~6 -4 -f 010 \
	    -T 0 -h x -h y:81
	good --ipv6 --stun=2001:db8::1 --stun='[2001:db8::1]:53' --keepalive=0 \
	    --bind 0 --udp --interface=lo --fwmark=1 --congestion=reno -k 0 \
	    --stun-cycle 0 --http=x --forward-idle-timeout=0
	good --target localhost --target-port http --max-sessions 5 -s 192.0.2.1
	good -b 65535 -s 192.0.2.1
}

quick no_arguments 20
quick help_and_version 20
quick unknown_or_incomplete 30
quick numbers 40
quick ports 40
quick hosts 40
quick forgiven 120
quick accepted 60
lab_main "$@"
