#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The soak: four natmaps behind a full-cone NAT that learns and forgets, one
# fault after another, and clients outside that always know the address that
# was announced last.  It ends with the share of probes answered and the
# longest gap for each kind of fault, and fails when one exceeds its row, when
# descriptors or memory grew, when a session was cut that had no reason to be.
#
# SOAK_SECONDS   how long, 3600
# SOAK_SEED      of all that is random; printed at the start
# SOAK_ONLY      these kinds of faults only
# SOAK_NAT       single or double; else the seed decides
# SOAK_LOGS      keeps the logs there; those of a failed run are always kept
#
# tb, ub   TCP and UDP in bind mode, tf, uf   TCP and UDP in forward mode
# tb and uf tell by their script, ub and tf on stdout; -i changes at restarts
. "$(dirname "$0")/../lab.sh"

SOAK_SECONDS=${SOAK_SECONDS:-3600}
SOAK_SEED=${SOAK_SEED:-$((RANDOM * 32768 + RANDOM))}
SOAK_PY=$TESTS/tools/soak.py
NAMES='tb ub tf uf'

k=3		# -k of all four
c=2		# -c of the TCP ones
forget=5	# s: what the NATs do after less than 2 x k
idle=40		# -T of the relays
# shellcheck disable=SC2034 # the table uses it
probe=$((k < 10 ? k : 10))	# the kernel's probes, or ours if earlier

# What issue and man page promise: seconds, from the moment when the fault can
# be overcome, until a new connection is served again at the address that is
# known outside.  0: no connection is refused at all.
#
# ends   the sessions (tb, tf: TCP, uf: UDP) that the fault itself may end
# tells  may a mapping be told?  A call for nothing is a fault
# self   the restarted natmap's only; in restart_* it alone may have a gap
#
# route ends no session: the NAT knows those that are open, the kernel sends
# what is due once there is a route, and a cut can only be natmap's.
#
# kind         TCP      UDP    ends      tells  what happens
ROWS='
stopped        k+3      k+3    tb_tf_uf  no     all four were stopped at first
move           probe+2  k+3    tb_tf     yes    another public port, flows lost
silent         k+5      k+3    tb_tf     yes    the same, old packets dropped
inbound        c*k+3    2*k+3  -         yes    the same, flows live on
address        probe+2  k+3    tb_tf     yes    another public address
http_each      0        0      -         no     closes after each answer
http_three     0        0      -         no     closes after three answers
http_dead      0        0      -         no     nobody listens
http_mute      0        0      -         no     no answers
stun_dead      0        0      -         no     one STUN host is gone
stun_refuse    0        0      -         no     one STUN server has ended
stun_mute      0        0      -         no     one STUN server is mute
all_dead       5        5      -         no     all servers and DNS are mute
iface          3        3      tb_tf_uf  yes    down, up with another address
recreate       3        3      tb_tf_uf  yes    deleted, made anew with another
route          3        3      -         no     default route gone and back
absent         3        3      self      self   started without a route
loss           5        5      -         no     20 % of all packets
restart_term   3        3      self      self   ended by TERM, started again
restart_kill   3        3      self      self   ended by KILL, started again
'

declare -A DEV=([tb]='' [ub]=1 [tf]=1 [uf]='')
host=$HOST last_byte=30 base=40000 inner=15000
BEGIN=$(now)

# ---- the log of events ---------------------------------------------------

# mark WORD ...: an event's start, ready (it can be overcome now), or end
mark() {
	local t
	t=$(now)
	echo "$t $*" >> "$D/events"
	[ "$1" = end ] || echo "# +$(((t - BEGIN) / 1000)).$(((t - BEGIN) \
	    / 100 % 10)) s $*"
}

trouble() {
	echo "+$((($(now) - BEGIN) / 1000)) s $*" | tee -a "$D/trouble"
}

# pick N: R is a random number below N, of the seed
pick() {
	R=$((RANDOM % $1))
}

# ---- the lab -------------------------------------------------------------

# The NATs with the maps of now; arguments are options of the outer one's nat
nats() {
	local i maps='' maps1='' lan=5000
	for i in 0 1 2 3; do
		maps1="$maps1 $((5000 + i)):$((inner + i))"
		[ "$NAT" = single ] || lan=$inner
		maps="$maps $((lan + i)):$((base + i))"
	done
	# shellcheck disable=SC2086
	if [ "$NAT" = single ]; then
		nat r2 learn "host=$host" timeout=$forget "$@" $maps
	else
		nat r1 learn "host=$host" timeout=$forget $maps1
		nat r2 learn host=100.64.0.2 timeout=$forget "$@" $maps
	fi
}

