#!/bin/bash
# SPDX-License-Identifier: MIT
# Builds: every compiler without a warning, what they make, and the Makefile's
# promises.  All of it in copies of the tree.  `build.sh --sizes` prints the
# README's table of sizes.
. "$(dirname "$0")/../lab.sh"
. "$(dirname "$0")/targets.sh"

MOST_BYTES=112640	# of the static binary with musl, 110 KiB
MOST_SHARED=72312	# of the binary that shares musl
MOST_TEXT=49152		# of our objects at -Os on x86-64, 48 KiB
# Of formats -Wall alone judges, elsewhere: %pa is not ISO C's.
STRICT="-Os -Wall -Wextra -Wpedantic -Wno-format -Wshadow -Werror"
STRICT="$STRICT -Wno-format-pedantic"
STRICT="$STRICT -Wmissing-prototypes"
STRICT="$STRICT -fno-asynchronous-unwind-tables"

# quiet DIR: make there had nothing to warn of; glibc's static link may, of
# getaddrinfo and getservbyname
quiet() {
	! grep -i warning "$1.said" | grep -v "Using 'get[a-z]*' in static" ||
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

t_dynamic_musl_is_small() {
	need make musl-gcc
	tree "$D/src"
	mk "$D/src" CC=musl-gcc CFLAGS=-Os LDFLAGS=-s
	between 1 "$(wc -c < "$D/src/natmap")" $MOST_SHARED "bytes of the file"
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
	local to=$D/root f
	need make gcc
	tree "$D/src"
	mk "$D/src" install CC=gcc DESTDIR="$to" PREFIX=/opt/x
	eq "$(cd "$to" && find . -type f ! -path '*/hooks/*' | sort |
	    tr '\n' ' ')" \
	    "./opt/x/sbin/natmap ./opt/x/share/man/man8/natmap.8 " files
	cmp "$D/src/natmap" "$to/opt/x/sbin/natmap"
	cmp "$D/src/natmap.8" "$to/opt/x/share/man/man8/natmap.8"
	eq "$(stat -c %a "$to/opt/x/sbin/natmap")" 755 mode
	for f in "$D"/src/contrib/hooks/*; do
		cmp "$f" "$to/opt/x/share/natmap/hooks/${f##*/}"
		[ -x "$to/opt/x/share/natmap/hooks/${f##*/}" ] || fail "$f"
	done
	mk "$D/src" uninstall DESTDIR="$to" PREFIX=/opt/x
	eq "$(find "$to" -type f)" "" "left by uninstall"
	mk "$D/src" install CC=gcc DESTDIR="$to"
	[ -x "$to/usr/local/sbin/natmap" ] || fail "default PREFIX"
	mk "$D/src" install CC=gcc DESTDIR="$to/2" BINDIR=/bin MANDIR=/man
	[ -x "$to/2/bin/natmap" ] || fail "BINDIR"
	[ -f "$to/2/man/man8/natmap.8" ] || fail "MANDIR"
	mk "$D/src" install CC=gcc DESTDIR="$to/3" SBINDIR=/sbin
	[ -x "$to/3/sbin/natmap" ] || fail "SBINDIR"
}

# the installed units start the installed program, and a changed conf stays
t_install_systemd() {
	local to=$D/root conf=$D/root/etc/natmap/sample.conf f
	need make gcc systemd-analyze
	tree "$D/src"
	mk "$D/src" install-systemd CC=gcc DESTDIR="$to" PREFIX=/usr
	has "$D/src.said" 'cp /etc/natmap/sample.conf /etc/natmap/ssh.conf'
	has "$D/src.said" 'systemctl enable --now natmap@ssh'
	f=$to/usr/lib/systemd/system/natmap@.service
	has "$f" '^ExecStart=/usr/sbin/natmap .NATMAP_OPTS$'
	has "$f" '^# /usr/share/natmap/systemd: '
	f=$(sed -n 's/^ExecStopPost=\(.*\) remove$/\1/p' \
	    "$to/usr/share/natmap/systemd/firewall.conf")
	[ -x "$to$f" ] || fail "$f is not there"
	# in that root, where systemd finds what it would start
	install -D /bin/true "$to/usr/bin/kill"
	systemd-analyze --root="$to" verify --man=no --recursive-errors=no \
	    natmap@sample.service > "$D/verified" 2>&1 ||
	    fail "$(cat "$D/verified")"
	# shellcheck disable=SC2046	# options are words
	"$to/usr/sbin/natmap" $(sed -n 's/^NATMAP_OPTS=//p' "$conf") --help \
	    > "$D/help" || fail "options of sample.conf"
	echo changed > "$conf"
	mk "$D/src" install-systemd CC=gcc DESTDIR="$to" PREFIX=/usr
	eq "$(cat "$conf")" changed "sample.conf"
}

# what is on the command line is respected; a changed header builds all anew
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

