#!/bin/bash
# SPDX-License-Identifier: MIT
# The script of -e and the line on stdout: the contract that others depend on.
. "$(dirname "$0")/lab.sh"

ARGS="$PUBLIC 40000 2001::9c40:c633:640a 5000 udp $HOST"

lab() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
}

# move PORT: the public port changes to that one
move() {
	nat r2 cone "5000:$1"
	forget r2
}

# ran N [SECONDS]: until the hook has logged N calls
ran() {
	# shellcheck disable=SC2016
	soon "${2:-8}" "no call $1 of the script" \
	    eval '[ "$(lines "$D/hook.log")" -ge '"$1"' ]'
}

# script NAME: from stdin
script() {
	cat > "$D/$1"
	chmod +x "$D/$1"
	: > "$D/hook.log"
}

t_arguments() {
	lab
	script hook <<-EOF
	#!/bin/sh
	{
		echo "count \$#"
		for a; do echo "arg [\$a]"; done
		echo "ppid \$PPID"
		echo "cwd \$(pwd)"
		env | grep -E '^(NATMAP_|MINE)'
	} > $D/facts
	echo done >> $D/hook.log
	echo out; echo err >&2
	EOF
	cd /usr
	MINE=kept nm n -u -s $S1 -b 5000 -k 2 -e "$D/hook"
	ran 1
	has "$D/facts" '^count 6$'
	eq "$(sed -n 's/^arg //p' "$D/facts" | tr '\n' ' ')" \
	    "[$PUBLIC] [40000] [2001::9c40:c633:640a] [5000] [udp] [$HOST] " argv
	[ -n "$NATMAP_WRAP" ] || has "$D/facts" "^ppid ${PID[n]}\$"
	has "$D/facts" '^cwd /usr$'
	has "$D/facts" '^MINE=kept$'
	has "$D/facts" '^NATMAP_OLD_ADDR=$'
	has "$D/facts" '^NATMAP_OLD_PORT=$'
	has "$D/facts" "^NATMAP_STUN=$S1"
	has "$D/facts" '^NATMAP_INTERFACE=$'
	has "$D/facts" '^NATMAP_TARGET=$'
	has "$D/facts" '^NATMAP_TARGET_PORT=$'
	soon 3 "stdout of the script" grep -q '^out$' "$D/n.out"
	has "$D/n.err" '^err$' "stderr of the script"
	eq "$(lines "$D/n.out")" 1 "natmap's own lines"
	sleep 5
	eq "$(lines "$D/hook.log")" 1 "calls while nothing changes"
	move 40001
	ran 2
	has "$D/facts" '^arg \[40001\]$'
	has "$D/facts" "^NATMAP_OLD_ADDR=$PUBLIC\$"
	has "$D/facts" '^NATMAP_OLD_PORT=40000$'
	nm_stop n
	sleep 0.5
	eq "$(lines "$D/hook.log")" 2 "no call at the exit"
}

t_ipv6_argument_is_empty() {
	lab
	coturn turn6 $S1V6
	script hook <<-EOF
	#!/bin/sh
	printf '[%s]' "\$#" "\$@" >> $D/hook.log
	echo >> $D/hook.log
	EOF
	nm n -6 -u -s $S1V6 -b 5000 -i $HOSTV6 -e "$D/hook"
	ran 1
	eq "$(cat "$D/hook.log")" \
	    "[6][$PUBLICV6][40000][][5000][udp][$HOSTV6]" arguments
}

