#!/bin/bash
# SPDX-License-Identifier: MIT
# Builds: every compiler without a warning, what they make, and the Makefile's
# promises.  All of it in copies of the tree.  `build.sh --sizes` prints the
# README's table of sizes.
. "$(dirname "$0")/../lab.sh"
. "$(dirname "$0")/targets.sh"

MOST_BYTES=106496	# of the static binary with musl, 104 KiB
MOST_TEXT=45056		# of our objects at -Os on x86-64, 44 KiB
STRICT="-Os -Wall -Wextra -Wshadow -Wmissing-prototypes -Werror"
STRICT="$STRICT -fno-asynchronous-unwind-tables"

# quiet DIR: make there had nothing to warn of; glibc's static link may, of
# getaddrinfo
quiet() {
	! grep -i warning "$1.said" | grep -v "Using 'getaddrinfo' in static" ||
	    fail "warnings"
}

# is_static FILE
is_static() {
	! readelf -lW "$1" | grep -q INTERP || fail "$1 is not static"
}

# elf FILE: class, byte order and machine, as in targets()
elf() {
	readelf -hW "$1" | awk -F ': *' '
	    /Class:/ { class = $2 }
	    /Data:/ { order = $2 ~ /little/ ? "little" : "big" }
	    /Machine:/ { sub(/^(Intel|MIPS R3000|Advanced) ?/, "&", $2)
		n = split($2, w, " ")
		machine = $2 ~ /MIPS/ ? "MIPS" : w[n] }
	    END { print class ":" order ":" machine }'
}

# runs FILE [EMULATOR]: it knows its version and its usage
runs() {
	local version
	version=$(sed -n 's/^#define VERSION.*"\(.*\)"/\1/p' "$D/src/natmap.h")
	has <(${2:-} "$1" -V) "(^| )$version\$" "version"
	has <(${2:-} "$1" --help) "^Version: $version\$" "usage"
}

# native CC [CFLAGS]
native() {
	need make "$1"
	tree "$D/src"
	mk "$D/src" CC="$1" CFLAGS="$STRICT ${2:-}"
	quiet "$D/src"
	runs "$D/src/natmap"
}

t_gcc() {
	native gcc "-Wconversion -Wno-sign-conversion"
}

t_clang() {
	native clang
}

t_musl() {
	native musl-gcc
}

t_tcc() {
	native tcc
}

# cross TARGET: a dynamic and a static one
cross() {
	local cc qemu
	cc=$(of "$1" cc)
	qemu=qemu-$(of "$1" qemu)-static
	need make readelf "$cc"
	tree "$D/src"
	mk "$D/src" CC="$cc" CFLAGS="$STRICT"
	quiet "$D/src"
	eq "$(elf "$D/src/natmap")" "$(of "$1" elf)" "what $cc made"
	mk "$D/src" static CC="$cc" CFLAGS="$STRICT"
	quiet "$D/src"
	is_static "$D/src/natmap"
	! command -v "$qemu" > /dev/null || runs "$D/src/natmap" "$qemu"
	echo "$1: $(wc -c < "$D/src/natmap") bytes"
}

t_static_glibc() {
	need make readelf gcc
	tree "$D/src"
	mk "$D/src" static CC=gcc CFLAGS="$STRICT"
	quiet "$D/src"
	is_static "$D/src/natmap"
	runs "$D/src/natmap"
}

t_static_musl_is_small() {
	need make readelf musl-gcc
	tree "$D/src"
	mk "$D/src" static CC=musl-gcc
	quiet "$D/src"
	is_static "$D/src/natmap"
	runs "$D/src/natmap"
	between 1 "$(wc -c < "$D/src/natmap")" $MOST_BYTES "bytes of the file"
}

