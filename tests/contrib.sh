#!/bin/sh
# shellcheck disable=SC2317	# check() calls the functions
# shellcheck disable=SC2016	# what must not expand here
# The files for firmwares and services in contrib/: OpenWrt's init script and
# status script under busybox ash, in a root of their own with stubs for what
# OpenWrt brings; the recipe with a stub of its buildroot; systemd's units.

if [ "$1" = --list ]; then
	echo all 60
	exit
fi
cd "$(dirname "$0")/.." || exit
top=$PWD
openwrt=$top/contrib/openwrt
dir=$(mktemp -d)
root=$dir/root
. tests/check.sh

# EXPECTED GOT
same() {
	[ "$1" = "$2" ] && return
	echo "# expected: $1"
	echo "# got:      $2"
	return 1
}

inside() {
	chroot "$root" /bin/busybox "$@"
}

device() {
	mkdir -p "$root/bin" "$root/lib/functions" "$root/etc/config" \
	    "$root/etc/init.d" "$root/usr/lib/natmap" "$root/var/run" \
	    "$root/proc" "$root/tmp" "$root/dev"
	mknod -m 666 "$root/dev/null" c 1 3
	cp "$(command -v busybox)" "$root/bin/busybox"
	for tool in sh cat env logger mkdir mv rm sed sleep tr; do
		ln -s busybox "$root/bin/$tool"
	done
	# the one that the recipe built, with its libraries
	mkdir -p "$root/usr/bin"
	cp "$dir/build/root/usr/bin/natmap" "$root/usr/bin"
	ldd "$root/usr/bin/natmap" | grep -o '/[^ ]*' | while read -r lib; do
		mkdir -p "$root${lib%/*}"
		cp "$lib" "$root$lib"
	done
	# what a word of the configuration must not become
	touch "$root/2:3478"
	cp "$openwrt/files/natmap.init" "$root/etc/init.d/natmap"
	cp "$openwrt/files/natmap-update.sh" "$root/usr/lib/natmap/update.sh"
	chmod +x "$root/etc/init.d/natmap" "$root/usr/lib/natmap/update.sh"
	rc_common
	config_functions
	procd_functions
	networks
}

rc_common() {
	cat >"$root/etc/rc.common" <<-\END
	. /lib/functions.sh
	. "$1"
	verb=$2
	shift 2
	case $verb in
	start)
		start_service "$@"
		service_triggers
		;;
	stop)
		stop_service "$@"
		;;
	esac
	END
}

# Sections and options become variables, as OpenWrt's config_load does it.
config_functions() {
	cat >"$root/lib/functions.sh" <<-\END
	config_load() {
		sections= section=
		while read -r line; do
			eval "set -- $line"
			case $1 in
			config)
				n=$((n + 1)) section=${3:-cfg$n}
				sections="$sections $2/$section" ;;
			option)
				eval "conf_${section}_$2=\$3" ;;
			list)
				eval "conf_${section}_$2=\"\${conf_${section}_$2:+\$conf_${section}_$2 }\$3\"" ;;
			esac
		done <"/etc/config/$1"
	}
	config_foreach() {
		for s in $sections; do
			[ "${s%%/*}" != "$2" ] || "$1" "${s#*/}"
		done
	}
	config_get() {
		eval "$1=\${conf_$2_$3:-\$4}"
	}
	config_get_bool() {
		config_get "$@"
		eval "got=\$$1"
		case $got in
		1|on|true|yes|enabled) eval "$1=1" ;;
		0|off|false|no|disabled) eval "$1=0" ;;
		*) eval "$1=\$4" ;;
		esac
	}
	END
}

# What procd is told is written out, a command's arguments each in brackets.
procd_functions() {
	cat >>"$root/lib/functions.sh" <<-\END
	procd_open_instance() {
		echo "instance $1"
		argv=
	}
	procd_set_param() {
		type=$1
		shift
		if [ "$type" = command ]; then
			argv=
			procd_append_param command "$@"
		else
			echo "$type $*"
		fi
	}
	procd_append_param() {
		[ "$1" = command ] || echo "cannot append to $1"
		shift
		for arg; do
			argv="$argv[$arg]"
		done
	}
	procd_close_instance() {
		echo "command $argv"
	}
	procd_add_reload_trigger() {
		echo "reload-on-config $1"
	}
	procd_add_reload_interface_trigger() {
		echo "reload-on-interface $1"
	}
	END
}

networks() {
	cat >"$root/lib/functions/network.sh" <<-\END
	network_get_device() {
		case $2 in
		wan) eval "$1=pppoe-wan" ;;
		*) return 1 ;;
		esac
	}
	END
}

