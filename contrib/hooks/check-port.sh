#!/bin/sh
# natmap's script: asks a web service that connects back whether the new public
# port can be reached, and says so in the log.  The service gets the port after
# the URL and answers 1 or 0, or JSON with "reachable": true or false.
#
#	CHECK_URL=https://ifconfig.co/port natmap -b 22 -e check-port.sh
#
# Ends with 0 when the port is reached, with 1 when it is not, with 2 when that
# could not be found out; natmap asks again after each that is not 0.
url=${CHECK_URL:-}

say() {
	echo "check-port.sh: $1:$2 ($3): $4" >&2
}

if [ $# != 6 ] || [ -z "$url" ]; then
	echo "check-port.sh: is natmap's script, and takes CHECK_URL" >&2
	exit 2
fi
case $1 in
*:*)	v=6 ;;
*)	v=4 ;;
esac
if command -v curl >/dev/null; then
	answer=$(curl -$v -f -sS -m 20 --interface "${6%%%*}" "$url/$2")
else
	answer=$(timeout 20 wget -$v -q -O - "$url/$2")
fi
case $(printf %s "$answer" | tr -d ' \t\r\n') in
1 | *'"reachable":true'*)
	say "$1" "$2" "$5" "reached from outside" ;;
0 | *'"reachable":false'*)
	say "$1" "$2" "$5" "not reached from outside"
	exit 1 ;;
*)
	say "$1" "$2" "$5" "no answer from $url"
	exit 2 ;;
esac
