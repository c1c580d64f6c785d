#!/bin/sh
# natmap's script: dnat-nft.sh for routers that have iptables.  What it does,
# what it takes besides and why it does not hit natmap's own flows is said
# there; the use is the same:
#
#	DNAT_TO=192.168.1.20 DNAT_PORT=22 natmap -b 40000 -e dnat-iptables.sh
#	dnat-iptables.sh remove
to=${DNAT_TO:-}			# address of the target, of natmap's family
port=${DNAT_PORT:-}		# its port; empty: the local port, BINDPORT
chain=natmap_${DNAT_NAME:-dnat}	# at most 24 characters

fail() {
	echo "dnat-iptables.sh: $*" >&2
	exit 1
}

# IPTABLES CHAIN
remove() {
	while "$1" -w -t nat -D PREROUTING -j "$2"; do
		:
	done
	"$1" -w -t nat -F "$2"
	"$1" -w -t nat -X "$2"
} 2>/dev/null

# IPTABLES CHAIN TARGET: naming a chain empties it, all in one transaction
replace() {
	"$1-restore" -w --noflush <<-END || return
	*nat
	:$2 - [0:0]
	-A $2 -d $private -p $proto --dport $bind -j DNAT --to-destination $3
	COMMIT
	END
	"$1" -w -t nat -C PREROUTING -j "$2" 2>/dev/null ||
	    "$1" -w -t nat -I PREROUTING -j "$2"
}

if [ "$1" = remove ]; then
	for proto in tcp udp; do
		remove iptables "${chain}_$proto"
		remove ip6tables "${chain}_$proto"
	done
	exit 0
fi
[ $# = 6 ] || fail "usage: dnat-iptables.sh PUBADDR PUBPORT IP4P BINDPORT" \
    "tcp|udp PRIVADDR, or remove"
[ -n "$to" ] || fail "no target: set DNAT_TO"

bind=$4 proto=$5 private=${6%%%*} chain=${chain}_$5
case "$private $to" in
*:*" "*:*)	replace ip6tables "$chain" "[$to]:${port:-$bind}" ;;
*:*)		fail "$to and $private are not of one family" ;;
*)		replace iptables "$chain" "$to:${port:-$bind}" ;;
esac || exit

# dnat-nft.sh tells why.
if command -v conntrack >/dev/null; then
	conntrack -D -p "$proto" -d "$private" --dport "$bind" -r "$private"
fi >/dev/null 2>&1
exit 0