# each time other public ports
next_ports() {
	base=$((base + 10))
}

# h1 gets an address that the NATs have never seen, and other ports with it
next_host() {
	last_byte=$((last_byte < 250 ? last_byte + 1 : 30))
	host=192.168.1.$last_byte
	inner=$((inner + 10))
	next_ports
}

# nginx with these directives, or nothing when there is none
web() {
	[ -z "${PID[www]:-}" ] || stop www
	[ $# = 0 ] || www www "$@"
}

lab() {
	local r
	lab_up
	nats
	# what conntrack remembers is scaled as -k is
	for r in r1 r2; do
		ct $r udp_timeout=$forget udp_timeout_stream=$forget \
		    tcp_timeout_close=1 tcp_timeout_time_wait=12
	done
	# an address may go without taking the others along
	at inet sysctl -qw net.ipv4.conf.br0.promote_secondaries=1
	coturn turn1 $S1 -S
	coturn turn2 $S2
	py inet dns dns $DNS s1.test=$S1 s2.test=$S2 www.test=$WWW
	py inet web2 http good $WWW 8080
	web "keepalive_timeout 75s"
	soak_py h1 svc_tb serve 0.0.0.0 tcp 5000
	soak_py h1 svc_ub serve 0.0.0.0 udp 5001
	soak_py h2 svc_tf serve 0.0.0.0 tcp 7002
	soak_py h2 svc_uf serve 0.0.0.0 udp 7003
}

# soak_py NS NAME VERB ARGS ...
soak_py() {
	bg "$1" "$2" "$PY" "$SOAK_PY" "${@:3}"
	soon 10 "$2 did not start" grep -q ready "$D/$2.log"
}

# ---- the four natmaps ----------------------------------------------------

# start NAME: what it tells is appended to NAME.map
start() {
	local n=$1 args
	case $n in
	tb) args="-s s1.test,s2.test -h www.test -b 5000 -c $c" ;;
	ub) args="-u -s $S1,$S2 -b 5001" ;;
	tf) args="-s $S2,$S1 -h $WWW,$WWW:8080 -b 5002 -c $c
	    -t 192.168.1.20 -p 7002 -T $idle" ;;
	uf) args="-u -s s1.test,s2.test -b 5003
	    -t 192.168.1.20 -p 7003 -T $idle" ;;
	esac
	case $n in
	tb|uf) args="$args -e $D/tell_$n" ;;
	esac
	args="$args -v -k $k ${DEV[$n]:+-i eth0}"
	printf '== +%d s: %s\n' $((($(now) - BEGIN) / 1000)) \
	    "${args//$'\n\t'/}" >> "$D/$n.err"
	# shellcheck disable=SC2086
	ip netns exec "$L-h1" $NATMAP_WRAP "$NATMAP" $args \
	    >> "$D/$n.map" 2> >(stamp >> "$D/$n.err") < /dev/null &
	PID[$n]=$!
	echo "${PID[$n]}" > "$D/$n.pid"
}

# puts the soak's time before each line
stamp() {
	local line t
	while IFS= read -r line; do
		t=$((${EPOCHREALTIME/./} / 1000 - BEGIN))
		printf '+%d.%03d %s\n' $((t / 1000)) $((t % 1000)) "$line"
	done
}

# again NAME SIGNAL: ends it, starts it with -i or without
again() {
	stop "$1" "$2"
	if [ -n "${DEV[$1]}" ]; then
		DEV[$1]=
	else
		DEV[$1]=1
	fi
	start "$1"
}

start_all() {
	local n
	for n in $NAMES; do
		printf '#!/bin/sh\necho "$*" >> %s/%s.map\n' "$D" "$n" \
		    > "$D/tell_$n"
		chmod +x "$D/tell_$n"
		: > "$D/$n.map"
		start "$n"
	done
}

# none may have ended by itself
check_alive() {
	local n status
	for n in $NAMES; do
		kill -0 "${PID[$n]}" 2> /dev/null && continue
		status=0
		wait "${PID[$n]}" || status=$?
		trouble "$n ended with status $status"
		start "$n"
	done
}

