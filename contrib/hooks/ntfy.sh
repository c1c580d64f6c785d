#!/bin/sh
# natmap's script: a message to the telephone (https://ntfy.sh, or a server of
# one's own), sent by http-put.sh, which lies beside this file.
#
#	NTFY_URL=https://ntfy.sh/my-secret-topic natmap -b 22 -e ntfy.sh
case $1 in
*:*)	addr='[ADDR]' ;;
*)	addr=ADDR ;;
esac
export HTTP_URL="${NTFY_URL:-}" HTTP_TOKEN="${NTFY_TOKEN:-}" HTTP_METHOD=POST
export HTTP_BODY="${NTFY_NAME:-port $4/$5} is at $addr:PORT"
exec "$(dirname "$0")/http-put.sh" "$@"
