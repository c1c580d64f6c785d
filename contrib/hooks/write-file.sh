#!/bin/sh
# natmap's script: writes the public address to a file, whole or not at all,
# for other programs to read.
#
#	ADDRESS_FILE=/run/natmap/ssh natmap -b 22 -e write-file.sh
#	read -r addr port </run/natmap/ssh
file=${ADDRESS_FILE:-/run/natmap/$5-$4}

mkdir -p "$(dirname "$file")" &&
    printf '%s %s\n' "$1" "$2" >"$file.new" &&
    mv "$file.new" "$file" || exit 2
