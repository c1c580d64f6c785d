#!/bin/sh
# shellcheck disable=SC2317	# start() calls the functions
# Measures natmap beside other relays and beside a direct connection, all in
# one run, in turns, on the loopback of a network namespace of its own.  It
# prints one table of medians and ratios, and which of the goals were met.
#
#	BENCH_QUICK=1	one round of natmap, haproxy, nginx, direct
#	BENCH_ROUNDS=N	otherwise, 3 by default
#	BENCH_TOOLS=	which ones
#	BENCH_LOG=1	also what they said
#	NATMAP=		the binary
#	BENCH_OLD=	another one, to compare it with in the same turns
#
# Every relay runs as one process with one thread, but for socat, which forks
# for every session.  Its CPU time and memory are those of its whole tree.
# It needs root.  What else runs on the machine shows in all throughputs; the
# CPU times and the ratios suffer least.

cd "$(dirname "$0")/../.." || exit
if [ -z "$BENCH_INSIDE" ]; then
	BENCH_INSIDE=1 exec unshare -n --pid --fork --kill-child \
	    --mount-proc sh tests/tools/bench.sh
fi

natmap=${NATMAP:-./natmap}
tools="natmap haproxy nginx socat rinetd direct"
rounds=${BENCH_ROUNDS:-3}
if [ -n "$BENCH_QUICK" ]; then
	tools="natmap haproxy nginx direct"
	rounds=1
fi
tools=${BENCH_TOOLS:-$tools}${BENCH_OLD:+ old}
files=16384		# descriptors: 5,000 sessions and some more
target=7001
port=7010		# of a relay; another one for each start
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM

PATH=$PATH:/usr/sbin:/sbin
have() {
	case $1 in
	direct) true ;;
	natmap) [ -x "$natmap" ] ;;
	old) [ -x "$BENCH_OLD" ] ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

haproxy_tcp() {
	cat >"$dir/$port.conf" <<-END
	global
		nbthread 1
		maxconn 6000
	defaults
		mode tcp
		timeout connect 5s
		timeout client 300s
		timeout server 300s
	listen relay
		bind 127.0.0.1:$port
		server target 127.0.0.1:$target
	END
	haproxy -db -q -f "$dir/$port.conf" &
}

# TYPE: "" or udp
nginx_conf() {
	module=/usr/lib/nginx/modules/ngx_stream_module.so
	[ ! -e "$module" ] || echo "load_module $module;"
	cat <<-END
	daemon off;
	worker_processes 1;
	pid $dir/$port.pid;
	error_log stderr crit;
	events { worker_connections $files; }
	stream {
		server {
			listen 127.0.0.1:$port $1;
			proxy_pass 127.0.0.1:$target;
			proxy_timeout 300s;
		}
	}
	END
}

nginx_tcp() {
	nginx_conf "" >"$dir/$port.conf"
	nginx -q -c "$dir/$port.conf" &
}

nginx_udp() {
	nginx_conf udp >"$dir/$port.conf"
	nginx -q -c "$dir/$port.conf" &
}

socat_tcp() {
	socat "TCP4-LISTEN:$port,bind=127.0.0.1,backlog=4096,fork,nodelay" \
	    "TCP4:127.0.0.1:$target,nodelay" &
}

socat_udp() {
	socat "UDP4-LISTEN:$port,bind=127.0.0.1,fork" \
	    "UDP4:127.0.0.1:$target" &
}

rinetd_tcp() {
	cat >"$dir/$port.conf" <<-END
	127.0.0.1 $port 127.0.0.1 $target
	pidlogfile $dir/$port.pid
	END
	rinetd -f -c "$dir/$port.conf" >/dev/null &
}

# BINARY [OPTION]
run_natmap() {
	"$@" -q -s 127.0.0.1 -b "$port" -t 127.0.0.1 -p "$target" \
	    -n 6000 >/dev/null &
}

natmap_tcp() {
	run_natmap "$natmap"
}

natmap_udp() {
	run_natmap "$natmap" -u
}

old_tcp() {
	run_natmap "$BENCH_OLD"
}

old_udp() {
	run_natmap "$BENCH_OLD" -u
}

# TOOL TYPE: starts it; what it cannot relay it does not start for
start() {
	echo "$1 $2" >>"$dir/log"
	if [ "$1" = direct ]; then
		echo "$target 0" >"$dir/$1.$2"
		return
	fi
	case "$1 $2" in
	"haproxy udp" | "rinetd udp") return ;;
	esac
	port=$((port + 1))
	"$1_$2" 2>>"$dir/log"
	echo "$port $!" >"$dir/$1.$2"
}

