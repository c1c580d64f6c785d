#!/bin/bash
# SPDX-License-Identifier: MIT
# What natmap costs while nothing happens.
. "$(dirname "$0")/lab.sh"

lab() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
	www www
}

# polls NAME SECONDS: how often it waits in that time
polls() {
	need strace
	[ -z "$NATMAP_WRAP" ] || skip "no strace under $NATMAP_WRAP"
	timeout -s INT "$2" strace -f -c -p "${PID[$1]}" -o "$D/strace" ||
	    true
	awk '$NF ~ /^p?poll/ { n = $4 } END { print n + 0 }' "$D/strace"
}

t_udp_wakes_only_for_keepalives() {
	lab
	nm n -u -s $S1 -b 5000 -k 2
	mapped n 1
	sleep 4
	between 2 "$(polls n 11)" 26 "polls in 11 s with -k 2"
}

t_tcp_wakes_only_for_keepalives() {
	lab
	nm n -s $S1 -h $WWW -b 5000 -k 2
	mapped n 1
	sleep 4
	between 2 "$(polls n 11)" 60 "polls in 11 s with -k 2"
}

t_long_interval_sleeps() {
	lab
	nm n -s $S1 -h $WWW -b 5000 -k 3600
	nm u -u -s $S1 -b 5000 -k 3600
	mapped n 1
	mapped u 1
	sleep 5
	between 0 "$(polls n 6)" 3 "polls of the TCP one in 6 s"
	between 0 "$(polls u 6)" 3 "polls of the UDP one in 6 s"
}

# descriptors and memory after many exchanges, failures and HUPs
grows() {
	local fds kb
	lab
	coturn turn2 198.51.100.80
	nm n "$@" -b 5000 -k 1 -c 1
	mapped n 1
	sleep 4
	fds=$(fds n)
	kb=$(kb n VmRSS)
	for _ in 1 2 3 4 5; do
		mute $S1
		sleep 1
		mute
		kill -HUP "${PID[n]}"
		sleep 1.5
	done
	sleep 3
	between 3 "$(fds n)" $((fds + 3)) "descriptors"
	between 0 "$(kb n VmRSS)" $((kb + 64)) "kB"
	eq "$(lines "$D/n.out")" 1 lines
}

t_tcp_does_not_grow() {
	grows -s $S1,$S2 -h $WWW
}

t_udp_does_not_grow() {
	grows -u -s $S1,$S2
}

quick udp_wakes_only_for_keepalives 50
quick tcp_wakes_only_for_keepalives 50
quick long_interval_sleeps 60
quick tcp_does_not_grow 60
quick udp_does_not_grow 60
lab_main "$@"
