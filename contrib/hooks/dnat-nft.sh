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
to=${DNAT_TO:-}			# address of the target, of natmap's family
port=${DNAT_PORT:-}		# its port; empty: the local port, BINDPORT
table=natmap_${DNAT_NAME:-dnat}

# What it takes besides:
#  - This host forwards (net.ipv4.ip_forward, net.ipv6.conf.all.forwarding) and
#    is the target's way back to the Internet, as its gateway is.
#  - The firewall lets new connections through to the target and its port; the
#    forward chain sees them with the target's address, which does not change,
#    so one rule is enough for good (OpenWrt: a traffic rule from wan to lan,
#    to that address and port).
#
# The rule matches what comes in for PRIVADDR and BINDPORT, which is where the
# NAT in front delivers what it got for the public address.  natmap's own flows
# leave from the same port, yet their answers are not hit: nat chains see only
# the first packet of a connection, these belong to connections that this host
# began, and conntrack knows them as long as natmap keeps them alive.

fail() {
	echo "dnat-nft.sh: $*" >&2
	exit 1
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

# FAMILY ADDRESS TARGET: replaces the chain of this protocol in one transaction
replace() {
	nft -f - <<-END
	add table $1 $table
	add chain $1 $table map_$proto {
		type nat hook prerouting priority -110; policy accept;
	}
	flush chain $1 $table map_$proto
	add rule $1 $table map_$proto $1 daddr $2 $proto dport $bind dnat to $3
	END
}

if [ "$1" = remove ]; then
	remove
	exit
fi
[ $# = 6 ] || fail "usage: dnat-nft.sh PUBADDR PUBPORT IP4P BINDPORT" \
    "tcp|udp PRIVADDR, or remove"
[ -n "$to" ] || fail "no target: set DNAT_TO"

bind=$4 proto=$5 private=${6%%%*}
case "$private $to" in
*:*" "*:*)	replace ip6 "$private" "[$to]:${port:-$bind}" ;;
*:*)		fail "$to and $private are not of one family" ;;
*)		replace ip "$private" "$to:${port:-$bind}" ;;
esac || exit

# A client that was turned away before the rule was there and tries on from the
# same port belongs to a known connection, which the rule does not see.
if command -v conntrack >/dev/null; then
	conntrack -D -p "$proto" -d "$private" --dport "$bind" -r "$private"
fi >/dev/null 2>&1
exit 0
