# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# The NAT lab: a small Internet in network namespaces, for the end-to-end
# tests and the demonstration.  A script sources this file, defines functions
# t_NAME, registers them with `quick NAME SECONDS` or `long NAME SECONDS`, and
# ends with `lab_main "$@"`.  Needs root.
#
#   [h1 192.168.1.10]-+                              +-[inet .2 .3 .53 .80]
#   [h2 192.168.1.20]-+-[r1]-----100.64.0.0/24-[r2]--+
#                 192.168.1.1     .2        .1  .10  +-[out .100 .101]
#
#   IPv6: 2001:db8:1::10, ::20 -- 2001:db8:2::2 .. ::1 -- 2001:db8:f::10
#
# Namespaces carry the prefix $L and all files are in $D, so that labs can run
# side by side.  What runs in a lab is ended by the pids of its namespaces.
#
# NATMAP       the program under test
# NATMAP_WRAP  a command before it (valgrind, qemu)
# NATMAP_SLOW  factor for time limits, when it runs slowly

TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
NATMAP=${NATMAP:-$TESTS/../natmap}
NATMAP_WRAP=${NATMAP_WRAP:-}
SLOW=${NATMAP_SLOW:-1}
NET=$TESTS/lab/net.py
PY=/usr/bin/python3
[ -x "$PY" ] || PY=python3
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

S1=198.51.100.2 S2=198.51.100.3 WWW=198.51.100.80 DNS=198.51.100.53
PUBLIC=198.51.100.10 OUT=198.51.100.100
S1V6=2001:db8:f::2 S2V6=2001:db8:f::3 WWWV6=2001:db8:f::80
PUBLICV6=2001:db8:f::10
HOST=192.168.1.10 HOSTV6=2001:db8:1::10
export S1 S2 WWW DNS PUBLIC OUT S1V6 S2V6 WWWV6 PUBLICV6 HOST HOSTV6

# valgrind and qemu know no pidfd_getfd: there the lab's own services let
# their port be shared
[ -z "$NATMAP_WRAP" ] || export LAB_SHARE=1

L=nm$$x$RANDOM
D=
declare -A PID PUB PUB6 LIMIT
CASES=
# what functions here hand to the tests
export LINE='' STATUS=0 TOOK=0

# ---- verdicts ------------------------------------------------------------

fail() {
	echo "FAIL: $*"
	exit 1
}

skip() {
	echo "skip: $*"
	exit 77
}

# eq GOT WANT WHAT
eq() {
	[ "$1" = "$2" ] || fail "$3: got '$1', wanted '$2'"
}

# between LOW VALUE HIGH WHAT
between() {
	{ [ "$1" -le "$2" ] && [ "$2" -le "$3" ]; } ||
	    fail "$4: $2 is not from $1 to $3"
}

# has FILE PATTERN WHAT: an extended regular expression, any case
has() {
	grep -Eiq -e "$2" "$1" || fail "${3:-log}: no line like '$2' in $1"
}

hasnt() {
	! grep -Eiq -e "$2" "$1" || fail "${3:-log}: '$2' is in $1"
}

# count FILE PATTERN
count() {
	grep -Eic -e "$2" "$1" || true
}

lines() {
	wc -l < "$1"
}

need() {
	local c
	for c; do
		command -v "$c" > /dev/null || skip "$c is not installed"
	done
}

now() {
	echo "$((${EPOCHREALTIME/./} / 1000))"
}

# wait_for SECONDS COMMAND ...: until it succeeds; 1 when it never does
wait_for() {
	local end=$(($(now) + $1 * 1000 * SLOW))
	shift
	until "$@" > /dev/null 2>&1; do
		[ "$(now)" -lt "$end" ] || return 1
		sleep 0.05
	done
}

# soon SECONDS WHAT COMMAND ...: as wait_for, but failing is a failure
soon() {
	local secs=$1 what=$2
	shift 2
	wait_for "$secs" "$@" || fail "$what (waited $secs s)"
}

# ---- the topology --------------------------------------------------------

# at NS COMMAND ...
at() {
	local ns=$L-$1
	shift
	ip netns exec "$ns" "$@"
}

# link NS IF NS IF: a cable
link() {
	ip -n "$L-$1" link add "$2" type veth peer name "$4" netns "$L-$3"
	ip -n "$L-$1" link set "$2" up
	ip -n "$L-$3" link set "$4" up
}

