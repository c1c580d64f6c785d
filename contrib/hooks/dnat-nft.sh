#!/bin/sh
# natmap's script: hands the mapped port to another host with an nftables DNAT
# rule, so that the kernel forwards what natmap would have to relay: the source
# address is kept, there is no idle timeout but conntrack's, and no copying.
#
#	DNAT_TO=192.168.1.20 DNAT_PORT=22 natmap -b 40000 -e dnat-nft.sh
#	dnat-nft.sh remove
#
# natmap runs in bind mode (no -t), calls this at each change, and does not
# call it when it ends: "remove" is for ExecStopPost= or the init script.
#
# Where the environment cannot be set (OpenWrt's notify_script), copy this file
# and write the values here.  Two instances for one protocol need two names (of
# letters, digits and _).
to=${DNAT_TO:-}			# address of the target, of natmap's family;
				# self: this host, but not 127.0.0.1
port=${DNAT_PORT:-}		# its port; empty: the local port, BINDPORT
table=natmap_${DNAT_NAME:-dnat}

# What it takes besides:
#  - This host forwards (net.ipv4.ip_forward, net.ipv6.conf.all.forwarding) and
#    is the target's way back to the Internet, as its gateway is.
#  - The firewall lets new connections through to the target and its port; the
#    forward chain sees them with the target's address, which does not change,
#    so one rule is enough for good (OpenWrt: a traffic rule from wan to lan,
#    to that address and port).
#  - For DNAT_TO=self nothing is forwarded; the input chain needs
#    "ct status dnat accept".
#
# The rule matches what comes in for PRIVADDR and BINDPORT, which is where the
# NAT in front delivers what it got for the public address.  natmap's own flows
# leave from the same port, yet their answers are not hit: nat chains see only
# the first packet of a connection, these belong to connections that this host
# began, and conntrack knows them as long as natmap keeps them alive.
#
# The second rule gives the target's own packets the same way out.  A UDP target
# that speaks first (WireGuard, when conntrack has forgotten the client) would
# else leave from another public port, and its client would follow it there.

fail() {
	echo "dnat-nft.sh: $*" >&2
	exit 2
}

# the device of the private address
device() {
	ip -o address | while read -r _ name _ addr _; do
		[ "${addr%%/*}" != "$private" ] || echo "${name%%@*}"
	done | head -n 1
}

# deletes the tables, there or not, in one transaction
remove() {
	nft -f - <<-END
	add table ip $table
	delete table ip $table
	add table ip6 $table
	delete table ip6 $table
	END
}

# FAMILY FROM TO: quoted as nft wants them; replaces the chains of this protocol
# in one transaction
replace() {
	nft -f - <<-END
	add table $1 $table
	add chain $1 $table map_$proto {
		type nat hook prerouting priority -110; policy accept;
	}
	add chain $1 $table back_$proto {
		type nat hook postrouting priority 90; policy accept;
	}
	flush chain $1 $table map_$proto
	flush chain $1 $table back_$proto
	add rule $1 $table map_$proto $1 daddr $private $proto dport $bind \
		dnat to $3:$port
	add rule $1 $table back_$proto oifname "$dev" \
		$1 saddr $to $proto sport $port snat to $2:$bind
	END
}

if [ "$1" = remove ]; then
	remove
	exit
fi
[ $# = 6 ] || fail "usage: dnat-nft.sh PUBADDR PUBPORT IP4P BINDPORT" \
    "tcp|udp PRIVADDR, or remove"
[ -n "$to" ] || fail "no target: set DNAT_TO"

bind=$4 proto=$5 private=${6%%%*} port=${port:-$4}
[ "$to" != self ] || to=$private
case "$private $to" in
*:*" "*:*)	;;
*:*)		fail "$to and $private are not of one family" ;;
esac
dev=$(device)
[ -n "$dev" ] || fail "no device has $private"
case $private in
*:*)	replace ip6 "[$private]" "[$to]" ;;
*)	replace ip "$private" "$to" ;;
esac || exit 2

# Flows that conntrack knows do not see new rules: those of a client that was
# turned away before and tries on from the same port, and the target's own.
if command -v conntrack >/dev/null; then
	conntrack -D -p "$proto" -d "$private" --dport "$bind" \
	    -r "$private" --reply-port-src "$bind"
	conntrack -D -p "$proto" -s "$to" --sport "$port"
fi >/dev/null 2>&1
exit 0
