#!/bin/bash
# SPDX-License-Identifier: MIT
# --once: map, print or run the script, exit.
. "$(dirname "$0")/lab.sh"

lab() {
	lab_up
	nat r2 cone 5000:40000
}

# once LIMIT ARGS ...: o.out, o.err, STATUS, TOOK
once() {
	local limit=$1 t
	shift
	t=$(now)
	STATUS=0
	# shellcheck disable=SC2086
	at h1 timeout -s KILL $((limit * SLOW)) $NATMAP_WRAP "$NATMAP" --once \
	    "$@" > "$D/o.out" 2> "$D/o.err" < /dev/null || STATUS=$?
	TOOK=$(($(now) - t))
}

t_udp_prints_and_exits() {
	lab
	coturn turn $S1
	once 10 -u -s $S1 -b 5000
	eq $STATUS 0 status
	eq "$(cat "$D/o.out")" \
	    "$PUBLIC 40000 2001::9c40:c633:640a 5000 udp $HOST" line
}

t_tcp_prints_and_exits() {
	lab
	coturn turn $S1
	www www
	once 10 -s $S1 -h $WWW -b 5000
	eq $STATUS 0 status
	eq "$(cat "$D/o.out")" \
	    "$PUBLIC 40000 2001::9c40:c633:640a 5000 tcp $HOST" line
	once 10 -s $S1 -b 5000
	eq $STATUS 0 "status of the second"
}

t_busybox_shell_splits_it() {
	lab
	need busybox
	coturn turn $S1
	# shellcheck disable=SC2016
	eq "$(at h1 busybox sh -c 'set -- $("$0" --once -u -s "$1" -b 5000)
	    echo "$2:$6"' "$NATMAP" $S1)" "40000:$HOST" fields
}

t_ipv6_has_an_empty_field() {
	lab
	coturn turn $S1V6
	once 10 -6 -u -s $S1V6 -b 5000
	eq $STATUS 0 status
	eq "$(cat "$D/o.out")" "$PUBLICV6 40000  5000 udp $HOSTV6" line
}

t_all_servers_are_tried() {
	lab
	coturn turn $S1
	# six that answer nothing before the one that does
	for i in 21 22 23 24 25 26; do
		addr inet br0 198.51.100.$i/24
	done
	mute 198.51.100.2{1,2,3,4,5,6}
	once 31 -u -s 198.51.100.21,198.51.100.22,198.51.100.23 \
	    -s 198.51.100.24,198.51.100.25,198.51.100.26,$S1 -b 5000
	eq $STATUS 0 "udp status ($(cat "$D/o.err"))"
	once 31 -s 198.51.100.21,198.51.100.22,198.51.100.23 \
	    -s 198.51.100.24,198.51.100.25,198.51.100.26,$S1 -b 5000
	eq $STATUS 0 "tcp status ($(cat "$D/o.err"))"
}

t_nobody_answers() {
	lab
	mute $S1
	py inet dns dns $DNS stun.test=$S1
	once 40 -u -s $S1,nowhere.test -b 5000
	eq $STATUS 1 status
	has "$D/o.err" 'nowhere\.test.*(not found|not known|no such)' log
	between 29000 $TOOK $((34000 * SLOW)) "ms until it gave up"
	eq "$(wc -c < "$D/o.out")" 0 stdout
	has "$D/o.err" '30 s' reason
}

t_usage_is_2() {
	lab
	once 5 -b x
	eq $STATUS 2 status
}

t_with_a_script() {
	lab
	coturn turn $S1
	hook hook
	once 10 -u -s $S1 -b 5000 -e "$D/hook"
	eq $STATUS 0 status
	eq "$(wc -c < "$D/o.out")" 0 stdout
	eq "$(cat "$D/hook.log")" \
	    "$PUBLIC 40000 2001::9c40:c633:640a 5000 udp $HOST" arguments
	printf '#!/bin/sh\nsleep 1\nexit 9\n' > "$D/hook"
	once 10 -u -s $S1 -b 5000 -e "$D/hook"
	eq $STATUS 1 "status when the script fails"
	between 1000 $TOOK 9000 "ms: it waits for the script"
	# shellcheck disable=SC2016
	printf '#!/bin/sh\nkill -9 $$\n' > "$D/hook"
	once 10 -u -s $S1 -b 5000 -e "$D/hook"
	eq $STATUS 1 "status when the script is killed"
	once 10 -u -s $S1 -b 5000 -e "$D/missing"
	eq $STATUS 1 "status when the script is missing"
	has "$D/o.err" 'missing' reason
}

# it was there at the start
t_script_that_vanishes() {
	lab
	hook hook
	nm n -1 -u -s $S1 -b 5000 -e "$D/hook"
	sleep 1
	rm "$D/hook"
	coturn turn $S1
	nm_wait n
	eq $STATUS 1 status
	has "$D/n.err" 'hook: cannot be run' reason
}

# not root: the port of another user's service cannot be shared
t_busy_port_is_1() {
	local kind opt=
	unset LAB_SHARE
	lab
	coturn turn $S1
	for kind in tcp udp; do
		py h1 $kind echo $kind 0.0.0.0 5000
		# shellcheck disable=SC2086
		NATMAP_WRAP="setpriv --reuid 65534 --clear-groups $NATMAP_WRAP" \
		    once 10 -s $S1 -b 5000 $opt
		eq $STATUS 1 "$kind status"
		has "$D/o.err" '5000.*in use.*uid 0' "$kind reason"
		opt=-u
	done
}

t_missing_interface_is_1() {
	lab
	once 40 -u -i nosuch0 -s $S1 -b 5000
	eq $STATUS 1 status
	has "$D/o.err" nosuch0 reason
}

t_name_is_not_found() {
	lab
	py inet dns dns $DNS stun.test=$S1
	coturn turn $S1
	once 20 -u -s nowhere.test,stun.test:3478 -b 5000
	eq $STATUS 0 status
	eq "$(wc -l < "$D/o.out")" 1 lines
}

quick udp_prints_and_exits 30
quick tcp_prints_and_exits 40
quick busybox_shell_splits_it 30
quick ipv6_has_an_empty_field 30
quick all_servers_are_tried 90
quick nobody_answers 70
quick usage_is_2 20
quick script_that_vanishes 40
quick with_a_script 60
quick busy_port_is_1 40
quick missing_interface_is_1 70
quick name_is_not_found 40
lab_main "$@"