# OPTIONS: one per line and ';'; a section that is enabled, in TCP
configure() {
	{
		echo "config natmap 'main'"
		echo "option enable '1'"
		echo "option udp_mode '0'"
		echo "$1" | tr ';' '\n'
	} >"$root/etc/config/natmap"
}

start() {
	inside sh -c 'PATH=/bin exec /etc/init.d/natmap start' 2>&1
}

# WORD: the lines that begin with it
said() {
	start | sed -n "s/^$1 //p"
}

# OPTIONS EXPECTED: arguments between the program's name and the script
argv() {
	configure "$1"
	same "[/usr/bin/natmap]$2[-e][/usr/lib/natmap/update.sh]" \
	    "$(said command)"
}

# The table: options of a section | arguments
command_lines() {
	while IFS='|' read -r options expected; do
		check "openwrt: ${options:-no option}" \
		    argv "$options" "$expected"
	done <<-\END
	|
	option interval '15'|[-k][15]
	option interval ''|
	option stun_cycle '3'|[-c][3]
	option stun_server 'stun.example.org'|[-s][stun.example.org]
	option stun_server 'a:3479,b'|[-s][a:3479,b]
	option stun_server 'a b'|[-s][a][-s][b]
	option family 'ipv6';list stun_server 'a';list stun_server '[2001:db8::1]:3478'|[-s][a][-s][[2001:db8::1]:3478][-6]
	option http_server 'www.example.org'|[-h][www.example.org]
	list http_server 'a:8080';list http_server 'b'|[-h][a:8080][-h][b]
	option fwmark '0x10'|[-f][0x10]
	option port '8080'|[-b][8080]
	option port '0'|[-b][0]
	option port '8000-8100'|[-b][8000-8100]
	option port '8000-8100';option port_random '0'|[-b][8000-8100]
	option port '8000-8100';option port_random '1'|[-b][8000~8100]
	option port '8080';option port_random '1'|[-b][8080]
	option port_random '1'|
	option family ''|
	option family 'ipv4'|[-4]
	option family 'ipv6'|[-6]
	option udp_mode '0'|
	option udp_mode '1'|[-u]
	option udp_mode 'on'|[-u]
	option interface 'wan'|[-i][pppoe-wan]
	option interface 'eth1'|[-i][eth1]
	option interface '192.0.2.1'|[-i][192.0.2.1]
	option forward_target '192.168.1.20';option forward_port '22'|[-t][192.168.1.20][-p][22]
	option forward_target 'nas'|[-t][nas][-p][0]
	option forward_port '22'|
	option forward_timeout '0'|[-T][0]
	option forward_congestion 'bbr'|[-C][bbr]
	option notify_script '/root/it is mine'|
	option forward_congestion '$(reboot)'|[-C][$(reboot)]
	option udp_mode ''|[-u]
	option interval '15';option stun_cycle '2';option stun_server 's';option http_server 'h';option fwmark '1';option port '9';option family 'ipv6';option udp_mode '1';option interface 'wan';option forward_target 't';option forward_port '7';option forward_timeout '60';option forward_congestion 'reno'|[-k][15][-c][2][-s][s][-h][h][-f][1][-b][9][-6][-u][-i][pppoe-wan][-t][t][-p][7][-T][60][-C][reno]
	END
}

# OPTIONS WORD EXPECTED
parameter() {
	configure "$1"
	same "$3" "$(said "$2")"
}

disabled() {
	cat >"$root/etc/config/natmap" <<-\END
	config natmap 'unset'
	option interface 'wan1'
	config natmap 'off'
	option enable '0'
	option interface 'wan2'
	config other 'other'
	option enable '1'
	config natmap
	option enable '1'
	option interface 'wan3'
	config natmap 'last'
	option enable 'on'
	END
	same "cfg4 last" "$(said instance | xargs)" &&
	    same wan3 "$(said reload-on-interface)"
}

# OPTIONS WORDS: natmap would refuse them, the log says so
refused() {
	configure "$1"
	printf '%s\n' "config natmap 'good'" "option enable '1'" \
	    >>"$root/etc/config/natmap"
	same good "$(said instance)" &&
	    start | grep -q "main is left out: natmap: .*$2"
}

# LuCI removes an option that has its default: what it then is, is shipped.
defaults() {
	printf '%s\n' "config natmap 'main'" "option enable '1'" \
	    >"$root/etc/config/natmap"
	said command >"$dir/absent"
	sed "/_server\|port '/d; s/enable '0'/enable '1'/" \
	    "$openwrt/files/natmap.config" >"$root/etc/config/natmap"
	said command | same "$(cat "$dir/absent")" "$(cat)"
}

