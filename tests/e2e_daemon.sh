#!/bin/bash
# SPDX-License-Identifier: MIT
# -d, --pid-file, the log under -d, and signals.
. "$(dirname "$0")/lab.sh"

lab() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
}

# A private /dev with a log daemon in it, a process whose mount namespace and
# root the daemon joins.  dev WHAT: syslog or deaf_syslog of net.py, or nothing
dev() {
	local f
	mkdir "$D/dev"
	bg h1 dev unshare -m sh -c "
	    mount -t tmpfs none $D/dev
	    for f in null zero random urandom; do cp -a /dev/\$f $D/dev; done
	    mount --bind $D/dev /dev
	    ${1:+$PY $NET $1 /dev/log > $D/syslog.log &}
	    echo ready
	    wait
	    sleep 3600"
	soon 5 "/dev" grep -q ready "$D/dev.log"
	[ -z "${1:-}" ] || soon 5 "log daemon" grep -q ready "$D/syslog.log"
}

# daemon ARGS ...: natmap -d there; STATUS; PID[n] is the daemon by its file
daemon() {
	STATUS=0
	# shellcheck disable=SC2016,SC2086
	timeout -s KILL $((10 * SLOW)) nsenter -t "${PID[dev]}" -m -n -r -w \
	    sh -c 'cd "$0" && exec "$@"' "$PWD" \
	    $NATMAP_WRAP "$NATMAP" -d --pid-file "$D/pid" "$@" \
	    > "$D/n.out" 2> "$D/n.err" < /dev/null || STATUS=$?
	[ ! -s "$D/pid" ] || PID[n]=$(cat "$D/pid")
}

gone() {
	! kill -0 "$1" 2> /dev/null
}

t_detaches() {
	local t
	lab
	dev syslog
	cd /usr
	t=$(now)
	daemon -u -s $S1 -b 5000 -k 2
	eq $STATUS 0 "status of the parent"
	between 0 $(($(now) - t)) $((5000 * SLOW)) "ms in the foreground"
	mapped n 1
	eq "$LINE" "$PUBLIC 40000 2001::9c40:c633:640a 5000 udp $HOST" line
	[ "/proc/${PID[n]}/cwd" -ef /usr ] || fail "cwd"
	# the whole path, where the daemon's root is not this one
	has <(readlink "/proc/${PID[n]}/fd/0") '/dev/null$' stdin
	eq "$(cut -d ' ' -f 6 "/proc/${PID[n]}/stat")" "${PID[n]}" session
	eq "$(cut -d ' ' -f 7 "/proc/${PID[n]}/stat")" 0 terminal
	eq "$(cat "$D/pid")" "${PID[n]}" "pid file"
	mute $S1
	soon 15 "nothing in the log" \
	    grep -Eiq "natmap.*$S1.*(no answer|timed out)" "$D/syslog.log"
	eq "$(wc -c < "$D/n.err")" 0 stderr
	kill -TERM "${PID[n]}"
	soon 2 "still there" gone "${PID[n]}"
	[ ! -e "$D/pid" ] || fail "the pid file is left"
}

t_ppid_of_script_is_the_daemon() {
	lab
	dev
	cat > "$D/hook" <<-EOF
	#!/bin/sh
	echo "ppid \$PPID" > $D/facts
	EOF
	chmod +x "$D/hook"
	daemon -u -s $S1 -b 5000 -e "$D/hook"
	eq $STATUS 0 status
	soon 8 "script" test -s "$D/facts"
	eq "$(cat "$D/facts")" "ppid ${PID[n]}" ppid
}

t_refuses_before_it_detaches() {
	lab
	dev
	daemon -u -s $S1 -b 5000 -e "$D/missing"
	eq $STATUS 1 "status, script missing"
	has "$D/n.err" missing "reason, script"
	daemon -u -s $S1 -b 5000 -e /etc/passwd
	eq $STATUS 1 "status, script not executable"
	daemon -u -s $S1 -b bad
	eq $STATUS 2 "status, usage"
	# forward mode never shares a port
	py h1 svc echo udp 0.0.0.0 5000
	daemon -u -s $S1 -b 5000 -t 192.168.1.20 -p 53
	eq $STATUS 1 "status, busy port"
	has "$D/n.err" '5000.*in use.*python' "reason, port"
	[ ! -e "$D/pid" ] || fail "a pid file was written"
}

t_pid_file_cannot_be_written() {
	lab
	dev
	daemon -u -s $S1 -b 5000 --pid-file "$D/no/such/dir/pid"
	eq $STATUS 1 status
	has "$D/n.err" 'no/such/dir' reason
}

