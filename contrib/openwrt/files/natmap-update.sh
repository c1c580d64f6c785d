#!/bin/sh
# natmap's script on OpenWrt: writes the status file, then becomes the user's
# script.  Arguments: PUBADDR PUBPORT IP4P BINDPORT tcp|udp PRIVADDR

status=/var/run/natmap

string() {
	printf '"%s"' "$(printf %s "$1" | tr -d '\000-\037' |
	    sed 's/[\\"]/\\&/g')"
}

number() {
	case "$1" in
	'' | *[!0-9]*) printf 0 ;;
	*) printf %s "$1" ;;
	esac
}

# The parent is natmap: procd and the status page know it by this pid.
mkdir -p "$status"
printf '{ "ip": %s, "port": %s, "inner_port": %s, "protocol": %s }\n' \
    "$(string "$1")" "$(number "$2")" "$(number "$4")" "$(string "$5")" \
    >"$status/.$PPID" && mv "$status/.$PPID" "$status/$PPID.json"

[ -n "$NOTIFY_SCRIPT" ] || exit 0
notify="$NOTIFY_SCRIPT"
unset NOTIFY_SCRIPT
exec "$notify" "$@"
