#!/bin/bash
# SPDX-License-Identifier: MIT
# A busybox device: a root with nothing but busybox, the static program and a
# script, mounted read-only, in 16 MiB of memory, without /proc, /sys, /dev,
# syslog, /etc/hosts and resolv.conf.
#
# CC is the compiler of the static program, musl-gcc when it is not set, and
# GROWTH the seconds that the long cases of growth watch, 600 when it is not.
. "$(dirname "$0")/../lab.sh"
. "$(dirname "$0")/targets.sh"

MEMORY=16777216		# bytes that the device has
MOST_RSS=256		# KiB, idle with a mapping
MOST_DIRTY=88		# KiB of private dirty pages
CC=${CC:-musl-gcc}
GROWTH=${GROWTH:-600}
GROUP=

# the device's memory
group_up() {
	local base=/sys/fs/cgroup limit=memory.max
	if [ -d $base/memory ]; then
		base=$base/memory
		limit=memory.limit_in_bytes
	elif [ -f $base/cgroup.subtree_control ]; then
		echo +memory > $base/cgroup.subtree_control || true
	fi
	GROUP=$base/$L
	mkdir "$GROUP" 2> /dev/null || skip "no memory cgroup can be made"
	trap device_end EXIT
	echo $MEMORY > "$GROUP/$limit"
}

# ends what runs there, before the lab goes
device_end() {
	local status=$? p
	set +e
	while read -r p; do
		kill -KILL "$p"
	done < "$GROUP/cgroup.procs"
	wait_for 5 rmdir "$GROUP"
	(exit $status)
	case_end
}

device() {
	local busybox
	need make "${CC%% *}" busybox ip
	busybox=$(command -v busybox)
	tree "$D/src"
	mk "$D/src" static CC="$CC"
	mkdir -p "$D/root/bin"
	cp "$busybox" "$D/src/natmap" "$D/root/bin"
	ln -s busybox "$D/root/bin/sh"
	cat > "$D/root/bin/changed" <<-\EOF
	#!/bin/sh
	echo "$# $* | $NATMAP_STUN"
	EOF
	chmod +x "$D/root/bin/changed"
	cat > "$D/start" <<-\EOF
	mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" &&
	    exec env -i PATH=/bin "$(command -v chroot)" "$@"
	EOF
	lab_up
	group_up
	nat r2 cone 5000:40000 5001:40001
	coturn turn $S1 $S2
	www www
	py h2 echotcp echo tcp 192.168.1.20 7
	py h2 echoudp echo udp 192.168.1.20 7
	py h2 sink sink 192.168.1.20 9
}

# on NAME COMMAND ...: on the device, in the background; NAME.out, NAME.err
on() {
	local name=$1
	shift
	(
		echo "$BASHPID" > "$GROUP/cgroup.procs"
		exec ip netns exec "$L-h1" sh "$D/start" "$D/root" "$@"
	) > "$D/$name.out" 2> "$D/$name.err" < /dev/null &
	PID[$name]=$!
}

# rollup NAME FIELD: KiB, of its smaps_rollup.  Anonymous is what is dirty and
# private; pages of a program file just written are dirty, but not private.
rollup() {
	awk -v f="$2:" '$1 == f { print $2 }' "/proc/${PID[$1]}/smaps_rollup"
}

# small NAME: idle with a mapping
small() {
	echo "$1: $(rollup "$1" Rss) KiB, $(rollup "$1" Anonymous) private"
	between 1 "$(rollup "$1" Rss)" $MOST_RSS "KiB resident, $1"
	between 1 "$(rollup "$1" Anonymous)" $MOST_DIRTY "KiB private, $1"
}

EXPECT="40000 2001::9c40:c633:640a 5000"

t_root_is_bare() {
	device
	on look /bin/busybox sh -c '
	    busybox find / ! -path "/bin*" ! -path /
	    : > /file && echo written'
	nm_wait look
	eq "$(cat "$D/look.out")" "" "what else there is"
	has "$D/look.err" 'read-only' "root"
}

# maps, tells its script, relays; then SIGHUP finds nothing new
t_tcp_maps_and_relays() {
	device
	on n natmap -s $S1,$S2 -h $WWW -b 5000 -k 2 -e /bin/changed \
	    -t 192.168.1.20 -p 7
	mapped n 1
	eq "$LINE" "6 $PUBLIC $EXPECT tcp $HOST | $S1:3478" "script's words"
	small n
	reached tcp $PUBLIC 40000
	probe tcp $PUBLIC 40000 20 0.1
	kill -HUP "${PID[n]}"
	sleep 1
	alive n
	eq "$(lines "$D/n.out")" 1 "script runs"
	nm_stop n
	eq "$STATUS" 143 "status after TERM"
}