# The file that we ship starts nothing, names all options, and no others.
shipped() {
	cp "$openwrt/files/natmap.config" "$root/etc/config/natmap"
	same "" "$(start | grep -v reload-on-config)" &&
	    same "$(options natmap.init \
	    's/.*config_get[a-z_]* [a-z_]* "$[1a-z]*" \([a-z_]*\).*/\1/p')" \
	    "$(options natmap.config 's/^	option \([a-z_]*\).*/\1/p')"
}

options() {
	sed -n "$2" "$openwrt/files/$1" | sort -u | xargs
}

# A running instance keeps its file at a start, one that is gone does not.
tidied() {
	status=$root/var/run/natmap
	mkdir -p "$status" "$root/proc/12"
	touch "$status/12.json" "$status/13.json"
	start >/dev/null
	same 12.json "$(ls "$status")"
}

# EXPECTED [INSTANCE]: the files that a stop leaves of two that run
stopped() {
	for pid in 12 13; do
		touch "$status/$pid.json"
		echo "$pid" >"$status.s$pid.pid"
	done
	expected=$1
	shift
	inside sh -c 'PATH=/bin exec /etc/init.d/natmap stop "$@"' sh "$@" &&
	    same "$expected" "$(cd "$root/var/run" &&
	    find . -type f | sed 's|^./||' | sort | xargs)"
}

# ARGUMENTS: of the script; prints the status file, named after its parent
update() {
	rm -rf "$root/var/run/natmap"
	inside env PATH=/bin sh -c '/usr/lib/natmap/update.sh "$@"
	    status=$?
	    cat "/var/run/natmap/$$.json"
	    exit $status' sh "$@"
}

# EXPECTED ARGUMENTS: fields in the order ip, port, inner_port, protocol
status_file() {
	expected=$1
	shift
	same "$expected" "$(update "$@" | python3 -c '
import json, sys
s = json.load(sys.stdin)
assert list(s) == ["ip", "port", "inner_port", "protocol"]
print(json.dumps(list(s.values())))')"
}

# EXPECTED ARGUMENTS: what the notify script gets, its status passed on
notified() {
	expected=$1
	shift
	cat >"$root/tmp/notify me" <<-\END
	#!/bin/sh
	printf '[%s]' "$#" "$@" "${NOTIFY_SCRIPT-unset}" "$NATMAP_STUN"
	[ "$PPID" = "$SHELL_PID" ] || echo "parent is $PPID"
	[ -s "/var/run/natmap/$PPID.json" ] || echo "no status file"
	exit 3
	END
	chmod +x "$root/tmp/notify me"
	same "$expected 3" "$(inside env PATH=/bin NATMAP_STUN=stun \
	    NOTIFY_SCRIPT="/tmp/notify me" sh -c 'export SHELL_PID=$$
	    /usr/lib/natmap/update.sh "$@"
	    echo " $?"' sh "$@")"
}

status_files() {
	check "openwrt: status file" \
	    status_file '["203.0.113.7", 40000, 8080, "tcp"]' \
	    203.0.113.7 40000 2001::9c40:cb00:7107 8080 tcp 192.168.1.2
	check "openwrt: status file, IPv6" \
	    status_file '["2001:db8::7", 40000, 8080, "udp"]' \
	    2001:db8::7 40000 "" 8080 udp 2001:db8::2
	check "openwrt: status file, hostile values" \
	    status_file '["\", \\ %s", 0, 0, "`id`$(id)"]' \
	    "$(printf '", \\ %%s\n\001')" '1, "x": 2' "" -8080 '`id`$(id)' ""
	check "openwrt: notify script" \
	    notified '[6][203.0.113.7][40000][a][8080][tcp][b][unset][stun]' \
	    203.0.113.7 40000 a 8080 tcp b
	check "openwrt: notify script, IPv6" \
	    notified '[6][2001:db8::7][4][][8][udp][b][unset][stun]' \
	    2001:db8::7 4 "" 8 udp b
}

