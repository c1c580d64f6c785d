#!/bin/bash
# SPDX-License-Identifier: MIT
# Kernels that lack a call: TCP and UDP go on in both modes.
. "$(dirname "$0")/lab.sh"

# without CALLS ARGS: natmap on such a kernel
without() {
	local name=$2
	NATMAP_WRAP="$PY $TESTS/lab/deny.py $1 $NATMAP_WRAP" nm "$name" "${@:3}"
}

# old CALLS: services that share their port, and a target
old() {
	local n
	case $(uname -m) in
	x86_64|aarch64|riscv64) ;;
	*) skip "no numbers of calls" ;;
	esac
	lab_up
	nat r2 cone 5000:40000 5001:40001 5002:40002 5003:40003
	coturn turn $S1 $S2
	www www
	py h1 tcp echo tcp 0.0.0.0 5000 reuseport
	py h1 udp echo udp 0.0.0.0 5001 reuseport
	py h2 target echo tcp 0.0.0.0 9
	py h2 targetu echo udp 0.0.0.0 9
	py h2 sink sink 0.0.0.0 10
	without "$1" n0 -s $S1,$S2 -h $WWW -b 5000 -k 1
	without "$1" n1 -u -s $S1,$S2 -b 5001 -k 1
	without "$1" n2 -s $S1,$S2 -h $WWW -b 5002 -k 1 -t 192.168.1.20 -p 9
	without "$1" n3 -u -s $S1,$S2 -b 5003 -k 1 -t 192.168.1.20 -p 9
	for n in 0 1 2 3; do
		mapped n$n 1
		eq "$(echo "$LINE" | cut -d ' ' -f 1,2)" "$PUBLIC 4000$n" n$n
	done
	# checks open new flows meanwhile
	probe tcp $PUBLIC 40000 12 0.4
	probe udp $PUBLIC 40001 12 0.4
	net out many tcp $PUBLIC 40002 40
	net out many udp $PUBLIC 40003 40
	net out sizes $PUBLIC 40003 1 1472 1472 1472 8000
	for n in 0 1 2 3; do
		alive n$n
		eq "$(lines "$D/n$n.out")" 1 "lines of n$n"
		hasnt "$D/n$n.err" 'cannot|not implemented|not available'
	done
	nm_stop n2
	without "$1" n2 -s $S1 -b 5002 -k 1 -t 192.168.1.20 -p 10
	mapped n2 1
	net out bulk $PUBLIC 40002 8
}

for call in getrandom sendmmsg recvmmsg close_range signalfd4 \
    UDP_SEGMENT splice pipe2 pidfd_open,pidfd_getfd,pidfd_send_signal; do
	name=no_${call%%,*}
	eval "t_$name() { old $call; }"
	quick "$name" 60
done

# Before Linux 3.9 nothing shares a port with a listener that is there: bind
# mode in TCP needs one that comes later.
t_no_reuseport() {
	local n before=SO_REUSEPORT,pidfd_open
	lab_up
	nat r2 cone 5000:40000 5001:40001 5002:40002 5003:40003
	coturn turn $S1 $S2
	www www
	LAB_SHARE=1 py h1 udp echo udp 0.0.0.0 5001
	py h2 target echo tcp 0.0.0.0 9
	py h2 targetu echo udp 0.0.0.0 9
	without $before n0 -s $S1,$S2 -h $WWW -b 5000 -k 1
	without $before n1 -u -s $S1,$S2 -b 5001 -k 1
	without $before n2 -s $S1,$S2 -h $WWW -b 5002 -k 1 -t 192.168.1.20 -p 9
	without $before n3 -u -s $S1,$S2 -b 5003 -k 1 -t 192.168.1.20 -p 9
	for n in 0 1 2 3; do
		mapped n$n 1
	done
	py h1 tcp echo tcp 0.0.0.0 5000
	said n0 'TCP port 5000: in use by.*sharing it needs Linux 5.6' 8
	reached tcp $PUBLIC 40000
	probe udp $PUBLIC 40001 12 0.4
	net out many udp $PUBLIC 40003 40
	bg out session "$PY" "$NET" hold $PUBLIC 40002 8 0.5
	for n in 1 2 3 4 5 6 7 8 9; do
		reached tcp $PUBLIC 40002
		sleep 0.5
	done
	soon 12 "the session was cut" grep -q alive "$D/session.log"
	for n in 1 2 3; do
		alive n$n
		eq "$(lines "$D/n$n.out")" 1 "lines of n$n"
		hasnt "$D/n$n.err" 'cannot|not available|in use'
	done
}

# the same with a port that the kernel chooses
t_no_reuseport_any_port() {
	local port
	lab_up
	nat r2 learn timeout=2
	coturn turn $S1 $S2
	py h2 target echo tcp 0.0.0.0 9
	without SO_REUSEPORT n -s $S1,$S2 -k 1 -t 192.168.1.20 -p 9
	mapped n 1
	port=$(echo "$LINE" | cut -d ' ' -f 4)
	reached tcp $PUBLIC "$port"
	sleep 4
	reached tcp $PUBLIC "$port"
	eq "$(lines "$D/n.out")" 1 lines
}

quick no_reuseport 60
quick no_reuseport_any_port 40
lab_main "$@"