# addr NS IF ADDRESS ...
addr() {
	local ns=$1 dev=$2 a
	shift 2
	for a; do
		case $a in
		*:*) ip -n "$L-$ns" addr add "$a" dev "$dev" nodad ;;
		*) ip -n "$L-$ns" addr add "$a" dev "$dev" ;;
		esac
	done
}

route() {
	local ns=$1
	shift
	ip -n "$L-$ns" route replace "$@"
}

lab_netns() {
	# ip netns changes how the root's mounts propagate
	grep -q '^\([^ ]* \)\{4\}/ ' /proc/self/mountinfo ||
	    skip "this root is no mount point: mount --bind it on itself" \
	    "before chroot"
	ip netns add "$L-$1"
	# shellcheck disable=SC2016
	at "$1" sh -c '
	    cd /proc/sys/net
	    for i in all default; do
		echo 0 > ipv4/conf/$i/rp_filter
		echo 0 > ipv6/conf/$i/accept_dad
		echo 0 > ipv6/conf/$i/disable_ipv6
	    done
	    echo "0 2147483647" > ipv4/ping_group_range' 2> /dev/null || true
	ip -n "$L-$1" link set lo up
}

lab_up() {
	local ns
	[ "$(id -u)" = 0 ] || skip "needs root"
	need ip nft
	for ns in h1 h2 r1 r2 inet out; do
		lab_netns "$ns"
	done
	for ns in r1 r2; do
		at $ns sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward
		    echo 1 > /proc/sys/net/ipv6/conf/all/forwarding'
	done
	ip -n "$L-inet" link add br0 type bridge
	ip -n "$L-inet" link set br0 up
	ip -n "$L-r1" link add lan type bridge
	ip -n "$L-r1" link set lan up
	link h1 eth0 r1 h1
	link h2 eth0 r1 h2
	link r1 wan r2 lan
	link r2 wan inet r2
	link out eth0 inet out
	ip -n "$L-r1" link set h1 master lan
	ip -n "$L-r1" link set h2 master lan
	ip -n "$L-inet" link set r2 master br0
	ip -n "$L-inet" link set out master br0
	addr h1 eth0 $HOST/24 $HOSTV6/64
	addr h2 eth0 192.168.1.20/24 2001:db8:1::20/64
	addr r1 lan 192.168.1.1/24 2001:db8:1::1/64
	addr r1 wan 100.64.0.2/24 2001:db8:2::2/64
	addr r2 lan 100.64.0.1/24 2001:db8:2::1/64
	addr r2 wan $PUBLIC/24 $PUBLICV6/64
	addr inet br0 $S1/24 $S2/24 $WWW/24 $DNS/24
	addr inet br0 $S1V6/64 $S2V6/64 $WWWV6/64
	addr out eth0 $OUT/24 198.51.100.101/24 2001:db8:f::100/64
	for ns in h1 h2; do
		route $ns default via 192.168.1.1
		route $ns default via 2001:db8:1::1
		mkdir -p "/etc/netns/$L-$ns"
		printf 'nameserver %s\noptions timeout:1 attempts:1\n' $DNS \
		    > "/etc/netns/$L-$ns/resolv.conf"
	done
	route r1 default via 100.64.0.1
	route r1 default via 2001:db8:2::1
	route r2 192.168.1.0/24 via 100.64.0.2
	route r2 2001:db8:1::/64 via 2001:db8:2::2
	# a restarted flow then really meets the TIME_WAIT of the last one
	at inet sh -c 'echo 0 > /proc/sys/net/ipv4/tcp_timestamps'
	PUB=([r1]=100.64.0.2 [r2]=$PUBLIC)
	PUB6=([r1]=2001:db8:2::2 [r2]=$PUBLICV6)
}

lab_pids() {
	local ns
	ip netns list 2> /dev/null | while read -r ns _; do
		case $ns in
		"$L"-*) ip netns pids "$ns" ;;
		esac
	done
}

# ends all that runs in this lab, removes its namespaces and files
lab_down() {
	local ns p
	for p in $(lab_pids); do
		kill -KILL "$p" 2> /dev/null
	done
	for p in "${PID[@]}"; do
		[ -z "$p" ] || kill -KILL "$p" 2> /dev/null
	done
	wait 2> /dev/null
	for ns in $(ip netns list 2> /dev/null | awk '{ print $1 }'); do
		case $ns in
		"$L"-*)
			ip netns del "$ns"
			rm -rf "/etc/netns/$ns"
			;;
		esac
	done
	rmdir /etc/netns 2> /dev/null
	[ -z "$D" ] || rm -rf "$D"
}

