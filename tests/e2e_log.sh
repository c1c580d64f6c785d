#!/bin/bash
# SPDX-License-Identifier: MIT
# The log: each failure of a server has a line of its own that names it.
. "$(dirname "$0")/lab.sh"

lab() {
	lab_up
	nat r2 cone 5000:40000
	py inet dns dns $DNS good.test=$S2 only6.test=2001:db8:f::2 \
	    bad.test=$S1 two.test=$S1,$S2
	coturn good $S2
}

# tells PATTERN KIND [ARGS ...]: natmap maps by the good server, and one line
# says what the other has; nothing of it is repeated
tells() {
	local want=$1 opt=
	shift
	[ "$1" = tcp ] || opt=-u
	shift
	# shellcheck disable=SC2086
	nm n $opt -b 5000 -k 1 "$@" -s good.test
	mapped n 1 15
	said n "$want" 15
	sleep 3.5
	between 1 "$(count "$D/n.err" "$want")" 2 "lines like '$want'"
	eq "$(lines "$D/n.out")" 1 lines
	nm_stop n
}

t_name_not_found() {
	lab
	tells 'nowhere\.test.*(not found|not known|no such)' udp \
	    -s nowhere.test:3478
	tells 'nowhere\.test.*(not found|not known|no such)' tcp -s nowhere.test
}

t_no_address_of_the_family() {
	lab
	tells 'only6\.test.*no (IPv4 )?address' udp -s only6.test
}

t_refused() {
	lab
	tells "bad\\.test.*$S1.*refused" tcp -s bad.test
	# in UDP anybody can forge a refusal: it is silence
	tells "bad\\.test.*$S1.*(timed out|no answer)" udp -s bad.test
}

t_timed_out() {
	lab
	mute $S1
	tells "bad\\.test.*$S1.*(timed out|no answer)" udp -s bad.test
	tells "bad\\.test.*$S1.*(timed out|no answer)" tcp -s bad.test
}

t_unreachable() {
	lab
	at r2 ip route add unreachable $S1
	tells "bad\\.test.*$S1.*(unreachable|no route)" tcp -s bad.test
	at h1 ip route add unreachable $S1
	tells "bad\\.test.*$S1.*(unreachable|no route)" udp -s bad.test
}

t_closed() {
	lab
	py inet bad stun close $S1 3478 tcp
	tells "bad\\.test.*$S1.*closed" tcp -s bad.test
}

t_not_stun() {
	lab
	py inet bad stun html $S1 3478
	tells "bad\\.test.*$S1.*not a STUN answer" tcp -s bad.test
}

t_error_code() {
	lab
	py inet bad stun error $S1 3478
	tells "bad\\.test.*$S1.*420" tcp -s bad.test
	tells "bad\\.test.*$S1.*420" udp -s bad.test
}

t_http_failures() {
	lab
	tells "$WWW.*refused" tcp -h $WWW -s good.test
	py inet web http garbage $WWW 80
	tells "$WWW.*(not an HTTP|not an answer|no HTTP)" tcp -h $WWW
	stop web
	tells "nowww\\.test.*(not found|not known|no such)" tcp -h nowww.test
}

t_repeats_are_counted() {
	lab
	nm n -u -s $S1,$S2 -b 5000 -k 1
	said n "$S1.*no answer" 15
	sleep 6
	coturn late $S1
	said n "$S1.*again.* [2-9]|$S1.* [2-9].*again" 20
	eq "$(count "$D/n.err" "$S1.*no answer")" 1 "lines of no answer"
}

t_quiet_and_verbose() {
	lab
	nm q -q -u -s $S1,$S2 -b 5000 -k 1
	nm v -v -u -s $S1,$S2 -b 5001 -k 1
	mapped q 1
	mapped v 1
	sleep 3
	eq "$(wc -c < "$D/q.err")" 0 "bytes of the quiet one"
	has "$D/v.err" "$PUBLIC:?" "verbose tells answers"
}

t_stderr_that_blocks() {
	lab
	coturn first $S1
	mkfifo "$D/pipe"
	exec 8<> "$D/pipe"
	"$PY" -c "
import os
os.set_blocking(8, False)
try:
    while os.write(8, b'x' * 4096): pass
except BlockingIOError: pass
os.set_blocking(8, True)"
	# shellcheck disable=SC2086
	ip netns exec "$L-h1" $NATMAP_WRAP "$NATMAP" -v -u -s $S1,$S2 \
	    -b 5000 -k 1 2> "$D/pipe" > "$D/n.out" &
	PID[n]=$!
	mapped n 1
	nat r2 cone 5000:40001
	forget r2
	mapped n 2 8
	nm_stop n
	eq $STATUS 143 status
	between 0 $TOOK $((1500 * SLOW)) "ms to end"
}

quick name_not_found 70
quick no_address_of_the_family 40
quick refused 60
quick timed_out 70
quick unreachable 60
quick closed 40
quick not_stun 40
quick error_code 60
quick http_failures 70
quick repeats_are_counted 60
quick quiet_and_verbose 40
quick stderr_that_blocks 40
lab_main "$@"
