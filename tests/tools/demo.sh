#!/bin/bash
# SPDX-License-Identifier: MIT
# A demonstration without Internet: a host behind a NAT, a STUN server, a
# client outside, all in network namespaces of this machine.
. "$(dirname "$0")/../lab.sh"

missing() {
	echo "The demonstration needs $1."
	exit 1
}

tool() {
	command -v "$1" > /dev/null || [ -x "$1" ] ||
	    missing "\"$1\" (on Debian: apt-get install $2)"
}

[ "$(uname)" = Linux ] || missing "Linux with its network namespaces"
[ "$(id -u)" = 0 ] || missing "root: it makes network namespaces and a NAT"
[ -x "$NATMAP" ] || missing "natmap: run make first"
tool ip iproute2
tool nft nftables
tool "$PY" python3

set -eu
D=$(mktemp -d "${TMPDIR:-/tmp}/natmap.XXXXXX")
trap 'status=$?; set +e; trap - EXIT; lab_down; exit $status' EXIT
trap 'exit 1' INT TERM

cat << EOF
A host 192.168.1.10 sits behind two NATs, like a home router and the one of
its provider.  Outside are a STUN server, 198.51.100.2, and a client,
198.51.100.100.  On the host a small server waits on port 5000, TCP and UDP;
it answers each client with the address it sees.

  host 192.168.1.10 -- NAT 100.64.0.2 -- NAT 198.51.100.10 -- client

EOF
lab_up
nat r1 cone 5000:15000
nat r2 cone host=100.64.0.2 host6=2001:db8:2::2 15000:40000
if command -v turnserver > /dev/null; then
	coturn turn $S1
else
	py inet turn stun good $S1 3478
fi
py h1 tcp whoami tcp 0.0.0.0 5000
py h1 udp whoami udp 0.0.0.0 5000

for kind in tcp udp; do
	opt=
	[ $kind = tcp ] || opt=' -u'
	echo "host\$ natmap$opt -s $S1 -b 5000"
	# shellcheck disable=SC2086
	nm $kind.map $opt -s $S1 -b 5000
	mapped $kind.map 1
	echo "  $LINE"
	# shellcheck disable=SC2086
	set -- $LINE
	echo "client\$ ask the server at $1, $kind port $2"
	echo "  \"your address is $(net out ask $kind "$1" "$2")\""
done

cat << EOF

natmap printed: public address, public port, both as IP4P, local port,
protocol, private address.  The client outside reached the server inside at
that public address and port, and the server saw the client's own address:
natmap is not in the way of the traffic, it only keeps the port open.
EOF
