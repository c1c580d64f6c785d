#!/bin/sh
# shellcheck disable=SC2317	# check() calls the functions
# The hooks of contrib/hooks against a real firewall, called by busybox ash as
# natmap would call them.  Three namespaces:
#
#	client 198.51.100.100 --- 198.51.100.1 router 192.168.77.1 --- target
#	                                               192.168.77.20
#
# with 2001:db8:f:: outside and 2001:db8:1:: inside.  The router forwards to
# the target's one port, drops what else it is to forward, and masquerades.

if [ "$1" = --list ]; then
	echo all 400
	exit
fi
cd "$(dirname "$0")/.." || exit
hooks=$PWD/contrib/hooks
natmap=${NATMAP:-$PWD/natmap}
idle=${IDLE:-3}		# seconds, of a session
p=nmh$$			# of all names
c=$p-c r=$p-r t=$p-t
dir=$(mktemp -d)
pids=
. tests/check.sh

cleanup() {
	for ns in "$c" "$r" "$t"; do
		for pid in $pids $(ip netns pids "$ns" 2>/dev/null); do
			kill "$pid" 2>/dev/null
		done
		ip netns del "$ns" 2>/dev/null
	done
	rm -rf "$dir"
}

not() {
	! "$@"
}

on() {
	where=$1
	shift
	ip netns exec "$where" "$@"
}

# NAMESPACE COMMAND...: in the background, until the end
serve() {
	ip netns exec "$@" 2>/dev/null &
	pids="$pids $!"
}

link() {
	ip link add "$2" netns "$1" type veth peer name "$4" netns "$3"
	on "$1" ip link set "$2" up
	on "$3" ip link set "$4" up
}

address() {
	on "$1" ip address add "$3" dev "$2"
	on "$1" ip -6 address add "$4" dev "$2" nodad
}

topology() {
	for ns in "$c" "$r" "$t"; do
		ip netns add "$ns" || return
		on "$ns" ip link set lo up
	done
	link "$c" eth0 "$r" wan
	link "$r" lan "$t" eth0
	address "$c" eth0 198.51.100.100/24 2001:db8:f::100/64
	address "$r" wan 198.51.100.1/24 2001:db8:f::1/64
	address "$r" lan 192.168.77.1/24 2001:db8:1::1/64
	address "$t" eth0 192.168.77.20/24 2001:db8:1::20/64
	on "$t" ip route add default via 192.168.77.1
	on "$t" ip -6 route add default via 2001:db8:1::1
	on "$r" sysctl -qw net.ipv4.ip_forward=1 \
	    net.ipv6.conf.all.forwarding=1
	on "$r" nft -f - <<-END
	table inet filter {
		chain forward {
			type filter hook forward priority 0; policy drop;
			ct state established,related accept
			iifname lan accept
			ip daddr 192.168.77.20 th dport 22 accept
			ip6 daddr 2001:db8:1::20 th dport 22 accept
		}
	}
	table inet outward {
		chain postrouting {
			type nat hook postrouting priority 100;
			oifname wan masquerade
		}
	}
	END
}

# Every line is answered with the address that it came from, "port" with the
# port alone.
servers() {
	cat >"$dir/answer" <<-\END
	#!/bin/sh
	while read -r line; do
		case $line in
		port) echo "$SOCAT_PEERPORT" ;;
		*) echo "$SOCAT_PEERADDR $line" ;;
		esac
	done
	END
	chmod +x "$dir/answer"
	for ns in "$t:22" "$c:3478" "$r:22"; do
		for v in 4 6,ipv6only=1; do
			o=${ns#*:},fork,reuseaddr,pf=ip$v
			serve "${ns%:*}" socat -t9 "TCP-LISTEN:$o" \
			    "EXEC:$dir/answer"
			serve "${ns%:*}" socat "UDP-RECVFROM:$o" \
			    "EXEC:$dir/answer"
		done
	done
	# a relay that cuts what is idle for a second
	serve "$r" socat -T1 TCP4-LISTEN:50000,fork,reuseaddr \
	    TCP4:192.168.77.20:22
	tries=50
	while [ "$(listening)" -lt 13 ] && [ $((tries -= 1)) -gt 0 ]; do
		sleep 0.1
	done
	[ "$tries" -gt 0 ]
}

listening() {
	for ns in "$c" "$r" "$t"; do
		on "$ns" ss -Hlntu
	done | wc -l
}