init_script() {
	command_lines
	check "openwrt: notify script goes into the environment" parameter \
	    "option notify_script '/root/it is mine'" \
	    env "NOTIFY_SCRIPT=/root/it is mine"
	check "openwrt: no notify script" parameter "" env ""
	check "openwrt: stdout is logged" parameter "" stdout 1
	check "openwrt: stdout not logged" \
	    parameter "option log_stdout '0'" stdout 0
	check "openwrt: stderr is logged" parameter "" stderr 1
	check "openwrt: stderr not logged" \
	    parameter "option log_stderr '0'" stderr 0
	check "openwrt: reload on a change of the file" \
	    parameter "" reload-on-config natmap
	check "openwrt: sections disabled, unnamed, of another type" disabled
	check "openwrt: the config file that is shipped" shipped
	check "openwrt: start tidies status files" tidied
	check "openwrt: stop of one instance" \
	    stopped "natmap.s13.pid natmap/13.json" s12
	check "openwrt: stop of one that does not run" stopped \
	    "natmap.s12.pid natmap.s13.pid natmap/12.json natmap/13.json" s14
	check "openwrt: stop removes status files" stopped ""
	check "openwrt: procd tells the process's id" \
	    parameter "" pidfile /var/run/natmap.main.pid
	check "openwrt: absent options are those that are shipped" defaults
	check "openwrt: not a number" \
	    refused "option interval 'often'" "often"
	check "openwrt: no port" refused "option port '99999'" "99999"
}

# A buildroot of just enough to run the recipe.
buildroot() {
	mkdir -p "$dir/build/include" "$dir/build/out"
	cat >"$dir/build/rules.mk" <<-\END
	INCLUDE_DIR := $(TOPDIR)/include
	PKG_BUILD_DIR = $(TOPDIR)/out/$(PKG_NAME)-$(PKG_VERSION)
	INSTALL_DIR := install -d -m0755
	INSTALL_BIN := install -m0755
	INSTALL_CONF := install -m0600
	CP := cp -fpR
	TARGET_CC := cc
	TARGET_CFLAGS := -Os -DFROM_BUILDROOT
	TARGET_LDFLAGS := -s
	END
	cat >"$dir/build/include/package.mk" <<\END
define BuildPackage
  $(eval $(call Package/$(1)))
all:
	$$(Build/Prepare)
	$$(Build/Compile)
	$$(call Package/$(1)/install,$(TOPDIR)/root)
	@echo package $(1) $(PKG_NAME) $(PKG_VERSION) >$(TOPDIR)/version
	@echo $$(Package/$(1)/conffiles) >$(TOPDIR)/conffiles
	@echo $(PROVIDES)/$(CONFLICTS) >$(TOPDIR)/relations
	@echo $(PKG_FILE_DEPENDS) >$(TOPDIR)/depends
endef
END
}

recipe() {
	if ! env -u MAKEFLAGS make -C "$openwrt" TOPDIR="$dir/build" all \
	    >"$dir/make.log" 2>&1 ||
	    ! grep -q '^cc .*-Os -DFROM_BUILDROOT' "$dir/make.log"; then
		sed 's/^/# /' "$dir/make.log"
		return 1
	fi
	version=$(sed -n 's/^#define VERSION[^"]*"\(.*\)"/\1/p' natmap.h)
	same "package natmap-ng natmap-ng $version" \
	    "$(cat "$dir/build/version")" &&
	    same /etc/config/natmap "$(cat "$dir/build/conffiles")"
}

# Both package managers install it in place of the feed's package, satisfy with
# it what depends on that one, and never upgrade it to that one.
relations() {
	same natmap/natmap "$(cat "$dir/build/relations")"
}

# All that the build takes, and nothing that a build makes.
rebuilt() {
	same "$(cd "$openwrt/../.." && echo "$PWD"/*.[ch] "$PWD"/Makefile |
	    tr ' ' '\n' | sort)" \
	    "$(tr ' ' '\n' <"$dir/build/depends" | xargs realpath | sort)"
}

installed() {
	same "600 ./etc/config/natmap
755 ./etc/init.d/natmap
755 ./usr/bin/natmap
755 ./usr/lib/natmap/update.sh" "$(cd "$dir/build/root" &&
	    find . -type f -exec stat -c '%a %n' {} + | sort -k2)"
}

runs() {
	case $("$dir/build/root/usr/bin/natmap" 2>&1) in
	*"Version: $version") ;;
	*) return 1 ;;
	esac
}

# NAME DROP-INS...: an instance with them, in a folder of its own
unit() {
	units=$dir/units/$1
	service=$units/natmap@$1.service
	mkdir -p "$service.d"
	shift
	# systemd wants to see the programs that it would start
	ln -sf /bin/true "$units/natmap"
	sed "s|^ExecStart=natmap|ExecStart=$units/natmap|" \
	    contrib/systemd/natmap@.service >"$service"
	for file; do
		sed "s|=/usr.*/dnat-nft.sh|=$units/natmap|" \
		    "contrib/systemd/$file.conf" >"$service.d/$file.conf"
	done
}