# answered TIME NAME ...: each had a probe answered that was sent after TIME
answered() {
	local t=$1
	shift
	tail -n 200 "$D/probes" | awk -v t="$t" -v names="$*" '
	    $3 == "ok" && $1 > t { seen[$2] = 1 }
	    END { n = split(names, a); for (i = 1; i <= n; i++)
		if (!(a[i] in seen)) exit 1 }'
}

# ---- the faults: each marks when it can be overcome ----------------------

# a fault lasts longer than the NATs remember
last() {
	pick 10
	sleep $((2 * forget + R))
}

f_move() {
	ct r2 tcp_loose=1
	next_ports
	nats
	forget r2
	mark ready
}

f_silent() {
	next_ports
	nats strict
	forget r2
	mark ready
}

f_inbound() {
	next_ports
	nats
	mark ready
}

f_address() {
	local to=198.51.100.11
	ct r2 tcp_loose=1
	[ "${PUB[r2]}" = $PUBLIC ] || to=$PUBLIC
	next_ports
	public $to
	route r2 192.168.1.0/24 via 100.64.0.2
	nats
	forget r2
	mark ready
}

f_http_each() {
	web "keepalive_timeout 0"
	last
	web "keepalive_timeout 75s"
}

f_http_three() {
	pick 2
	if [ $R = 0 ]; then
		web "keepalive_requests 3"
		last
	else
		web
		py inet www http closes $WWW 80 3
		last
	fi
	web "keepalive_timeout 75s"
}

f_http_dead() {
	web
	last
	web "keepalive_timeout 75s"
}

f_http_mute() {
	mute $WWW
	last
	mute
}

# its host is gone: r2 passes the packets on, nobody has the address
f_stun_dead() {
	ip -n "$L-inet" addr del "$which/24" dev br0
	ip -n "$L-r2" neigh flush to "$which"
	last
	ip -n "$L-inet" addr add "$which/24" dev br0
}

f_stun_refuse() {
	stop "$turn"
	last
	if [ "$turn" = turn1 ]; then
		coturn turn1 $S1 -S
	else
		coturn turn2 $S2
	fi
}

f_stun_mute() {
	mute "$which"
	last
	mute
}

f_all_dead() {
	mute $S1 $S2 $WWW $DNS
	last
	last
	mute
	mark ready
}

f_iface() {
	ip -n "$L-h1" link set eth0 down
	new_address
}

f_recreate() {
	ip -n "$L-h1" link del eth0
	sleep 1
	link h1 eth0 r1 h1
	ip -n "$L-r1" link set h1 master lan
	ip -n "$L-h1" link set eth0 down
	new_address
}

# the interface is down
new_address() {
	pick 4
	sleep $R
	ip -n "$L-h1" addr flush dev eth0
	next_host
	nats
	addr h1 eth0 "$host/24"
	ip -n "$L-h1" link set eth0 up
	route h1 default via 192.168.1.1
	mark ready
}

f_route() {
	ip -n "$L-h1" route del default
	last
	route h1 default via 192.168.1.1
	mark ready
}

# the others lose the route too
f_absent() {
	stop "$who" TERM
	ip -n "$L-h1" route del default
	start "$who"
	sleep 3
	route h1 default via 192.168.1.1
	mark ready
}

f_loss() {
	loss r2 20
	last
	last
	loss r2 0
}

f_restart_term() {
	again "$who" TERM
	mark ready
}

f_restart_kill() {
	again "$who" KILL
	mark ready
}

# draws what a fault needs, so that its start says it
details() {
	pick 2
	turn=turn$((R + 1)) which=$S1
	[ $R = 0 ] || which=$S2
	pick 4
	# shellcheck disable=SC2086
	set -- $1 $NAMES
	who=$2
	shift $((R + 1))
	who=$1
}

# come_back KIND: until all four answer; those that do not are started again
come_back() {
	local n t
	t=$(now)
	# shellcheck disable=SC2086
	wait_for 60 answered "$t" $NAMES && return
	mark forced
	for n in $NAMES; do
		answered "$t" "$n" && continue
		trouble "$1: $n did not answer for 60 s, started again"
		again "$n" KILL
	done
	# shellcheck disable=SC2086
	wait_for 30 answered "$(now)" $NAMES || :
}

