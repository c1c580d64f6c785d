#!/bin/sh
# natmap's script, for a host behind a home router: has the router let the
# mapped port in (UPnP; upnpc of miniupnpc), and renews that while natmap lives.
#
#	natmap -b 40000 -e upnp.sh
#	upnp.sh 40000 tcp		# by hand, before natmap starts
#
# The router's port is natmap's: take -b with a port that nobody else in the
# house uses.  Behind carrier-grade NAT the router has no public address:
# miniupnpd then refuses, unless its configuration has ext_perform_stun=yes, or
# ext_ip= with some public address.
lease=${UPNP_LEASE:-3600}	# seconds
next=${UPNP_NEXT:-}		# another script to run with the same arguments
run=${RUNTIME_DIRECTORY:-/run/natmap}

fail() {
	echo "upnp.sh: $*" >&2
	exit 2
}

case $# in
2)	port=$1 proto=$2 address=@ ;;
6)	port=$4 proto=$5 address=$6 ;;
*)	fail "is natmap's script, or takes PORT tcp|udp" ;;
esac
case $address in
*:*)	fail "IPv4 only" ;;
@)	on= ;;
*)	on=$address ;;
esac

forward() {
	upnpc ${on:+-m "$on"} -e natmap \
	    -a "$address" "$port" "$port" "$proto" "$lease"
}

# The newest run for a port renews.  A router that is restarted forgets and may
# be away for a while: a failure is no end here.
renew() {
	while sleep $((lease / 3)) && kill -0 "$PPID" &&
	    [ "$(cat "$file")" = $$ ]; do
		forward
	done
}

said=$(forward 2>&1) || fail "port $port/$proto: $(printf '%s\n' "$said" |
    grep -E 'No |not |fail' | tail -n 1)"
[ $# = 6 ] || exit 0

file=$run/upnp-$port-$proto
{ mkdir -p "$run" && echo $$ >"$file"; } || exit 2
renew </dev/null >/dev/null 2>&1 &
[ -z "$next" ] || exec "$next" "$@"
