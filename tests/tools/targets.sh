# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What the tests of builds and of other CPUs share; sourced after lab.sh.

MUSL=$TESTS/../build/musl	# where `install-tools.sh long` puts musl.sh's
PATH=$PATH:$MUSL

# name, compiler, qemu's name, as readelf says it
targets() {
	cat <<-END
	i686 i686-linux-gnu-gcc i386 ELF32:little:80386
	mipsel mipsel-linux-gnu-gcc mipsel ELF32:little:MIPS
	mips mips-linux-gnu-gcc mips ELF32:big:MIPS
	arm arm-linux-gnueabi-gcc arm ELF32:little:ARM
	armhf arm-linux-gnueabihf-gcc arm ELF32:little:ARM
	aarch64 aarch64-linux-gnu-gcc aarch64 ELF64:little:AArch64
	riscv64 riscv64-linux-gnu-gcc riscv64 ELF64:little:RISC-V
	powerpc powerpc-linux-gnu-gcc ppc ELF32:big:PowerPC
	musl_i386 i386-musl-gcc i386 ELF32:little:80386
	musl_mipsel mipsel-musl-gcc mipsel ELF32:little:MIPS
	musl_armel armel-musl-gcc arm ELF32:little:ARM
	musl_armhf armhf-musl-gcc arm ELF32:little:ARM
	musl_arm64 arm64-musl-gcc aarch64 ELF64:little:AArch64
	END
}

# tried [--list]: names of the targets to try.  In CI, where a skip is a
# failure, those are left out whose musl no mirror gave; the list says so.
tried() {
	local name cc
	targets | while read -r name cc _; do
		if [ "${CI:-}" != true ] ||
		    ! grep -qsx "$cc" "$MUSL/not-reached"; then
			echo "$name"
		elif [ "${1:-}" = --list ]; then
			echo "# not reached, not tested: $cc" >&2
		fi
	done
}

# of TARGET cc|qemu|elf
of() {
	targets | awk -v t="$1" -v what="$2" '$1 == t {
	    print what == "cc" ? $2 : what == "qemu" ? $3 : $4 }'
}

# tree DIR: a copy of the sources, nothing that was built
tree() {
	mkdir -p "$1"
	tar -C "$TESTS/.." --exclude=./.git --exclude=./build \
	    --exclude=./natmap --exclude='*.o' -cf - . | tar -C "$1" -xf -
}

# mk DIR ARGS ...: make there, in one language; what it says is in DIR.said
mk() {
	env -u MAKEFLAGS -u MFLAGS LC_ALL=C make -C "$1" "${@:2}" \
	    > "$1.said" 2>&1 || fail "make ${*:2}: $(tail -n 20 "$1.said")"
}