# ---- NATs ----------------------------------------------------------------

# nat ROUTER KIND [host=A] [host6=A] [timeout=S] [strict] [LOCAL:PUBLIC ...]
#
# restricted  port-restricted cone, keeps the port
# symmetric   another port for each destination
# cone        static full cone: LOCAL of host is PUBLIC outside
# learn       full cone that learns from outgoing packets and forgets after
#             timeout; IPv4 ports without a LOCAL:PUBLIC are kept
# strict      packets that belong to no known flow are dropped
nat() {
	local r=$1 kind=$2 host=$HOST host6=$HOSTV6 secs=3 strict='' maps='' a
	shift 2
	for a; do
		case $a in
		host=*) host=${a#*=} ;;
		host6=*) host6=${a#*=} ;;
		timeout=*) secs=${a#*=} ;;
		strict) strict='ct state invalid drop' ;;
		*) maps="$maps $a" ;;
		esac
	done
	{
		nat_table ip ipv4_addr "$host" "${PUB[$r]}"
		nat_table ip6 ipv6_addr "$host6" "${PUB6[$r]}"
	} > "$D/$r.nft"
	at "$r" nft -f "$D/$r.nft"
	[ -z "$strict" ] || ct "$r" tcp_loose=0
}

# nat_table ip|ip6 TYPE HOST PUBLIC: of nat()'s kind, maps, secs and strict
nat_table() {
	local f=$1 t=$2 h=$3 pub=$4 m
	local key='meta l4proto . th dport' both='meta l4proto { tcp, udp }'
	echo "table $f nat"
	echo "delete table $f nat"
	echo "table $f nat {"
	echo "map s {"
	echo "type $t . inet_service : $t . inet_service"
	nat_elements "$h ." "$pub ."
	echo "}"
	if [ "$kind" = learn ]; then
		echo "map d { type inet_proto . inet_service : $t . inet_service
		    flags dynamic,timeout; timeout ${secs}s; size 65536; }"
		for m in $maps; do
			echo "set q${m#*:} { type inet_proto
			    flags dynamic,timeout; timeout ${secs}s; size 9; }"
		done
	else
		echo "map d {"
		echo "type inet_service : $t . inet_service"
		nat_elements -r "$h ."
		echo "}"
		key='th dport'
	fi
	echo "chain forwarded {"
	echo "type filter hook forward priority 0"
	echo "$strict"
	if [ "$kind" = learn ]; then
		for m in $maps; do
			echo "oifname wan ct direction original" \
			    "$f saddr $h $both th sport ${m%:*}" \
			    "update @q${m#*:} { meta l4proto } accept"
		done
		# nft has not registers enough for this in IPv6
		[ "$f" = ip6 ] ||
		    echo "oifname wan ct direction original $both update @d" \
		    "{ meta l4proto . th sport : $f saddr . th sport }"
	fi
	echo "}"
	echo "chain post {"
	echo "type nat hook postrouting priority 100"
	echo "oifname wan $both snat $f to $f saddr . th sport map @s"
	[ "$kind" = symmetric ] && echo "oifname wan masquerade fully-random" ||
	    echo "oifname wan masquerade"
	echo "}"
	echo "chain pre {"
	echo "type nat hook prerouting priority -100"
	[ "$kind" != learn ] || for m in $maps; do
		echo "iifname wan $f daddr $pub $both th dport ${m#*:}" \
		    "meta l4proto @q${m#*:} dnat $f to $(joined "$h" "${m%:*}")"
	done
	case $kind in
	cone|learn)
		echo "iifname wan $f daddr $pub $both dnat $f to $key map @d" ;;
	esac
	echo "}"
	echo "}"
}

# joined HOST PORT
joined() {
	case $1 in
	*:*) echo "[$1]:$2" ;;
	*) echo "$1:$2" ;;
	esac
}

# nat_elements A B: "A LOCAL : B PUBLIC" for each of nat()'s maps;
# -r A: "PUBLIC : A LOCAL"
nat_elements() {
	local m
	[ -n "$maps" ] || return 0
	echo 'elements = {'
	for m in $maps; do
		case $1 in
		-r) echo "${m#*:} : $2 ${m%:*}," ;;
		*) echo "$1 ${m%:*} : $2 ${m#*:}," ;;
		esac
	done
	echo '}'
}

