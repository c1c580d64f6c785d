#!/bin/sh
# natmap's script: sends the public address to a web server.
#
#	HTTP_URL=https://www.example.org/home.txt HTTP_TOKEN=secret \
#	    natmap -b 22 -e http-put.sh
url=${HTTP_URL:-}
method=${HTTP_METHOD:-PUT}
token=${HTTP_TOKEN:-}		# sent as "Authorization: Bearer TOKEN"
body=${HTTP_BODY:-ADDR PORT}	# with the address and port in place of these
type=${HTTP_TYPE:-text/plain}

if [ $# != 6 ] || [ -z "$url" ]; then
	echo "http-put.sh: is natmap's script, and takes HTTP_URL" >&2
	exit 2
fi
body=$(printf %s "$body" | sed "s/ADDR/$1/g; s/PORT/$2/g")

# A command line can be read by all users, so the token is in no argument.
authorization() {
	[ -z "$token" ] || echo "header = $1Authorization: Bearer $token$1"
}

if command -v curl >/dev/null; then
	authorization '"' | curl -f -sS -m 20 -o /dev/null -K - \
	    -X "$method" -H "Content-Type: $type" --data-binary "$body" "$url"
else
	config=$(mktemp) && trap 'rm -f "$config"' EXIT &&
	    authorization >"$config" && wget -nv -T 20 -t 1 -O /dev/null \
	    --config="$config" --method="$method" \
	    --header="Content-Type: $type" --body-data="$body" "$url"
fi || exit 2