t_clean_process() {
	lab
	script hook <<-EOF
	#!$PY
	import os
	s = dict(l.split(':\t') for l in open('/proc/self/status')
	    if l.startswith('Sig'))
	fds = [f for f in os.listdir('/proc/self/fd')
	    if os.path.exists('/proc/self/fd/' + f)]
	import resource
	open('$D/facts', 'w').write('fds %s\nblocked %s\nignored %s\nmax %d\n' % (
	    ' '.join(sorted(fds)), s['SigBlk'].strip(), s['SigIgn'].strip(),
	    resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
	open('$D/hook.log', 'a').write('done\n')
	EOF
	exec 9< /dev/null 400< /dev/null	# one is beyond the limit
	ulimit -Sn 300
	trap '' USR2		# what we ignore is not ignored there
	nm n -u -s $S1 -b 5000 -k 2 -e "$D/hook"
	exec 9<&- 400<&-
	trap - USR2
	ran 1
	# python opens the directory itself, which is 3
	has "$D/facts" '^fds 0 1 2( 3)?$'
	has "$D/facts" '^blocked 0+$'
	# python ignores PIPE and XFSZ of its own: 0x1001000.  What make(1) runs
	# has libc's own signals 32 and 33 ignored, which sigaction(2) refuses.
	has "$D/facts" '^ignored 0+(18)?0?1001000$'
	[ -n "$NATMAP_WRAP" ] || has "$D/facts" '^max 300$'
}

t_one_at_a_time_newest_last() {
	lab
	script hook <<-EOF
	#!/bin/sh
	echo "begin \$2" >> $D/hook.log
	[ "\$2" != 40000 ] || while [ ! -e $D/go ]; do sleep 0.05; done
	echo "end \$2 \$NATMAP_OLD_PORT" >> $D/hook.log
	EOF
	nm n -v -u -s $S1,$S2 -b 5000 -k 1 -e "$D/hook"
	ran 1
	for p in 40001 40002 40003; do
		move $p
		said n "$p" 6
	done
	eq "$(cat "$D/hook.log")" "begin 40000" "while it runs"
	touch "$D/go"
	ran 4
	sleep 1
	eq "$(tr '\n' , < "$D/hook.log")" \
	    "begin 40000,end 40000 ,begin 40003,end 40003 40000," order
}

# what moved and moved back during a run is no change
t_back_again_is_no_call() {
	lab
	script hook <<-EOF
	#!/bin/sh
	echo "\$2" >> $D/hook.log
	while [ ! -e $D/go ]; do sleep 0.05; done
	EOF
	nm n -v -u -s $S1,$S2 -b 5000 -k 1 -e "$D/hook"
	ran 1
	move 40001
	said n 40001 6
	move 40000
	sleep 4
	touch "$D/go"
	sleep 2
	eq "$(cat "$D/hook.log")" 40000 calls
}

t_failure_is_said_once() {
	lab
	script hook <<-EOF
	#!/bin/sh
	echo "\$2" >> $D/hook.log
	[ "\$2" != 40002 ] || kill -KILL \$\$
	exit 7
	EOF
	nm n -u -s $S1,$S2 -b 5000 -k 1 -e "$D/hook"
	ran 1
	said n 'hook.*\b7\b'
	sleep 2
	eq "$(lines "$D/hook.log")" 1 "calls for one change"
	eq "$(count "$D/n.err" 'hook.*\b7\b')" 1 messages
	move 40002
	ran 2
	said n 'hook.*signal 9'
	alive n
}

t_without_interpreter_line() {
	lab
	echo "echo \"\$*\" >> $D/hook.log" | script hook
	nm n -u -s $S1 -b 5000 -e "$D/hook"
	ran 1
	eq "$(cat "$D/hook.log")" "$ARGS" arguments
}

t_missing_appears_later() {
	lab
	nm n -u -s $S1 -b 5000 -k 2 -e "$D/hook"
	said n 'hook.*(No such file|not exist|missing|not found)'
	hook hook
	ran 1 12
	eq "$(cat "$D/hook.log")" "$ARGS" arguments
	eq "$(count "$D/n.err" 'hook.*(No such file|not exist|not found)')" 1 \
	    messages
}

t_not_executable_is_said() {
	lab
	echo 'exit 0' > "$D/hook"
	nm n -u -s $S1 -b 5000 -e "$D/hook"
	said n 'hook.*(permission|not executable)'
	alive n
}

t_target_in_the_environment() {
	local port want
	lab
	script hook <<-EOF
	#!/bin/sh
	echo "\$NATMAP_TARGET \$NATMAP_TARGET_PORT" >> $D/hook.log
	EOF
	for port in 7000 domain 0; do
		: > "$D/hook.log"
		nm n -u -s $S1 -b 5000 -t localhost -p $port -e "$D/hook"
		ran 1
		want=$port
		[ $port != domain ] || want=53
		[ $port != 0 ] || want=40000	# the public port
		eq "$(cat "$D/hook.log")" "localhost $want" "for -p $port"
		nm_stop n
	done
}

# the network is back, and what the script needs is not yet
t_failure_is_repeated() {
	local began
	lab
	script hook <<-EOF
	#!/bin/sh
	echo "\$2 \$NATMAP_OLD_PORT" >> $D/hook.log
	[ \$2 = 40000 ] || [ -e $D/go ] || exit 1
	EOF
	nm n -u -s $S1,$S2 -b 5000 -k 1 -e "$D/hook"
	ran 1
	move 40001
	ran 2
	said n 'hook: failed with status 1, trying again in 5 s'
	began=$(now)
	ran 3 12
	between 3500 $(($(now) - began)) 10000 "ms until it is repeated"
	touch "$D/go"
	kill -HUP "${PID[n]}"
	ran 4 4
	said n 'hook: succeeded after 2 failures'
	sleep 1
	eq "$(tr '\n' , < "$D/hook.log")" \
	    "40000 ,40001 40000,40001 40000,40001 40000," calls
}

t_once_repeats_nothing() {
	lab
	script hook <<-EOF
	#!/bin/sh
	echo called >> $D/hook.log
	exit 1
	EOF
	nm n -1 -u -s $S1 -b 5000 -e "$D/hook"
	nm_wait n
	eq $STATUS 1 status
	eq "$(lines "$D/hook.log")" 1 calls
	hasnt "$D/n.err" again
}

# a script that waits for its target for ever
t_newer_values_end_a_run() {
	local began
	lab
	script hook <<-EOF
	#!/bin/sh
	echo "\$2" >> $D/hook.log
	[ \$2 != 40000 ] || sleep 1000
	EOF
	nm n -u -s $S1,$S2 -b 5000 -k 1 -e "$D/hook"
	ran 1
	move 40001
	began=$(now)
	ran 2 60
	between 28000 $(($(now) - began)) 50000 "ms"
	eq "$(tr '\n' , < "$D/hook.log")" 40000,40001, calls
	hasnt "$D/n.err" 'signal|failed'
}

# what asks on the terminal is told at once that there is none
t_no_terminal() {
	need script
	lab
	script hook <<-EOF
	#!/bin/sh
	read line
	echo "read \$?" >> $D/hook.log
	read line < /dev/tty
	echo "tty \$?" >> $D/hook.log
	EOF
	ip netns exec "$L-h1" script -qec "$NATMAP_WRAP $NATMAP -u -s $S1 \
	    -b 5000 -e $D/hook" "$D/typescript" > /dev/null 2>&1 < /dev/null &
	PID[n]=$!
	ran 2
	eq "$(head -n 1 "$D/hook.log")" "read 1" "of stdin"
	hasnt "$D/hook.log" '^tty 0'
}

t_what_cannot_be_run() {
	lab
	mkdir "$D/folder"
	nm n -u -s $S1 -b 5000 -e "$D/folder"
	said n 'folder: cannot be run, trying again: Is a directory'
	nm_stop n
	nm n -u -s $S1 -b 5000 -e "/bin/echo all well"
	said n 'echo all well: cannot be run \(-e takes a path, without arg'
	nm_stop n
	printf '#!/bin/sh\r\nexit 0\r\n' | script crlf
	nm n -u -s $S1 -b 5000 -e "$D/crlf"
	said n 'crlf: failed with status 127 .*not found.*end in CR'
	nm_stop n
	printf '#!/etc\n' | script bad
	nm n -u -s $S1 -b 5000 -e "$D/bad"
	said n 'bad: failed with status 126 .*not executable'
	nm_stop n
	printf '#!/bin/sh\nno-such-command\n' | script unknown
	nm n -u -s $S1 -b 5000 -e "$D/unknown"
	said n 'unknown: failed with status 127 \(a command .*not found'
}

t_stdout_that_fails_is_tried_again() {
	local p=$D/pipe
	lab
	mkfifo "$p"
	# shellcheck disable=SC2094	# nobody reads
	exec 8<> "$p" 9> "$p" 8>&-
	# shellcheck disable=SC2086
	ip netns exec "$L-h1" $NATMAP_WRAP "$NATMAP" -u -s $S1 -b 5000 \
	    -k 1 >&9 2> "$D/n.err" &
	PID[n]=$!
	said n 'stdout: cannot be written: Broken pipe'
	timeout 12 head -n 1 "$p" > "$D/line" || true
	eq "$(cat "$D/line")" "$ARGS" line
	exec 9>&-
}

# a script may be what restarts us: it outlives natmap
t_running_one_is_left_alone_at_exit() {
	lab
	script hook <<-EOF
	#!/bin/sh
	echo begin >> $D/hook.log
	sleep 3
	echo end >> $D/hook.log
	EOF
	nm n -u -s $S1 -b 5000 -e "$D/hook"
	ran 1
	nm_stop n
	eq $STATUS 143 status
	between 0 $TOOK $((1500 * SLOW)) "ms to end"
	ran 2
}

t_script_cannot_kill_natmap() {
	lab
	script hook <<-EOF
	#!/bin/sh
	echo "\$2" >> $D/hook.log
	exec 0<&- 1>&- 2>&-
	kill -PIPE \$PPID; kill -CHLD \$PPID
	EOF
	nm n -u -s $S1,$S2 -b 5000 -k 1 -e "$D/hook"
	ran 1
	sleep 1
	alive n
	move 40001
	ran 2
}

# a change goes on being noticed while nobody reads stdout
t_stdout_that_blocks() {
	lab
	mkfifo "$D/pipe"
	exec 8<> "$D/pipe"
	"$PY" -c "
import fcntl, os
fcntl.fcntl(8, 1031, 4096)
os.set_blocking(8, False)
try:
    while os.write(8, b'x' * 1024): pass
except BlockingIOError: pass
os.set_blocking(8, True)"
	# shellcheck disable=SC2086
	ip netns exec "$L-h1" $NATMAP_WRAP "$NATMAP" -u -s $S1,$S2 -b 5000 \
	    -k 1 > "$D/pipe" 2> "$D/n.err" &
	PID[n]=$!
	sleep 2
	py h1 svc echo udp 0.0.0.0 5000
	reached udp $PUBLIC 40000
	move 40001
	sleep 3
	timeout 2 head -c 4096 <&8 > /dev/null
	timeout 3 grep -m 1 -a -oe "$PUBLIC 4000.*" <&8 > "$D/line" || true
	has "$D/line" "^$PUBLIC 40001 " "the newest value"
	alive n
}

quick arguments 60
quick ipv6_argument_is_empty 40
quick clean_process 40
quick one_at_a_time_newest_last 60
quick back_again_is_no_call 60
quick failure_is_said_once 60
quick without_interpreter_line 40
quick missing_appears_later 50
quick not_executable_is_said 40
quick target_in_the_environment 40
quick failure_is_repeated 60
quick once_repeats_nothing 40
quick newer_values_end_a_run 100
quick no_terminal 40
quick what_cannot_be_run 60
quick stdout_that_fails_is_tried_again 60
quick running_one_is_left_alone_at_exit 40
quick script_cannot_kill_natmap 40
quick stdout_that_blocks 60
lab_main "$@"