# fault KIND: all of it, until all four answer again and a little longer
fault() {
	details "$1"
	case $1 in
	stun_*) mark start "$1" "$which" ;;
	restart_* | absent) mark start "$1" "$who" ;;
	*) mark start "$1" ;;
	esac
	"f_$1"
	come_back "$1"
	# the next fault would find flows that the NATs know as before, and
	# which of two servers is right nobody can tell who starts then
	[ "$1" != inbound ] || sleep $((4 * k))
	pick 3
	sleep $((2 + R))
	check_alive
	mark end
}

# ---- the run -------------------------------------------------------------

kinds() {
	echo "$ROWS" | awk -v only=" ${SOAK_ONLY:-} " '
	    NF && $1 != "stopped" &&
	    (only == "  " || index(only, " " $1 " ")) { print $1 }'
}

# the table in ms for the report
write_rows() {
	local kind tcp udp ends tells
	while read -r kind tcp udp ends tells _; do
		[ -z "$kind" ] || echo "$kind $((tcp * 1000))" \
		    "$((udp * 1000)) $tells ${ends//_/ }"
	done <<< "$ROWS" > "$D/rows.all"
	{ echo stopped; kinds; } | while read -r kind; do
		grep "^$kind " "$D/rows.all"
	done > "$D/rows"
}

# DECK is a permutation of its arguments
shuffle() {
	local i x
	DECK=("$@")
	for ((i = $# - 1; i > 0; i--)); do
		pick $((i + 1))
		x=${DECK[i]}
		DECK[i]=${DECK[R]}
		DECK[R]=$x
	done
}

# lost TIME NAME: how many probes were, of those sent after TIME
lost() {
	awk -v t="$1" -v n="$2" '$2 == n && $3 == "lost" && $1 > t { lost++ }
	    END { print lost + 0 }' "$D/probes"
}

# The test can fail: without natmap's packets the NAT forgets its ports.  (In
# TCP the kernel's own probes still reopen them now and then, every 10 s.)
self_test() {
	local n t
	# shellcheck disable=SC2086
	soon 20 "not all four were mapped" answered 0 $NAMES
	mark start stopped
	for n in $NAMES; do
		kill -STOP "${PID[$n]}"
	done
	sleep $forget
	t=$(now)
	sleep 11
	for n in $NAMES; do
		[ "$(lost "$t" "$n")" -ge 2 ] ||
		    fail "$n is reached while natmap is stopped"
	done
	for n in $NAMES; do
		kill -CONT "${PID[$n]}"
	done
	mark ready
	# shellcheck disable=SC2086
	soon 20 "not all came back after SIGSTOP" answered "$(now)" $NAMES
	sleep 2
	mark end
}

soak() {
	local end i
	D=$(mktemp -d "${TMPDIR:-/tmp}/natmap-soak.XXXXXX")
	trap soak_end EXIT
	trap 'exit 124' TERM INT HUP
	RANDOM=$SOAK_SEED
	pick 2
	NAT=${SOAK_NAT:-$([ $R = 0 ] && echo single || echo double)}
	echo "# SOAK_SEED=$SOAK_SEED SOAK_SECONDS=$SOAK_SECONDS, $NAT NAT"
	echo "$BEGIN" > "$D/begin"
	: > "$D/events"
	: > "$D/trouble"
	write_rows
	lab
	start_all
	soak_py out watch watch "$D" $OUT "$SOAK_SEED"
	self_test
	end=$(($(now) + SOAK_SECONDS * 1000))
	# shellcheck disable=SC2046
	while [ "$(now)" -lt "$end" ]; do
		shuffle $(kinds)
		for i in "${DECK[@]}"; do
			fault "$i"
			[ "$(now)" -lt "$end" ] || break
		done
	done
	stop watch TERM
	"$PY" "$SOAK_PY" report "$D"
}

soak_end() {
	local status=$?
	trap - EXIT
	trap '' TERM INT HUP
	if [ $status != 0 ]; then
		SOAK_LOGS=${SOAK_LOGS:-$(mktemp -d \
		    "${TMPDIR:-/tmp}/natmap-soak-logs.XXXXXX")}
		echo "# the logs are in $SOAK_LOGS"
	fi
	if [ -n "${SOAK_LOGS:-}" ]; then
		mkdir -p "$SOAK_LOGS"
		rm -f "$D"/key "$D"/hostkey
		cp -r "$D"/* "$SOAK_LOGS"
	fi
	lab_down
	exit $status
}

soak
