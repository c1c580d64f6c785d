#!/bin/sh
# natmap's script: writes the public address and port into the DNS with a
# dynamic update (RFC 2136), all records in one message or none.
#
#	DNS_NAME=home.example.org DNS_SRV=_minecraft._tcp DNS_KEY=/etc/dns.key \
#	    natmap -b 25565 -e nsupdate.sh
#
# Give the records that are there a low TTL beforehand.  Only the types that
# are written are replaced: the address of natmap's family, SRV, HTTPS.
name=${DNS_NAME:-}	# gets an A or AAAA record
srv=${DNS_SRV:-}	# service and protocol: a SRV record below the name
https=${DNS_HTTPS:-}	# not empty: an HTTPS record, for browsers
server=${DNS_SERVER:-}	# and its port after a blank; empty: asks the DNS
zone=${DNS_ZONE:-}	# empty: asks the DNS
key=${DNS_KEY:-}	# file of the TSIG key, as tsig-keygen prints it
ttl=${DNS_TTL:-60}

if [ $# != 6 ] || [ -z "$name" ]; then
	echo "nsupdate.sh: is natmap's script, and takes DNS_NAME" >&2
	exit 2
fi
name=${name%.}.
case $1 in
*:*)	type=AAAA hint=ipv6hint ;;
*)	type=A hint=ipv4hint ;;
esac

# NAME TYPE DATA
replace() {
	echo "update delete $1 $2"
	echo "update add $1 $ttl $2 $3"
}

{
	[ -z "$server" ] || echo "server $server"
	[ -z "$zone" ] || echo "zone $zone"
	replace "$name" $type "$1"
	[ -z "$srv" ] || replace "$srv.$name" SRV "0 0 $2 $name"
	[ -z "$https" ] || replace "$name" HTTPS "1 . port=$2 $hint=$1"
	echo send
} | nsupdate -t 10 ${key:+-k "$key"} || exit 2
