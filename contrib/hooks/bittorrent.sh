#!/bin/sh
# natmap's script: makes a BitTorrent client listen on the public port, which is
# what trackers are told, and leads the mapped port there with a DNAT rule.
# Peers keep their addresses.  -b takes a port that the client does not use.
#
#	natmap -b 40000 -e bittorrent.sh
#	QBT_URL=http://127.0.0.1:8080 QBT_USER=admin QBT_PASS=secret natmap ...
#
# Transmission: transmission-remote; TR_AUTH=user:password where it is asked.
# qBittorrent: its web interface; no password where that trusts this host.
# The client on another host: DNAT_TO is its address, as in dnat-nft.sh, which
# tells what the firewall must allow, and must lie beside this file.
transmission=${TRANSMISSION:-localhost:9091}
url=${QBT_URL:-}

fail() {
	echo "bittorrent.sh: $*" >&2
	exit 2
}

# A command line can be read by all users: the password comes on stdin.
qbittorrent() {
	{
		[ -z "$QBT_USER" ] || cat <<-END
		cookie = ""
		url = "$url/api/v2/auth/login"
		data-urlencode = "username=$(quoted "$QBT_USER")"
		data-urlencode = "password=$(quoted "$QBT_PASS")"
		next
		END
		cat <<-END
		cookie = ""
		fail
		url = "$url/api/v2/app/setPreferences"
		data = json=%7B"random_port":false,"listen_port":$1%7D
		END
	} | curl -sS -m 20 -K - >/dev/null
}

quoted() {
	printf '%s\n' "$1" | sed 's/[\\"]/\\&/g'
}

[ $# = 6 ] || fail "is natmap's script"
if [ -n "$url" ]; then
	qbittorrent "$2"
else
	transmission-remote "$transmission" ${TR_AUTH:+-ne} -p "$2" >/dev/null
fi || fail "the client did not take port $2"

here=$(dirname "$0")
export DNAT_TO="${DNAT_TO:-self}" DNAT_PORT="$2"
! command -v nft >/dev/null || exec "$here/dnat-nft.sh" "$@"
exec "$here/dnat-iptables.sh" "$@"
