#!/bin/sh
# shellcheck disable=SC2317	# both() calls remove and jump
# natmap's script: dnat-nft.sh for routers that have iptables.  What it does,
# what it takes besides and why it does not hit natmap's own flows is said
# there; the use is the same:
#
#	DNAT_TO=192.168.1.20 DNAT_PORT=22 natmap -b 40000 -e dnat-iptables.sh
#	dnat-iptables.sh remove
to=${DNAT_TO:-}			# address of the target, or self
port=${DNAT_PORT:-}		# its port; empty: the local port, BINDPORT
chain=natmap_${DNAT_NAME:-dnat}	# at most 22 characters

fail() {
	echo "dnat-iptables.sh: $*" >&2
	exit 2
}

# the device of the private address
device() {
	ip -o address | while read -r _ name _ addr _; do
		[ "${addr%%/*}" != "$private" ] || echo "${name%%@*}"
	done | head -n 1
}

# COMMAND: for both chains, as COMMAND IPTABLES HOOK CHAIN
both() {
	"$1" "$tables" PREROUTING "${chain}_$proto" &&
	    "$1" "$tables" POSTROUTING "${chain}_${proto}_b"
}

remove() {
	while "$1" -w -t nat -D "$2" -j "$3"; do
		:
	done
	"$1" -w -t nat -F "$3"
	"$1" -w -t nat -X "$3"
	return 0
} 2>/dev/null

jump() {
	"$1" -w -t nat -C "$2" -j "$3" 2>/dev/null ||
	    "$1" -w -t nat -I "$2" -j "$3"
}

# FROM TO: naming a chain empties it, all in one transaction
replace() {
	"$tables-restore" -w --noflush <<-END && both jump
	*nat
	:${chain}_$proto - [0:0]
	:${chain}_${proto}_b - [0:0]
	-A ${chain}_$proto -d $private -p $proto --dport $bind \
		-j DNAT --to-destination $2:$port
	-A ${chain}_${proto}_b -o $dev -s $to -p $proto --sport $port \
		-j SNAT --to-source $1:$bind
	COMMIT
	END
}

if [ "$1" = remove ]; then
	for tables in iptables ip6tables; do
		for proto in tcp udp; do
			both remove
		done
	done
	exit 0
fi
[ $# = 6 ] || fail "usage: dnat-iptables.sh PUBADDR PUBPORT IP4P BINDPORT" \
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
*:*)	tables=ip6tables && replace "[$private]" "[$to]" ;;
*)	tables=iptables && replace "$private" "$to" ;;
esac || exit 2

# dnat-nft.sh tells why.
if command -v conntrack >/dev/null; then
	conntrack -D -p "$proto" -d "$private" --dport "$bind" \
	    -r "$private" --reply-port-src "$bind"
	conntrack -D -p "$proto" -s "$to" --sport "$port"
fi >/dev/null 2>&1
exit 0
