#!/bin/sh
# SPDX-License-Identifier: MIT
#
# install-tools.sh [long]
#
# Installs what `make test` needs on Debian, and with "long" what `make
# test-long` needs besides; only what is missing.  No service is started, nor
# enabled for the next boot.
# The musl of other CPUs goes to build/musl.

set -e

# package, and a file of it that is needed
tools() {
	cat <<-EOF
	bash bash
	bind9 named
	bind9-dnsutils nsupdate
	binutils nm
	busybox-static busybox
	conntrack conntrack
	coturn turnserver
	curl curl
	gcc gcc
	iproute2 ip
	iptables iptables
	libc6-dev usr/include/stdio.h
	make make
	mandoc mandoc
	miniupnpc upnpc
	miniupnpd-nftables miniupnpd
	netbase etc/services
	nftables nft
	nginx-light nginx
	openssh-client ssh
	openssh-server sshd
	procps ps
	python3 python3
	qbittorrent-nox qbittorrent-nox
	shellcheck shellcheck
	socat socat
	strace strace
	systemd systemd-analyze
	transmission-cli transmission-remote
	transmission-daemon transmission-daemon
	util-linux nsenter
	wget wget
	EOF
	[ "$1" = long ] || return 0
	cat <<-EOF
	buildah buildah
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

# what starts at boot: links of systemd, and of init scripts
starting() {
	find /etc/systemd/system/*.wants /etc/rc[2-5].d -name '[!K]*' -type l \
	    2>/dev/null | sort
}

# BEFORE: disables what starts at boot and did not
disable() {
	starting | comm -13 "$1" - | while read -r link; do
		name=${link##*/}
		case $link in
		/etc/rc*)	update-rc.d "${name#S??}" disable ;;
		*)		systemctl disable "$name" ;;
		esac
		[ ! -L "$link" ] || rm "$link"
	done
}

# install PACKAGE ...
install() {
	[ "$(id -u)" = 0 ] || {
		echo "install-tools: as root: apt-get install $*" >&2
		exit 1
	}
	before=$(mktemp)
	ours=$before
	trap 'disable "$before"; rm -f $ours' EXIT
	starting > "$before"
	# packages start their services unless this says no
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' > $policy
		chmod +x $policy
		ours="$ours $policy"
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
