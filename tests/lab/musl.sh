#!/bin/sh
# SPDX-License-Identifier: MIT
#
# musl.sh ARCH DIR
#
# Makes DIR/ARCH-musl-gcc, which links static programs with musl for arm64,
# armel, armhf, i386 or mipsel: Debian's cross gcc on Debian's musl-dev of that
# architecture, unpacked into DIR.  apt's own state is not touched.

set -e
arch=$1
dir=$2
case $arch in
arm64) gcc=aarch64-linux-gnu musl=aarch64-linux-musl ;;
armel) gcc=arm-linux-gnueabi musl=arm-linux-musleabi ;;
armhf) gcc=arm-linux-gnueabihf musl=arm-linux-musleabihf ;;
i386) gcc=i686-linux-gnu musl=i386-linux-musl ;;
mipsel) gcc=mipsel-linux-gnu musl=mipsel-linux-musl ;;
*)
	echo "usage: musl.sh arm64|armel|armhf|i386|mipsel DIR" >&2
	exit 2
	;;
esac
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

fetch() {
	mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial"
	: > "$dir/apt/status"
	cat > "$dir/apt/conf" <<-EOF
	Dir::State "$dir/apt";
	Dir::State::status "$dir/apt/status";
	Dir::Cache "$dir/apt/cache";
	APT::Architectures { "$arch"; };
	APT::Sandbox::User "root";
	Acquire::Languages "none";
	EOF
	cd "$dir/apt"
	export APT_CONFIG="$dir/apt/conf"
	apt-get -q update || :	# one source of many may be out of order
	apt-get -q download "musl-dev:$arch"
	dpkg -x musl-dev_*_"$arch".deb "$dir"
	rm -rf "$dir/apt"
}

[ -e "$dir/usr/lib/$musl/libc.a" ] || (fetch) >&2
lib=$dir/usr/lib/$musl
own=$("$gcc-gcc" -print-file-name=include)
cat > "$dir/$arch-musl-gcc" <<EOF
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
chmod +x "$dir/$arch-musl-gcc"
