#!/bin/sh
# SPDX-License-Identifier: MIT
#
# musl.sh DIR [ARCH ...]
#
# Makes DIR/ARCH-musl-gcc, which links static programs with musl, for arm64,
# armel, armhf, i386 and mipsel, or for those named: Debian's cross gcc on
# Debian's musl-dev of that architecture, fetched once and unpacked into DIR.
# apt's own state is not touched.  Those whose musl-dev no mirror gave are
# listed in DIR/not-reached; the status is then 1.

set -e

usage() {
	echo "usage: musl.sh DIR [arm64|armel|armhf|i386|mipsel] ..." >&2
	exit 2
}

# names ARCH: of its gcc and of its musl
names() {
	case $1 in
	arm64) gcc=aarch64-linux-gnu musl=aarch64-linux-musl ;;
	armel) gcc=arm-linux-gnueabi musl=arm-linux-musleabi ;;
	armhf) gcc=arm-linux-gnueabihf musl=arm-linux-musleabihf ;;
	i386) gcc=i686-linux-gnu musl=i386-linux-musl ;;
	mipsel) gcc=mipsel-linux-gnu musl=mipsel-linux-musl ;;
	*) usage ;;
	esac
	lib=$dir/usr/lib/$musl
}

# missing ARCH ...: those that are not unpacked yet
missing() {
	for arch; do
		names "$arch"
		[ -e "$lib/libc.a" ] || echo "$arch"
	done
}

# fetch ARCH ...: as many of them as the mirror gives
fetch() {
	mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial"
	: > "$dir/apt/status"
	cat > "$dir/apt/conf" <<-EOF
	Dir::State "$dir/apt";
	Dir::State::status "$dir/apt/status";
	Dir::Cache "$dir/apt/cache";
	APT::Architectures { $(printf '"%s"; ' "$@")};
	APT::Sandbox::User "root";
	Acquire::Languages "none";
	EOF
	cd "$dir/apt"
	export APT_CONFIG="$dir/apt/conf"
	# images may tell apt to keep none, and read all lists each time
	cache=Dir::Cache::pkgcache=pkgcache.bin
	# one source of many may be out of order
	timeout 120 apt-get -q -o $cache update || :
	for arch; do
		timeout 60 apt-get -q -o $cache download "musl-dev:$arch" ||
		    continue
		dpkg -x musl-dev_*_"$arch".deb "$dir"
	done
	rm -rf "$dir/apt"
}

# compiler ARCH
compiler() {
	names "$1"
	own=$("$gcc-gcc" -print-file-name=include)
	cat > "$dir/$1-musl-gcc" <<-EOF
	#!/bin/sh
	# compiles with -c, else links a static program
	for a; do
		[ "\$a" != -c ] || compile=1
	done
	if [ -z "\$compile" ]; then
		set -- -nostdlib "$lib/crt1.o" "$lib/crti.o" "\$@" \\
		    -L"$lib" -lc -lgcc -lc "$lib/crtn.o"
	fi
	exec $gcc-gcc -static -nostdinc -isystem "$dir/usr/include/$musl" \\
	    -isystem "$own" -idirafter /usr/$gcc/include "\$@"
	EOF
	chmod +x "$dir/$1-musl-gcc"
}

[ $# != 0 ] || usage
mkdir -p "$1"
dir=$(cd "$1" && pwd)
shift
[ $# != 0 ] || set -- arm64 armel armhf i386 mipsel
rm -f "$dir/not-reached"
# a mirror that is being updated is in order a minute later
for pause in 0 15 45; do
	left=$(missing "$@")
	[ -n "$left" ] || break
	sleep $pause
	# shellcheck disable=SC2086	# words
	(fetch $left) >&2
done
left=" $(missing "$@" | tr '\n' ' ')"
for arch; do
	case $left in
	*" $arch "*)
		echo "musl.sh: not reached: musl-dev:$arch" >&2
		echo "$arch-musl-gcc" >> "$dir/not-reached"
		;;
	*) compiler "$arch" ;;
	esac
done
[ "$left" = " " ]