# TOOL TYPE
stop() {
	[ -e "$dir/$1.$2" ] || return
	read -r at pid <"$dir/$1.$2"
	rm "$dir/$1.$2"
	[ "$pid" -ne 0 ] || return
	read -r children <"/proc/$pid/task/$pid/children"
	# shellcheck disable=SC2086	# a list
	kill "$pid" $children 2>/dev/null
	wait "$pid" 2>/dev/null
}

# TOOL TYPE TEST SECONDS N...
load() {
	[ -e "$dir/$1.$2" ] || return
	read -r at pid <"$dir/$1.$2"
	tool=$1
	shift 2
	case "$tool $1" in
	"socat conns") pid=0 ;;	# its processes are gone when they are counted
	esac
	timeout 60 "$dir/load" "$at" "$target" "$pid" "$@" 2>>"$dir/log" |
	    sed "s/^/$tool /" >>"$dir/results"
}

# VERB ARGUMENT...: for all tools
each() {
	verb=$1
	shift
	for relay in $found; do
		"$verb" "$relay" "$@"
	done
}

# TOOL: with a fresh relay, since few give memory back
idle() {
	levels="0 100 1000 5000"
	case $1 in
	rinetd | socat) levels="0 100 1000" ;;	# 5000 take minutes
	esac
	start "$1" tcp
	# shellcheck disable=SC2086	# a list
	load "$1" tcp idle 0.4 $levels
	stop "$1" tcp
}

# All relays are there and one is at work, so that the turns are short and
# what else the machine does hurts all alike.
turn() {
	each load tcp bulk 0.5 1
	each load tcp bulk 0.5 8
	each load tcp conns 0.5 1
	each load tcp conns 0.5 32
	each load tcp nagle 1 300
	each load udp udp 0.5 32
	each load udp flood 0.5 1
}

measure() {
	each start tcp
	each start udp
	turn
	turn
	each stop tcp
	each stop udp
	each idle
}

# every tool's median of every figure
medians() {
	sort -k 1,1 -k 2,2 -k 3,3g "$dir/results" | awk '
	function flush() {
		if (n)
			print key, (v[int((n + 1) / 2)] + v[int(n / 2) + 1]) / 2
		n = 0
	}
	$1 " " $2 != key {
		flush()
		key = $1 " " $2
	}
	{
		v[++n] = $3
	}
	END {
		flush()
	}' >"$dir/medians"
}

# shellcheck disable=SC2016	# awk: the medians are m[tool, name]
read_medians='
	FILENAME != "-" {
		m[$1, $2] = $3
		next
	}
	function ratio(name, t) {
		if (!(("natmap", name) in m) || !((t, name) in m))
			return "-"
		return m[t, name] ? sprintf("%.2f",
		    m["natmap", name] / m[t, name]) : "-"
	}'

# SIGN|NAME|LABEL: + is better with more of it, - with less
table() {
	awk -v have="$found" "$read_medians"'
	function figure(t, name,	x) {
		if (!((t, name) in m))
			return "-"
		x = m[t, name]
		return sprintf(x < 10 ? "%.3f" : x < 100 ? "%.1f" : "%d", x)
	}
	# the best of the other relays
	function best(name, more,	i, b, t) {
		b = "-"
		for (i = 1; i <= n; i++) {
			t = tool[i]
			if (t ~ /^(natmap|old|direct)$/ || !((t, name) in m))
				continue
			if (b == "-" || (m[t, name] > m[b, name]) == more)
				b = t
		}
		return b
	}
	function row(label) {
		printf "%-34s", label
		for (i = 1; i <= n; i++)
			printf " %8s", head ? figure(tool[i], f[2]) : tool[i]
	}
	BEGIN {
		n = split(have, tool, " ")
	}
	{
		if (!head) {
			row("")
			print " /haproxy   /nginx    /best"
		}
		head = 1
		split($0, f, "|")
		row(f[3])
		b = best(f[2], f[1] == "+")
		printf " %8s %8s %8s %s\n", ratio(f[2], "haproxy"),
		    ratio(f[2], "nginx"), ratio(f[2], b), b
	}' "$dir/medians" - <<-END
	+|bulk_1|bulk, 1 stream, GiB/s
	+|bulk_8|bulk, 8 streams, GiB/s
	-|bulk_cpu_1|relay CPU s/GiB, 1 stream
	-|bulk_cpu_8|relay CPU s/GiB, 8 streams
	+|conns_1|connections/s, 1 at once
	+|conns_32|connections/s, 32 at once
	-|conns_cpu_1|relay CPU us each, 1 at once
	-|conns_cpu_32|relay CPU us each, 32 at once
	-|hot_p50_0|round trip us, p50
	-|hot_p99_0|round trip us, p99
	-|hot_p50_100|  100 idle, p50
	-|hot_p99_100|  100 idle, p99
	-|hot_p50_1000|  1000 idle, p50
	-|hot_p99_1000|  1000 idle, p99
	-|hot_p50_5000|  5000 idle, p50
	-|hot_p99_5000|  5000 idle, p99
	-|cold_p50_100|cold first byte us, 100 idle, p50
	-|cold_p99_100|  100 idle, p99
	-|cold_p50_1000|  1000 idle, p50
	-|cold_p99_1000|  1000 idle, p99
	-|cold_p50_5000|  5000 idle, p50
	-|cold_p99_5000|  5000 idle, p99
	-|slow_cpu_1000|CPU %, 100 trips/s, 1000 idle
	-|idle_wakes_1000|wake-ups/s, all of 1000 idle
	-|two_writes_p50_0|two writes, then read, us, p50
	-|session_bytes|private bytes per idle session
	-|session_files|descriptors per session
	+|udp|UDP 64 B, 32 out, round trips/s
	-|udp_cpu|relay CPU us each
	+|flood|UDP 64 B flood, delivered/s
	-|flood_cpu|relay CPU us each, of delivered
	END
}