t_objects_are_small() {
	need make gcc size
	[ "$(uname -m)" = x86_64 ] || skip "sizes are those of x86-64"
	tree "$D/src"
	mk "$D/src" size CC=gcc
	between 1 "$(awk '/TOTALS/ { print $1 }' "$D/src.said")" $MOST_TEXT \
	    "bytes of text in our objects"
	has "$D/src.said" "^ *([0-9]+[[:blank:]]+){3}.*relay\\.o" "make size"
	has "$D/src.said" "^$(wc -c < "$D/src/natmap") natmap" "make size"
}

# the compiler, a shell and make are all that it takes
t_no_host_tools() {
	local tool
	need make gcc as ld
	tree "$D/src"
	mkdir "$D/bin"
	for tool in sh make gcc as ld; do
		ln -s "$(command -v $tool)" "$D/bin/$tool"
	done
	PATH=$D/bin "$D/bin/make" -C "$D/src" CC=gcc > "$D/src.said" 2>&1 ||
	    fail "make: $(cat "$D/src.said")"
	runs "$D/src/natmap"
}

# same_bytes CC GOAL: in two folders, at two times
same_bytes() {
	need make "$1"
	tree "$D/src"
	tree "$D/another/folder"
	mk "$D/src" "$2" CC="$1"
	sleep 1
	mk "$D/another/folder" "$2" CC="$1"
	cmp "$D/src/natmap" "$D/another/folder/natmap" ||
	    fail "$2 of $1 is another one each time"
}

t_reproducible() {
	same_bytes gcc all
}

t_reproducible_static() {
	same_bytes musl-gcc static
}

# calls DIR: what it needs of libc, one per line
calls() {
	command nm -u "$1/natmap" | awk '{ sub(/@.*/, "", $2); print $2 }'
}

# what Linux alone has is in a Linux build, and not in a portable one
t_linux_extras() {
	local f n
	need make gcc nm
	for n in linux portable; do
		tree "$D/$n"
	done
	mk "$D/linux" CC=gcc CFLAGS="$STRICT"
	mk "$D/portable" CC=gcc CFLAGS="$STRICT" CPPFLAGS=-DNATMAP_PORTABLE
	quiet "$D/portable"
	calls "$D/linux" > "$D/linux.calls"
	calls "$D/portable" > "$D/portable.calls"
	for f in splice recvmmsg sendmmsg signalfd; do
		has "$D/linux.calls" "^$f\$" "Linux build"
		hasnt "$D/portable.calls" "^$f\$" "portable build"
	done
}

# traced DIR: the pidfd_getfd calls of a build beside a running service
traced() {
	lab_netns h1
	py h1 svc echo tcp 0.0.0.0 5000
	bg h1 nm timeout 10 strace -f -e trace=pidfd_getfd -o "$D/trace" \
	    "$1/natmap" -s 127.0.0.1 -b 5000 -k 1
	wait_for 4 grep -q 'pidfd_getfd(.*) *= [0-9]' "$D/trace"
}

t_linux_build_shares_ports() {
	[ "$(id -u)" = 0 ] || skip "needs root"
	need make gcc strace ip
	tree "$D/src"
	mk "$D/src" CC=gcc
	traced "$D/src" || fail "no pidfd_getfd: $(cat "$D/trace" "$D/nm.log")"
}

t_portable_build_does_not() {
	[ "$(id -u)" = 0 ] || skip "needs root"
	need make gcc strace ip
	tree "$D/src"
	mk "$D/src" CC=gcc CPPFLAGS=-DNATMAP_PORTABLE
	! traced "$D/src" || fail "pidfd_getfd in a portable build"
	has "$D/nm.log" '5000' "what natmap says of the port"
}

t_install() {
	local to=$D/root
	need make gcc
	tree "$D/src"
	mk "$D/src" install CC=gcc DESTDIR="$to" PREFIX=/opt/x
	eq "$(cd "$to" && find . -type f | sort | tr '\n' ' ')" \
	    "./opt/x/sbin/natmap ./opt/x/share/man/man8/natmap.8 " files
	cmp "$D/src/natmap" "$to/opt/x/sbin/natmap"
	cmp "$D/src/natmap.8" "$to/opt/x/share/man/man8/natmap.8"
	eq "$(stat -c %a "$to/opt/x/sbin/natmap")" 755 mode
	mk "$D/src" uninstall DESTDIR="$to" PREFIX=/opt/x
	eq "$(find "$to" -type f)" "" "left by uninstall"
	mk "$D/src" install CC=gcc DESTDIR="$to"
	[ -x "$to/usr/local/sbin/natmap" ] || fail "default PREFIX"
}