# NAMESPACE ADDRESS OPTIONS: the answer to a line, by that protocol
ask() {
	echo hi | on "$1" timeout 5 socat -t0.5 - \
	    "$proto:$2,${3:-reuseaddr}" 2>/dev/null
}

# PORT: the client reaches the target, which sees the client's address
reached() {
	[ "$(ask "$c" "$outer:$1" "$2")" = "$seen hi" ]
}

# PORT: from the router's own side of the mapped port
own_flow() {
	[ "$(ask "$r" "$server:3478" "bind=$outer:$1,reuseaddr")" = \
	    "$self hi" ]
}

# PORT: what the target sends on its own leaves from there, although conntrack
# has seen it leave from elsewhere before
speaks_first() {
	on "$r" conntrack -F 2>/dev/null
	hook remove
	not target_port_is "$1" && announce "$1" && target_port_is "$1"
}

target_port_is() {
	[ "$(echo port | on "$t" timeout 5 socat -t0.5 - \
	    "udp:$server:3478,sp=22,reuseaddr")" = "$1" ]
}

hook() {
	on "$r" env DNAT_TO="$to" DNAT_PORT=22 \
	    busybox ash "$hooks/$tool" "$@"
}

# BINDPORT: what natmap would call for the case at hand
announce() {
	hook 203.0.113.7 40001 "$ip4p" "$1" "$proto" "$private"
}

family4() {
	v=4 private=198.51.100.1 outer=$private to=192.168.77.20
	ip4p=2001::9c41:cb00:7107
	server=198.51.100.100 seen=198.51.100.100 self=198.51.100.1
}

family6() {
	v=6 private=2001:db8:f::1 outer="[$private]" to=2001:db8:1::20 ip4p=
	server='[2001:db8:f::100]'
	seen='[2001:0db8:000f:0000:0000:0000:0000:0100]'
	self='[2001:0db8:000f:0000:0000:0000:0000:0001]'
}

rules() {
	case $tool in
	*nft*) on "$r" nft list ruleset ;;
	*) on "$r" iptables-save && on "$r" ip6tables-save ;;
	esac 2>/dev/null
}

# PORT: of this protocol and family
one_rule() {
	[ "$(rules | grep "$private" | grep "$proto" |
	    grep -ci "dport $1 .*dnat")" = 1 ]
}

# A client that was turned away keeps its source port, and with it conntrack's
# idea of where it goes.
case_of() {
	what="$tool $proto v$v"
	check "$what: unreachable without it" \
	    not reached 40000 "sp=6666,reuseaddr"
	check "$what: exit status" announce 40000
	check "$what: reached, source address kept" reached 40000
	check "$what: reached by a client turned away before" \
	    reached 40000 "sp=6666,reuseaddr"
	check "$what: natmap's own flows are not hit" own_flow 40000
	[ "$proto" = tcp ] || check \
	    "$what: the target speaks first, from the mapped port" \
	    speaks_first 40000
	announce 40000
	check "$what: called twice, one rule" one_rule 40000
	announce 40100
	check "$what: another port reached" reached 40100
	check "$what: the old one no longer" not reached 40000
	announce 40000
}

# PORT: two lines with idle time between them, under way in the background
session() {
	(echo one; sleep "$idle"; echo two; sleep 0.2) |
	    on "$c" socat -t1 - "TCP:$outer:$1" >"$dir/$1" 2>/dev/null &
}