t_udp_maps_and_relays() {
	device
	on n natmap -u -s $S1,$S2 -b 5000 -k 2 -e /bin/changed \
	    -t 192.168.1.20 -p 7
	mapped n 1
	eq "$LINE" "6 $PUBLIC $EXPECT udp $HOST | $S1:3478" "script's words"
	small n
	reached udp $PUBLIC 40000
	net out sizes $PUBLIC 40000 0 1 1400 9000 65507
	nm_stop n
}

# a name cannot be found, a port not be shared: it says so and goes on
t_says_what_is_missing() {
	device
	on n natmap -u -s stun.test,$S1 -b 5000 -k 1
	mapped n 1
	eq "$LINE" "$PUBLIC $EXPECT udp $HOST" line
	said n 'stun\.test.*(look-up|name)'
	nm_stop n
	py h1 busy echo tcp 0.0.0.0 5001
	on b natmap -s $S1 -b 5001 -k 1
	said b '5001.*/proc'
	alive b
	nm_stop b
	# no /dev/log and no /dev/null: as a daemon it maps all the same
	on d natmap -d -u -s $S1 -b 5000 -k 1
	nm_wait d
	eq "$STATUS" 0 "status of natmap -d: $(cat "$D/d.err")"
	soon 10 "the daemon told nothing" test -s "$D/d.out"
	eq "$(head -n 1 "$D/d.out")" "$PUBLIC $EXPECT udp $HOST" "daemon's line"
}

t_once_in_busybox_sh() {
	device
	# shellcheck disable=SC2016
	on once sh -c "set -- \$(natmap --once -u -s $S1 -b 5000) || exit
	    echo \"\$# \$2 \$4 \$1\""
	nm_wait once
	eq "$STATUS" 0 status
	eq "$(cat "$D/once.out")" "6 40000 5000 $PUBLIC" "words"
	on once sh -c "natmap -1 -s $S1 -b 5001 -e /bin/changed"
	nm_wait once
	eq "$(cut -d ' ' -f 1-3 "$D/once.out")" "6 $PUBLIC 40001" "script"
}

sessions() {
	at h1 ss -Hnt state established "( sport = :5000 )" | grep -c $OUT
}

thousand() {
	[ "$(sessions)" = 1000 ]
}

# 1,000 idle sessions and a bulk transfer at once, in the device's memory
t_thousand_sessions_and_bulk() {
	local peak=$MEMORY
	device
	on n natmap -s $S1,$S2 -h $WWW -b 5000 -k 2 -t 192.168.1.20 -p 7
	on bulk natmap -s $S1,$S2 -h $WWW -b 5001 -k 2 -t 192.168.1.20 -p 9
	mapped n 1
	mapped bulk 1
	bg out many "$PY" "$NET" many tcp $PUBLIC 40000 1000 2 15
	soon 20 "1000 sessions are not there" thousand
	eq "$(net out bulk $PUBLIC 40001 256)" same "256 MiB"
	probe tcp $PUBLIC 40000 5
	echo "1000 sessions: $(rollup n Anonymous) KiB private"
	wait "${PID[many]}" || fail "$(cat "$D/many.log")"
	PID[many]=
	alive n
	alive bulk
	eq "$(cat "$D/n.out")" "$PUBLIC $EXPECT tcp $HOST" "all lines"
	[ ! -f "$GROUP/memory.max_usage_in_bytes" ] ||
	    peak=$(cat "$GROUP/memory.max_usage_in_bytes")
	between 1 "$peak" $MEMORY "bytes at most"
	echo "peak $peak bytes"
}

# grows KIND SECONDS ARGS ...: no page more after that many keep-alives
grows() {
	local kind=$1 secs=$2 before after
	shift 2
	device
	on n natmap -s $S1,$S2 -b 5000 -k 1 -c 1 "$@"
	mapped n 1
	sleep 8
	before=$(rollup n Anonymous)
	sleep "$secs"
	after=$(rollup n Anonymous)
	echo "$kind: $before KiB private, after $secs s $after KiB"
	between 1 "$after" "$before" "KiB private after $secs s"
	small n
	between 3 "$(fds n)" 12 descriptors
	eq "$(lines "$D/n.out")" 1 lines
}

t_tcp_does_not_grow() {
	grows tcp 15 -h $WWW
}

t_udp_does_not_grow() {
	grows udp 15 -u
}

t_tcp_does_not_grow_for_long() {
	grows tcp "$GROWTH" -h $WWW
}

t_udp_does_not_grow_for_long() {
	grows udp "$GROWTH" -u
}

quick root_is_bare 60
quick tcp_maps_and_relays 60
quick udp_maps_and_relays 60
quick says_what_is_missing 60
quick once_in_busybox_sh 60
quick thousand_sessions_and_bulk 90
quick tcp_does_not_grow 60
quick udp_does_not_grow 60
long tcp_does_not_grow_for_long $((GROWTH + 100))
long udp_does_not_grow_for_long $((GROWTH + 100))
lab_main "$@"
