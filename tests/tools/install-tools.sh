#!/bin/sh
# SPDX-License-Identifier: MIT
#
# install-tools.sh [long]
#
# Installs what `make test` needs on Debian, and with "long" what `make
# test-long` needs besides; only what is missing.  No service is started.
# The musl of other CPUs goes to build/musl.

set -e

# package, and a file of it that is needed
tools() {
	cat <<-EOF
	bash bash
	binutils nm
	busybox-static busybox
	conntrack conntrack
	coturn turnserver
	gcc gcc
	iproute2 ip
	iptables iptables
	libc6-dev usr/include/stdio.h
	make make
	mandoc mandoc
	netbase etc/services
	nftables nft
	nginx-light nginx
	openssh-client ssh
	openssh-server sshd
	procps ps
	python3 python3
	shellcheck shellcheck
	socat socat
	strace strace
	systemd systemd-analyze
	util-linux nsenter
	EOF
	[ "$1" = long ] || return 0
	cat <<-EOF
	clang clang
	git git
	iperf3 iperf3
	libclang-rt-dev usr/share/doc/libclang-rt-dev
	libc6-dbg usr/share/doc/libc6-dbg
	musl-tools musl-gcc
	qemu-user-static qemu-mips-static
	tcc tcc
	valgrind valgrind
	EOF
	for cpu in i686:i386 mipsel:mipsel mips:mips aarch64:arm64 \
	    riscv64:riscv64 powerpc:powerpc; do
		echo "gcc-${cpu%:*}-linux-gnu ${cpu%:*}-linux-gnu-gcc"
		echo "libc6-dev-${cpu#*:}-cross" \
		    "usr/share/doc/libc6-dev-${cpu#*:}-cross"
	done
	for abi in eabi:armel eabihf:armhf; do
		echo "gcc-arm-linux-gnu${abi%:*} arm-linux-gnu${abi%:*}-gcc"
		echo "libc6-dev-${abi#*:}-cross" \
		    "usr/share/doc/libc6-dev-${abi#*:}-cross"
	done
}

missing() {
	tools "$1" | while read -r package file; do
		for dir in usr/local/sbin usr/local/bin usr/sbin usr/bin \
		    sbin bin ''; do
			[ ! -e "/$dir/$file" ] || continue 2
		done
		echo "$package"
	done
}

# install PACKAGE ...
install() {
	[ "$(id -u)" = 0 ] || {
		echo "install-tools: as root: apt-get install $*" >&2
		exit 1
	}
	# packages start their services unless this says no
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' > $policy
		chmod +x $policy
		trap 'rm -f $policy' EXIT
	fi
	export DEBIAN_FRONTEND=noninteractive
	# a mirror that is being updated is in order a minute later, and one
	# source of many that is not may have nothing that is needed
	for pause in 0 15 45; do
		sleep $pause
		apt-get update -q || :
		apt-get install -q -y --no-install-recommends "$@" && return
	done
	return 1
}

packages=$(missing "$1")
# shellcheck disable=SC2086	# words
[ -z "$packages" ] || install $packages
# not a reason to fail: the tests say what is not there
[ "$1" != long ] || sh "$(dirname "$0")/musl.sh" \
    "$(dirname "$0")/../../build/musl" || :