# what a distribution exports is respected too: a hardened program
t_exported_flags() {
	need make gcc readelf
	tree "$D/src"
	CC='gcc -DMINE' CPPFLAGS='-D_FORTIFY_SOURCE=2' LDFLAGS=-Wl,-z,relro \
	    CFLAGS='-g -O2 -fstack-protector-strong' mk "$D/src"
	has "$D/src.said" 'gcc -DMINE .*_FORTIFY_SOURCE=2 .*strong .*relay\.c'
	hasnt "$D/src.said" '-Os'
	readelf -sW "$D/src/natmap" > "$D/symbols"
	has "$D/symbols" __stack_chk_fail "stack protector"
	has <(readelf -lW "$D/src/natmap") GNU_RELRO "LDFLAGS"
	# and where nobody says anything, ours
	mk "$D/src" clean
	env -u CC -u CFLAGS make -C "$D/src" > "$D/src.said"
	has "$D/src.said" '^cc .*-Os -Wall -Wextra -c .*relay\.c'
}

# make check as nobody, without a network, services, or a home
t_check() {
	[ "$(id -u)" = 0 ] || skip "needs root"
	need make gcc setpriv unshare
	tree "$D/src"
	chown -R 65534:65534 "$D"
	unshare -nm sh -e -c "
	    mount --bind /dev/null /etc/services
	    mount --bind /dev/null /etc/hosts
	    ip link set lo up
	    cd $D/src
	    exec env -i PATH=/usr/bin:/bin setpriv --reuid=65534 \
		--regid=65534 --clear-groups --bounding-set=-all make check" \
	    > "$D/src.said" 2>&1 || fail "$(grep -v '^ok' "$D/src.said")"
	has "$D/src.said" '^ok rfc5769' "unit tests"
	has "$D/src.said" '^ok docs' "documentation"
}

# image NAME ARGS ...: of the Dockerfile; in D
image() {
	buildah --root "$D/images" --runroot "$D/run" --storage-driver vfs \
	    bud --isolation chroot --layers=false "${@:2}" \
	    -f "$D/src/contrib/Dockerfile" -t "$1" "$D/src" > "$D/$1.said" 2>&1 ||
	    fail "$1: $(cat "$D/$1.said")"
	buildah --root "$D/images" --runroot "$D/run" --storage-driver vfs \
	    from --name "of-$1" "$1" > /dev/null
}

# inside NAME COMMAND ...
inside() {
	buildah --root "$D/images" --runroot "$D/run" --storage-driver vfs \
	    run --isolation chroot "of-$1" -- "${@:2}"
}

# both images of the Dockerfile run; the larger one has a shell for the hooks
t_container() {
	[ "$(id -u)" = 0 ] || skip "needs root"
	need make musl-gcc buildah busybox
	tree "$D/src"
	mk "$D/src" static CC=musl-gcc
	cp "$(command -v busybox)" "$D/src/busybox"
	image bare --target bare
	has <(inside bare /usr/sbin/natmap -V) '[0-9]' version
	! inside bare /bin/sh -c : 2> /dev/null || fail "bare has a shell"
	image natmap
	has <(inside natmap /usr/sbin/natmap -V) '[0-9]' version
	inside natmap /bin/sh -c 'ADDRESS_FILE=/tmp/a \
	    /usr/local/share/natmap/hooks/write-file.sh 1 2 3 4 tcp 6' ||
	    fail "a hook"
	eq "$(inside natmap cat /tmp/a)" "1 2" "what it wrote"
	has <(buildah --root "$D/images" --runroot "$D/run" \
	    --storage-driver vfs inspect --type image natmap) \
	    '"/usr/sbin/natmap"' "entry point"
}

# the tarball is of what is committed, and is all that building and tests take
t_dist() {
	local name
	need make gcc git
	tree "$D/src"
	git -C "$D/src" init -q
	git -C "$D/src" add -A
	git -C "$D/src" -c user.name=a -c user.email=a@example.org \
	    commit -q -m all
	mk "$D/src" dist
	name=natmap-$(sed -n 's/^#define VERSION.*"\(.*\)"/\1/p' \
	    "$D/src/natmap.h")
	has "$D/src.said" "^$name.tar.gz\$" "what is told"
	eq "$(git -C "$D/src" status --porcelain)" "" "git status"
	tar -xzf "$D/src/$name.tar.gz" -C "$D"
	diff -r --exclude=.git --exclude="$name.tar.gz" "$D/src" "$D/$name" ||
	    fail "the tarball is another tree"
	mk "$D/$name" check
	hasnt "$D/$name.said" '^not ok' "make check"
	echo >> "$D/src/natmap.h"
	! make -C "$D/src" dist > "$D/src.said" 2>&1 ||
	    fail "a tarball of what is not committed"
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
	row "x86-64, musl" CC=musl-gcc CFLAGS=-Os LDFLAGS=-s
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
quick dynamic_musl_is_small 60
quick objects_are_small 90
quick no_host_tools 90
quick reproducible 90
quick reproducible_static 90
quick linux_extras 90
quick linux_build_shares_ports 90
quick portable_build_does_not 90
quick install 90
quick install_systemd 90
quick flags 90
quick exported_flags 90
quick check 300
quick container 90
quick dist 300
quick clean 90
lab_main "$@"