# ct ROUTER NAME=VALUE ...: conntrack settings
ct() {
	local r=$1 s
	shift
	for s; do
		at "$r" sh -c "echo ${s#*=} > \
		    /proc/sys/net/netfilter/nf_conntrack_${s%%=*}"
	done
}

# forget ROUTER: all its flows
forget() {
	at "$1" conntrack -F > /dev/null 2>&1
}

# public ADDRESS: r2 gets another public address; load maps and forget after
public() {
	ip -n "$L-r2" addr del "${PUB[r2]}/24" dev wan
	ip -n "$L-r2" addr add "$1/24" dev wan
	PUB[r2]=$1
}

# loss ROUTER PERCENT: of forwarded packets; 0 ends it
loss() {
	local which="numgen random mod 100 < $2"
	[ "$2" -lt 100 ] || which=
	at "$1" nft -f - <<-EOF
	table inet loss
	delete table inet loss
	table inet loss {
		chain forwarded {
			type filter hook forward priority -10
			$which drop
		}
	}
	EOF
}

# mute ADDRESS ...: a server that answers nothing; no argument ends it
mute() {
	local a
	{
		printf 'table inet mute\ndelete table inet mute\n'
		printf 'table inet mute { chain in {\n'
		printf 'type filter hook input priority 0\n'
		for a; do
			case $a in
			*:*) echo "ip6 daddr $a drop" ;;
			*) echo "ip daddr $a drop" ;;
			esac
		done
		printf '}\n}\n'
	} | at inet nft -f -
}

# ---- servers -------------------------------------------------------------

# bg NS NAME COMMAND ...: in the background, its output in $D/NAME.log
bg() {
	local ns=$L-$1 name=$2
	shift 2
	ip netns exec "$ns" "$@" > "$D/$name.log" 2>&1 < /dev/null &
	PID[$name]=$!
}

# stop NAME [SIGNAL]
stop() {
	kill "-${2:-KILL}" "${PID[$1]}" 2> /dev/null || true
	wait "${PID[$1]}" 2> /dev/null || true
	PID[$1]=
}

# py NS NAME WHAT ARGS ...: a server of net.py, ready when this returns
py() {
	local name=$2
	bg "$1" "$name" "$PY" "$NET" "${@:3}"
	soon 10 "$name did not start" grep -q ready "$D/$name.log"
}

# net NS WHAT ARGS ...: a client of net.py
net() {
	at "$1" "$PY" "$NET" "${@:2}"
}

# listens NS tcp|udp PORT [ADDRESS]
listens() {
	local flag=-Hlnt
	[ "$2" = tcp ] || flag=-Hlnu
	at "$1" ss $flag | awk '{ print $4 }' | grep -Fq -- "${4:-}:$3"
}

# coturn NAME ADDRESS ... [OPTIONS]
coturn() {
	local name=$1 first=$2 a args=''
	shift
	need turnserver
	for a; do
		case $a in
		*:*|[0-9]*.*) args="$args -L $a" ;;
		*) args="$args $a" ;;
		esac
	done
	first=$(joined "$first" '')
	first=${first%:}
	# shellcheck disable=SC2086
	bg inet "$name" turnserver -n $args --no-tls --no-dtls --no-cli -m 1 \
	    -l stdout --pidfile "$D/$name.pid" --userdb "$D/$name.db"
	soon 10 "coturn did not start" listens inet tcp 3478 "$first"
	soon 10 "coturn did not start" listens inet udp 3478 "$first"
}

# www NAME [DIRECTIVE ...]: nginx as keep-alive server on $WWW and $WWWV6
www() {
	local name=$1 d
	shift
	need nginx
	{
		echo "daemon off; master_process off; pid $D/$name.pid;"
		echo "error_log $D/$name.err; worker_rlimit_nofile 1024;"
		echo "events { worker_connections 512; }"
		echo "http { access_log off; client_body_temp_path $D/cb;"
		echo "proxy_temp_path $D/pt; fastcgi_temp_path $D/ft;"
		echo "uwsgi_temp_path $D/ut; scgi_temp_path $D/st;"
		for d; do
			echo "$d;"
		done
		echo "server { listen $WWW:80; listen [$WWWV6]:80;"
		echo "location / { return 200 ok; } } }"
	} > "$D/$name.conf"
	bg inet "$name" nginx -p "$D" -e "$D/$name.err" -c "$D/$name.conf"
	soon 10 "nginx did not start" listens inet tcp 80 $WWW
}