# NAME|TOOL|OP|LIMIT|LABEL: of the ratio to that tool, or of the figure itself
goals() {
	awk "$read_medians"'
	function is_met(x, op, limit) {
		if (op == "<=")
			return x <= limit
		return op == ">=" ? x >= limit : x == limit
	}
	{
		split($0, f, "|")
		if (f[2] != "")
			x = ratio(f[1], f[2])
		else
			x = ("natmap", f[1]) in m ? m["natmap", f[1]] : "-"
		said = is_met(x + 0, f[3], f[4] + 0) ? "met" : "MISSED"
		printf "%-12s %s: %s, goal %s %s\n",
		    x == "-" ? "not measured" : said, f[5], x, f[3], f[4]
	}' "$dir/medians" - <<-END
	bulk_cpu_1|haproxy|<=|0.25|CPU per GiB, to haproxy's
	bulk_1|haproxy|>=|2.5|bulk throughput, to haproxy's
	conns_32|nginx|>=|1|connections/s, 32 at once, to nginx's
	hot_p50_0|haproxy|<=|1|round trip, to haproxy's
	hot_p50_1000|haproxy|<=|1|round trip, 1000 idle, to haproxy's
	hot_p50_5000|haproxy|<=|1.3|round trip, 5000 idle, to haproxy's
	cold_mean_1000||<=|1000|cold first byte, 1000 idle, mean us
	slow_cpu_1000|nginx|<=|1.5|CPU of 100 trips/s, to nginx's
	two_writes_p50_0|nginx|<=|1.1|two writes then read, to nginx's
	session_bytes||<=|200|private bytes per idle session
	session_files||=|2|descriptors per session
	udp|nginx|>=|1.4|UDP round trips, to nginx's
	flood|nginx|>=|2.3|UDP flood, to nginx's
	END
}

# shellcheck disable=SC3045	# every sh in use has it
ulimit -n "$files" || exit
ip link set lo up || exit
echo 16384 65535 >/proc/sys/net/ipv4/ip_local_port_range
# BBR, where it is the default, paces the loopback too: its timers would be
# most of what bulk transfers cost.
echo reno >/proc/sys/net/ipv4/tcp_congestion_control
${CC:-cc} -std=c99 -O2 -o "$dir/load" tests/tools/load.c || exit
if command -v turnserver >/dev/null; then
	turnserver -n -L 127.0.0.1 --no-tls --no-dtls --no-cli -m 1 \
	    -l stdout --pidfile "$dir/turn.pid" >/dev/null 2>&1 &
fi
for tool in $tools; do
	if have "$tool"; then
		found="$found $tool"
	else
		echo "$tool: not found, left out"
	fi
done
echo "$(date +%F), $(uname -sr), $(sed -n \
    's/^model name[^:]*: *//p;s/^cpu model[^:]*: *//p' /proc/cpuinfo |
    head -n 1), $(nproc) cores, medians of $rounds rounds"
round=0
while [ "$round" -lt "$rounds" ]; do
	round=$((round + 1))
	echo "round $round" >&2
	measure
done
medians
echo
table
echo
goals
[ -z "$BENCH_LOG" ] || cat "$dir/log"
exit 0