# process 1 of a container, which its own signal cannot kill
t_process_1_ends_with_143() {
	lab
	need unshare
	# shellcheck disable=SC2086
	ip netns exec "$L-h1" unshare -pf $NATMAP_WRAP "$NATMAP" -u -s $S1 \
	    -b 5000 > "$D/n.out" 2> "$D/n.err" &
	PID[n]=$!
	mapped n 1
	kill -TERM "$(cat "/proc/${PID[n]}/task/${PID[n]}/children")"
	nm_wait n
	eq $STATUS 143 status
}

# one natmap for one pid file; what a crash left keeps nobody from starting
t_pid_file_is_locked() {
	lab
	nm n -u -s $S1 -b 5000 --pid-file "$D/pid"
	mapped n 1
	nm m -u -s $S1 -b 5001 --pid-file "$D/pid"
	nm_wait m
	eq $STATUS 1 status
	has "$D/m.err" 'pid: locked by another natmap' reason
	eq "$(cat "$D/pid")" "${PID[n]}" "pid file"
	nm_stop n KILL
	[ -s "$D/pid" ] || fail "the pid file is gone"
	nm m -u -s $S1 -b 5001 --pid-file "$D/pid"
	mapped m 1
	eq "$(cat "$D/pid")" "${PID[m]}" "pid file"
}

t_log_daemon_that_hangs() {
	lab
	dev deaf_syslog
	daemon -v -u -s $S1,$S2 -b 5000 -k 1
	eq $STATUS 0 status
	mapped n 1
	nat r2 cone 5000:40001
	forget r2
	mapped n 2 8
	kill -TERM "${PID[n]}"
	soon 2 "still there" gone "${PID[n]}"
}

t_no_log_daemon() {
	lab
	dev
	daemon -u -s $S1 -b 5000 -k 1
	eq $STATUS 0 status
	mapped n 1
	mute $S1
	sleep 3
	kill -0 "${PID[n]}"
}

# signal NAME EXPECTED STATUS, foreground
signal() {
	nm n -u -s $S1 -b 5000 -k 2 --pid-file "$D/pid"
	mapped n 1
	eq "$(cat "$D/pid")" "${PID[n]}" "pid file"
	nm_stop n "$1"
	eq $STATUS "$2" "status after $1"
	between 0 $TOOK $((1500 * SLOW)) "ms to end"
	[ ! -e "$D/pid" ] || fail "the pid file is left"
}

t_dies_of_the_signal() {
	lab
	signal TERM 143
	# a background shell ignores INT, which natmap must not inherit
	signal INT 130
}

t_signals_that_never_hurt() {
	local s i
	lab
	nm n -u -s $S1 -b 5000 -k 3600
	mapped n 1
	for i in 1 2 3 4 5 6 7 8 9 10; do
		for s in CHLD PIPE HUP USR1 CONT; do
			kill -$s "${PID[n]}"
		done
	done
	sleep 2
	alive n
	eq "$(lines "$D/n.out")" 1 lines
	between 0 "$(cpu n)" $((300 * SLOW)) "ms of CPU"
	nm_stop n
	eq $STATUS 143 status
}

# a TERM that comes at once, at any moment of the start, still ends it
t_term_at_start() {
	local i
	lab
	py inet dns dns $DNS stun.test=$S1
	for i in 0 0.001 0.002 0.005 0.01 0.02 0.03 0.05 0.08 0.1 0.15 0.2; do
		nm n -u -s stun.test -b 5000
		sleep $i
		nm_stop n
		eq $STATUS 143 "status, TERM after $i s"
	done
}

t_stdin_stdout_stderr_closed() {
	lab
	py h1 svc echo udp 0.0.0.0 5000
	# shellcheck disable=SC2086
	ip netns exec "$L-h1" sh -c "exec $NATMAP_WRAP $NATMAP \
	    -u -s $S1 -b 5000 -k 1 0<&- 1>&- 2>&-" &
	PID[n]=$!
	sleep 2
	alive n
	reached udp $PUBLIC 40000
	# none of its sockets has become one of the three
	for f in 0 1 2; do
		case $(readlink "/proc/${PID[n]}/fd/$f") in
		socket:*|pipe:*) fail "descriptor $f is a socket" ;;
		esac
	done
}

quick detaches 50
quick ppid_of_script_is_the_daemon 40
quick refuses_before_it_detaches 50
quick pid_file_cannot_be_written 30
quick pid_file_is_locked 30
quick process_1_ends_with_143 30
quick log_daemon_that_hangs 50
quick no_log_daemon 40
quick dies_of_the_signal 40
quick signals_that_never_hurt 40
quick term_at_start 60
quick stdin_stdout_stderr_closed 40
lab_main "$@"