# EXPOSURE NAME DROP-INS...: good, and not more exposed than that (tenths)
exposed() {
	limit=$1
	shift
	unit "$@"
	said=$(systemd-analyze verify --man=no "$service" 2>&1) &&
	    same "" "$said" &&
	    LC_ALL=C.UTF-8 SYSTEMD_UNIT_PATH=$units: \
	    systemd-analyze security --no-pager --offline=true \
	    --threshold="$limit" "$service" >"$dir/exposure" || return
	# capabilities are reported when the drop-ins were read, only then
	if [ $# -gt 1 ]; then
		grep -q '✗ CapabilityBoundingSet=' "$dir/exposure"
	else
		! grep -q '✗ CapabilityBoundingSet=' "$dir/exposure"
	fi
}

systemd() {
	check "systemd: base" exposed 16 base
	check "systemd: low-port" exposed 18 low low-port
	check "systemd: device" exposed 18 dev device
	check "systemd: share-port" exposed 31 share share-port
	check "systemd: firewall" exposed 18 fw firewall
	check "systemd: all" exposed 35 all low-port device share-port firewall
}

# DROP-IN PYTHON: what it is for works with its capabilities, not without
capable() {
	caps=$(sed -n 's/^AmbientCapabilities=CAP_/,+/p' \
	    "contrib/systemd/$1.conf" | tr '[:upper:]' '[:lower:]')
	with "-all$caps" "$2" && ! with -all "$2" 2>/dev/null
}

with() {
	unshare -n setpriv --reuid=65534 --clear-groups --inh-caps="$1" \
	    --ambient-caps="$1" --bounding-set="$1" --no-new-privs \
	    /usr/bin/python3 -c "from socket import *; s = socket(); $2"
}

capabilities() {
	check "systemd: low-port's capabilities" \
	    capable low-port "s.bind(('', 22))"
	check "systemd: device's capabilities, -f" \
	    capable device "s.setsockopt(SOL_SOCKET, SO_MARK, 1)"
	check "systemd: device's capabilities, -i anew" capable device \
	    "[s.setsockopt(SOL_SOCKET, SO_BINDTODEVICE, b'lo')
	    for again in (1, 2)]"
}

shell_files() {
	find contrib -name '*.sh' -o -name '*.init'
	echo tests/contrib.sh
	echo tests/hooks.sh
}

# CONTRIBUTING.md: the targets, the files and the tests that it names
contributing() {
	wrong=$(
		grep -o 'make [a-z][a-z-]*' CONTRIBUTING.md | cut -d ' ' -f 2 |
		    while read -r name; do
			grep -q "^$name:" Makefile || echo "make $name"
		done
		grep -oE '(tests/)?[A-Za-z0-9_]+\.(md|[ch8]|sh)\b' CONTRIBUTING.md |
		    while read -r name; do
			[ -f "$name" ] || echo "$name"
		done
		grep -q '^rfc5769_samples(' tests/test_stun.c || echo unit test
		bash tests/e2e_udp.sh --list | grep -q '^held ' || echo case
	)
	same "" "$wrong"
}

lint() {
	shell_files | xargs shellcheck
}

# Tabs count 8.
narrow() {
	# shellcheck disable=SC2046	# files
	wide=$(cat CHANGELOG.md CONTRIBUTING.md $(find contrib -type f) | expand | grep -c '.\{81\}')
	same 0 "$wide"
}

trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM

buildroot
check "openwrt: recipe builds" recipe
check "openwrt: recipe installs" installed
check "openwrt: recipe takes the place of the feed's" relations
check "openwrt: recipe builds again what has changed" rebuilt
check "openwrt: what it built runs" runs
if [ "$(id -u)" = 0 ] && command -v busybox >/dev/null; then
	device
	init_script
	status_files
else
	echo "skip openwrt: needs root (chroot) and busybox"
fi
if systemd-analyze --version >/dev/null 2>&1; then
	systemd
else
	echo "skip systemd: no systemd-analyze"
fi
if [ "$(id -u)" = 0 ]; then
	capabilities
else
	echo "skip systemd: capabilities: needs root"
fi
if command -v shellcheck >/dev/null; then
	check "contrib: shellcheck" lint
else
	echo "skip contrib: shellcheck: not installed"
fi
check "contrib: 80 columns" narrow
check "CONTRIBUTING.md names what is there" contributing
exit $failed