# LDFLAGS and CPPFLAGS are respected; a changed header builds all anew
t_flags() {
	need make gcc readelf
	tree "$D/src"
	mk "$D/src" CC=gcc CPPFLAGS=-DX=1 CFLAGS=-O1 LDFLAGS=-Wl,-z,now
	has "$D/src.said" 'gcc .*-DX=1 -O1 .*relay\.c' "compiling"
	has <(readelf -dW "$D/src/natmap") 'BIND_NOW|NOW' "LDFLAGS"
	mk "$D/src" CC=gcc
	eq "$(grep -c -e ' -c ' "$D/src.said")" 0 "compiled without need"
	touch "$D/src/natmap.h"
	mk "$D/src" CC=gcc
	eq "$(grep -c -e ' -c ' "$D/src.said")" 4 "compiled for a new header"
}

# what was built is ignored by git, and clean leaves nothing of it
t_clean() {
	need make gcc git
	tree "$D/src"
	git -C "$D/src" init -q
	git -C "$D/src" add -A
	mk "$D/src" CC=gcc
	mkdir -p "$D/src/build/x"
	git -C "$D/src" status --porcelain | grep -v '^A ' > "$D/left" || true
	eq "$(cat "$D/left")" "" "git status after make"
	mk "$D/src" static CC=gcc
	mk "$D/src" clean
	git -C "$D/src" status --porcelain --ignored | grep -v '^A ' \
	    > "$D/left" || true
	eq "$(cat "$D/left")" "" "git status after make clean"
}

# row TARGET ARGS ...: one of the README's table
row() {
	local what=$1
	shift
	rm -rf "$D/src"
	tree "$D/src"
	mk "$D/src" "$@"
	# shellcheck disable=SC2016
	printf '| %s | `make %s` | %s |\n' "$what" "$*" \
	    "$(wc -c < "$D/src/natmap" | sed -E 's/([0-9]{3})$/,\1/')"
}

# names as in the README
sizes() {
	local cpu cc libc
	set -e
	D=$(mktemp -d)
	trap 'rm -rf "$D"' EXIT
	row "x86-64, musl, static" static CC=musl-gcc
	row "x86-64, gcc" CFLAGS=-Os LDFLAGS=-s
	row "x86-64, clang" CC=clang CFLAGS=-Os LDFLAGS=-s
	row "x86-64, glibc, static" static
	targets | while read -r cpu cc _; do
		command -v "$cc" > /dev/null || continue
		case $cpu in
		musl_*) libc=musl ;;
		*) libc=glibc ;;
		esac
		case $cpu in
		musl_i386) cpu=i686 ;;
		musl_arm64) cpu=aarch64 ;;
		*mipsel) cpu="mips, little-endian" ;;
		mips|powerpc) cpu="$cpu, big-endian" ;;
		arm|*armel) cpu="arm, soft float" ;;
		*armhf) cpu="arm, hard float" ;;
		esac
		row "$cpu, $libc, static" static CC="$cc" < /dev/null
	done
}

if [ "${1:-}" = --sizes ]; then
	sizes
	exit
fi
for cc in gcc clang musl tcc; do
	quick $cc 90
done
for cpu in $(tried "${1:-}"); do
	eval "t_cross_$cpu() { cross $cpu; }"
	quick "cross_$cpu" 90
done
quick static_glibc 90
quick static_musl_is_small 90
quick objects_are_small 90
quick no_host_tools 90
quick reproducible 90
quick reproducible_static 90
quick linux_extras 90
quick linux_build_shares_ports 90
quick portable_build_does_not 90
quick install 90
quick flags 90
quick clean 90
lab_main "$@"