# sshd NS PORT: accepts the key in $D/key, as root
sshd() {
	need ssh ssh-keygen
	[ -n "$(type -P sshd)" ] || skip "sshd is not installed"
	mkdir -p /run/sshd
	ssh-keygen -q -t ed25519 -N '' -f "$D/key"
	ssh-keygen -q -t ed25519 -N '' -f "$D/hostkey"
	chmod 700 "$D"
	cat > "$D/sshd_config" <<-EOF
	Port $2
	ListenAddress 0.0.0.0
	ListenAddress ::
	HostKey $D/hostkey
	AuthorizedKeysFile $D/key.pub
	PidFile $D/sshd.pid
	StrictModes no
	UsePAM no
	PermitRootLogin yes
	PasswordAuthentication no
	EOF
	bg "$1" sshd "$(type -P sshd)" -D -e -f "$D/sshd_config"
	soon 10 "sshd did not start" listens "$1" tcp "$2"
}

# ssh_to HOST PORT COMMAND: from outside
ssh_to() {
	at out ssh -i "$D/key" -p "$2" -o StrictHostKeyChecking=no \
	    -o UserKnownHostsFile=/dev/null -o BatchMode=yes \
	    -o LogLevel=ERROR -o ConnectTimeout=10 "root@$1" "$3"
}

# ---- natmap --------------------------------------------------------------

# nm NAME ARGS ...: natmap on h1 (NM_NS: elsewhere); NAME.out, NAME.err
nm() {
	local name=$1
	shift
	[ -x "$NATMAP" ] || fail "$NATMAP is not there"
	# before mapped and said look
	: > "$D/$name.out" 2> "$D/$name.err"
	# shellcheck disable=SC2086
	ip netns exec "$L-${NM_NS:-h1}" $NATMAP_WRAP "$NATMAP" "$@" \
	    > "$D/$name.out" 2> "$D/$name.err" < /dev/null &
	PID[$name]=$!
}

# nm_stop NAME [SIGNAL]: sets STATUS and TOOK, ms
nm_stop() {
	local t
	t=$(now)
	kill "-${2:-TERM}" "${PID[$1]}" 2> /dev/null || true
	nm_wait "$1"
	TOOK=$(($(now) - t))
}

# nm_wait NAME: until it has ended, sets STATUS
nm_wait() {
	STATUS=0
	wait "${PID[$1]}" 2> /dev/null || STATUS=$?
	PID[$1]=
}

alive() {
	kill -0 "${PID[$1]}" 2> /dev/null || fail "$1 has ended"
}

# mapped NAME N [SECONDS]: until it printed N lines; LINE is the Nth
mapped() {
	local end=$(($(now) + ${3:-10} * 1000 * SLOW))
	until [ "$(lines "$D/$1.out")" -ge "$2" ]; do
		[ "$(now)" -lt "$end" ] ||
		    fail "$1: no line $2 within ${3:-10} s"
		kill -0 "${PID[$1]}" 2> /dev/null || fail "$1 has ended"
		sleep 0.05
	done
	LINE=$(sed -n "$2p" "$D/$1.out")
}

# said NAME PATTERN [SECONDS]: until its log has such a line
said() {
	soon "${3:-5}" "$1 did not say '$2'" grep -Eiq -e "$2" "$D/$1.err"
}

# hook NAME: writes a script that logs its arguments to $D/NAME.log
hook() {
	cat > "$D/$1" <<-EOF
	#!/bin/sh
	echo "\$*" >> $D/$1.log
	EOF
	chmod +x "$D/$1"
	: > "$D/$1.log"
}

# probe tcp|udp HOST PORT [COUNT INTERVAL WAIT TRIES]: answered from outside?
probe() {
	net out probe "$@"
}

reaches() {
	probe "$1" "$2" "$3" > /dev/null
}

reached() {
	soon "${4:-3}" "$1 $2 $3 is not reached from outside" reaches "$1" "$2" "$3"
}

unreached() {
	! reaches "$1" "$2" "$3" || fail "$1 $2 $3 is reached from outside"
}