both() {
	[ "$(cat "$dir/$1")" = "$seen one
$seen two" ]
}

first_only() {
	grep -q one "$dir/$1" && ! grep -q two "$dir/$1"
}

# Idle for longer than the relay allows; meanwhile the rule is replaced.
idle_session() {
	family4
	proto=tcp
	announce 40000
	session 40000
	first=$!
	session 50000
	second=$!
	sleep 1
	announce 40200
	wait "$first" "$second"
	check "$tool: idle session survives, and a change" both 40000
	check "$tool: a relay's time limit would have cut it" \
	    first_only 50000
}

removed() {
	rules | grep natmap && return 1
	family4
	proto=tcp
	not reached 40000 && not reached 40200
}

# MESSAGE ARGUMENTS: fails and says so
complains() {
	message=$1
	shift
	not hook "$@" 2>"$dir/err" && grep -q "$message" "$dir/err"
}

# The target is a service of this host, on another port.
to_self() {
	family4
	to=self
	for proto in tcp udp; do
		hook remove
		check "$tool $proto: DNAT_TO=self" announce 40000
		check "$tool $proto: self is reached" reached 40000
	done
	hook remove
	to=192.168.77.20
}

bad_calls() {
	family4
	check "$tool: arguments missing" complains usage 203.0.113.7 40001
	check "$tool: two families" complains family \
	    2001:db8::1 40001 "" 40000 tcp 2001:db8::1
	to=
	check "$tool: no target" complains DNAT_TO \
	    203.0.113.7 40001 "$ip4p" 40000 tcp 198.51.100.1
}

hook_tests() {
	tool=$1
	on "$r" conntrack -F 2>/dev/null
	for family in family4 family6; do
		$family
		for proto in tcp udp; do
			case_of
		done
	done
	idle_session
	to_self
	bad_calls
	family4
	check "$tool: remove" hook remove
	check "$tool: remove leaves nothing" removed
	check "$tool: remove again" hook remove
}

write_file() {
	ADDRESS_FILE=$dir/new/address busybox ash "$hooks/write-file.sh" \
	    203.0.113.7 "$1" 2001::9c41:cb00:7107 22 tcp 192.168.1.2 &&
	    [ "$(cat "$dir/new/address")" = "203.0.113.7 $1" ] &&
	    [ "$(ls "$dir/new")" = address ]
}

# COMMAND...: as a user with no more than the unit's drop-in gives
with_capabilities() {
	caps=-all,+$(sed -n 's/^AmbientCapabilities=CAP_//p' \
	    contrib/systemd/firewall.conf | tr '[:upper:]' '[:lower:]')
	on "$r" env DNAT_TO="$to" DNAT_PORT=22 setpriv --reuid=65534 \
	    --clear-groups --inh-caps="$caps" --ambient-caps="$caps" \
	    --bounding-set="$caps" --no-new-privs busybox ash "$@"
}

unprivileged() {
	family4
	proto=tcp
	tool=dnat-nft.sh
	# that user may not look into the tree, when it is root's
	cp "$hooks/$tool" "$dir" && chmod 711 "$dir" &&
	    with_capabilities "$dir/$tool" 203.0.113.7 40001 "$ip4p" 40000 \
	    tcp "$private" && reached 40000 &&
	    with_capabilities "$dir/$tool" remove && removed
}

# [OPTION]: natmap calls the hook, and its own exchanges go on beside the rule
mapped() {
	tool=dnat-nft.sh
	family4
	on "$r" env DNAT_TO="$to" DNAT_PORT=22 "$natmap" "$@" -k 1 -b 40000 \
	    -s 198.51.100.100:3479 -e "$hooks/$tool" 2>"$dir/log" &
	pid=$!
	tries=50
	until one_rule 40000 || [ $((tries -= 1)) -le 0 ]; do
		sleep 0.2
	done
	reached 40000
	bad=$?
	sleep 4
	kill "$pid" || bad=1
	wait "$pid"
	hook remove
	if [ "$bad" != 0 ] || grep -q "no answer" "$dir/log"; then
		sed 's/^/# /' "$dir/log"
		return 1
	fi
}

with_natmap() {
	serve "$c" turnserver -n -L 198.51.100.100 -p 3479 --no-tls --no-dtls \
	    --no-cli -m 1 -l stdout --pidfile "$dir/turn.pid" >/dev/null
	proto=tcp
	check "natmap calls dnat-nft.sh: TCP" mapped
	proto=udp
	check "natmap calls dnat-nft.sh: UDP" mapped -u
}

if [ "$(id -u)" != 0 ]; then
	echo "skip hooks: needs root"
	exit 0
fi
if ! grep -q '^\([^ ]* \)\{4\}/ ' /proc/self/mountinfo; then
	echo "skip hooks: this root is no mount point (see lab.sh)"
	exit 0
fi
trap cleanup EXIT
trap 'exit 1' HUP INT TERM
if ! topology || ! servers; then
	echo "not ok hooks: no topology"
	exit 1
fi
for tool in dnat-nft.sh dnat-iptables.sh; do
	hook_tests $tool
done
check "dnat-nft.sh with the capabilities of firewall.conf" unprivileged
check "write-file.sh" write_file 40001
check "write-file.sh: a change" write_file 40002
if [ -x "$natmap" ]; then
	with_natmap
else
	echo "skip natmap calls dnat-nft.sh: no $natmap"
fi
exit $failed