# lost_when_stopped NAME tcp|udp HOST PORT K: a mapping that is held in less
# than 2 x k is lost when NAME is stopped.  The kernel goes on probing idle TCP
# flows every 10 s: two of them hold it beyond 5 s, until NAME is gone.
lost_when_stopped() {
	if [ "$2" = tcp ] && [ "$5" -gt 2 ]; then
		stop "$1"
		sleep $((2 * $5))
		unreached "$2" "$3" "$4"
		return
	fi
	kill -STOP "${PID[$1]}"
	soon $((2 * $5 + 20)) "reached although $1 is stopped" \
	    not_reached "$2" "$3" "$4"
	kill -CONT "${PID[$1]}"
	reached "$2" "$3" "$4" $(($5 + 6))
}

not_reached() {
	! reaches "$@"
}

# fds NAME: how many descriptors it has
fds() {
	local n=0 f
	for f in "/proc/${PID[$1]}/fd/"*; do
		[ ! -L "$f" ] || n=$((n + 1))
	done
	echo "$n"
}

# kb NAME VmRSS|VmHWM: its memory; 0 where a checker makes that meaningless
kb() {
	if [ -n "$NATMAP_WRAP" ] || grep -q __asan_init "$NATMAP"; then
		echo 0
	else
		awk -v f="$2:" '$1 == f { print $2 }' "/proc/${PID[$1]}/status"
	fi
}

# cpu NAME: ms of processor time used so far
cpu() {
	awk '{ print ($14 + $15) * 10 }' "/proc/${PID[$1]}/stat"
}

# ---- the cases of a script -----------------------------------------------

# quick NAME SECONDS: a case and its time limit
quick() {
	LIMIT[$1]=$2
	[ "${NATMAP_LONG:-0}" = only ] || CASES="$CASES $1"
}

# long NAME SECONDS: one that runs with NATMAP_LONG=1, or only, and by its name
long() {
	LIMIT[$1]=$2
	case ${NATMAP_LONG:-0} in
	1|only) CASES="$CASES $1" ;;
	esac
}

case_end() {
	local status=$? f
	trap - EXIT
	trap '' TERM INT
	if grep -Eqs 'ERROR: (Address|Leak)Sanitizer|runtime error:|^==[0-9]+==' \
	    "$D"/*.err; then
		echo "FAIL: the checker of $NATMAP complained"
		status=1
	fi
	if [ "$status" != 0 ] && [ "$status" != 77 ]; then
		for f in "$D"/*.out "$D"/*.err "$D"/*.log; do
			[ ! -s "$f" ] || { echo "--- ${f##*/}"; tail -n 12 "$f"; }
		done
	fi
	set +e
	lab_down
	exit "$status"
}

# runs one case in this process
case_run() {
	set -eu
	D=$(mktemp -d "${TMPDIR:-/tmp}/natmap.XXXXXX")
	trap case_end EXIT
	trap 'echo "FAIL: timed out"; exit 124' TERM INT
	"t_$1"
}

# runs one case in a process of its own and prints its verdict
case_verdict() {
	local log status=0
	log=$(mktemp "${TMPDIR:-/tmp}/natmap-log.XXXXXX")
	timeout -k 15 $((LIMIT[$1] * SLOW)) bash "$0" --case "$1" \
	    > "$log" 2>&1 || status=$?
	case $status in
	0)
		echo "ok $SCRIPT.$1" ;;
	77)
		echo "skip $SCRIPT.$1: $(sed -n 's/^skip: //p' "$log" | head -n 1)"
		status=0
		;;
	*)
		sed 's/^/# /' "$log"
		echo "not ok $SCRIPT.$1"
		status=1
		;;
	esac
	rm -f "$log"
	return $status
}

# lab_main [--list | --case NAME | NAME ...]
lab_main() {
	local c bad=0
	SCRIPT=${0##*/}
	SCRIPT=${SCRIPT%.sh}
	case ${1:-} in
	--list)
		for c in $CASES; do
			echo "$c ${LIMIT[$c]}"
		done
		;;
	--case)
		case_run "$2" ;;
	*)
		# shellcheck disable=SC2086
		[ $# -gt 0 ] || set -- $CASES
		for c; do
			[ -n "${LIMIT[$c]:-}" ] || LIMIT[$c]=600
			case_verdict "$c" || bad=1
		done
		exit $bad
		;;
	esac
}
