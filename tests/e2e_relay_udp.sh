#!/bin/bash
# SPDX-License-Identifier: MIT
# Forward mode, UDP: from a client outside through the NAT to h2.
. "$(dirname "$0")/lab.sh"

TARGET=192.168.1.20

lab() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
}

# relay PORT ARGS ...
relay() {
	local port=$1
	shift
	nm n -u -s $S1,$S2 -b 5000 -k 2 -t $TARGET -p "$port" "$@"
	mapped n 1
	eq "$(echo "$LINE" | cut -d ' ' -f 1,2)" "$PUBLIC 40000" mapped
}

t_echo_and_target_sees_natmap() {
	lab
	py h2 svc echo udp $TARGET 9000
	py h2 who whoami udp $TARGET 9001
	relay 9000
	eq "$LINE" "$PUBLIC 40000 2001::9c40:c633:640a 5000 udp $HOST" line
	probe udp $PUBLIC 40000 20 0
	nm_stop n
	relay 9001
	has <(net out ask udp $PUBLIC 40000) "^$HOST " "the target's client"
}

t_datagrams_of_all_sizes() {
	lab
	py h2 svc echo udp $TARGET 9000
	relay 9000
	net out sizes $PUBLIC 40000 0 1 1400 1472 1473 9000 32768 65507
	probe udp $PUBLIC 40000
}

t_ipv6() {
	lab
	coturn turn6 $S1V6
	py h2 svc echo udp :: 9000
	nm n -6 -u -s $S1V6 -b 5000 -k 2 -t 2001:db8:1::20 -p 9000
	mapped n 1
	probe udp $PUBLICV6 40000 5 0
	net out sizes $PUBLICV6 40000 1 1400 65507
}

# the answer comes from the address that the client used
t_answers_from_the_address_asked() {
	lab
	py h2 svc echo udp $TARGET 9000
	addr h1 eth0 192.168.1.11/24
	relay 9000
	net h2 ask udp 192.168.1.11 5000 hello > "$D/got"
	eq "$(cat "$D/got")" hello "second address"
	net h2 ask udp $HOST 5000 hello > "$D/got"
	eq "$(cat "$D/got")" hello "first address"
}

clients() {
	lab
	py h2 svc echo udp $TARGET 9000
	relay 9000 -n $(($1 + 50))
	at out sh -c 'ulimit -n 10000' || skip "not that many descriptors"
	net out many udp $PUBLIC 40000 "$1" 2
	sleep 2.5
	eq "$(lines "$D/n.out")" 1 lines
}

t_clients_300() {
	clients 300
}

t_clients_2000() {
	clients 2000
}

t_table_full_makes_room() {
	lab
	py h2 svc echo udp $TARGET 9000
	relay 9000 -n 20
	# 20 clients, each a fifth of a second after the last at least
	probe udp $PUBLIC 40000 200 0.03
	eq "$(lines "$D/n.out")" 1 lines
}

# those that were never answered make room before the one that talks
t_silent_ones_go_first() {
	lab
	py h2 svc echo udp $TARGET 9000 deaf=junk
	relay 9000 -n 20
	bg out talker "$PY" "$NET" holdudp $PUBLIC 40000 8 0.3
	sleep 1
	at out "$PY" -c "
import socket, time
for i in range(300):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b'junk', ('$PUBLIC', 40000))
    s.close()
    time.sleep(0.02)"
	soon 10 talker grep -q answered "$D/talker.log"
	has "$D/talker.log" 'answered ([0-9]+) of \1$' "the talking session"
}

t_refused_target_keeps_session() {
	lab
	relay 9000
	at out "$PY" -c "
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.3)
s.connect(('$PUBLIC', 40000))
for i in range(60):
    s.send(b'again')
    try:
        print(s.recv(100).decode(), s.getsockname()[1] > 0, flush=True)
        sys.exit()
    except OSError:
        time.sleep(0.1)
sys.exit(1)" > "$D/client.log" &
	PID[client]=$!
	sleep 1.5
	py h2 svc echo udp $TARGET 9000
	soon 10 "no answer after the target came" grep -q again "$D/client.log"
	alive n
}

t_idle_timeout() {
	local before
	lab
	py h2 svc echo udp $TARGET 9000
	relay 9000 -T 2
	sleep 1
	before=$(fds n)
	probe udp $PUBLIC 40000 10 0
	between $((before + 9)) "$(fds n)" $((before + 12)) "descriptors"
	# shellcheck disable=SC2016
	soon 6 "idle sessions are left" eval '[ "$(fds n)" -le '"$before"' ]'
	net out holdudp $PUBLIC 40000 5 1
}

t_held_and_checked() {
	lab
	nat r2 learn timeout=3 5000:40000
	ct r2 udp_timeout=2 udp_timeout_stream=2
	py h2 svc echo udp $TARGET 9000
	relay 9000
	probe udp $PUBLIC 40000 16 0.5
	nat r2 learn timeout=3 5000:40001
	forget r2
	mapped n 2 6
	probe udp $PUBLIC 40001
	lost_when_stopped n udp $PUBLIC 40001 2
}

# sessions survive a dead STUN server
t_dead_stun_server() {
	lab
	py h2 svc echo udp $TARGET 9000
	relay 9000
	bg out talker "$PY" "$NET" holdudp $PUBLIC 40000 10 0.2
	sleep 1
	mute $S1 $S2
	sleep 5
	stop turn
	mute
	soon 10 talker grep -q answered "$D/talker.log"
	has "$D/talker.log" 'answered ([0-9]+) of \1$' "the session"
	alive n
}

t_target_port_is_public_port() {
	lab
	py h2 svc echo udp $TARGET 40000
	nm n -u -s $S1 -b 5000 -k 2 -t $TARGET -p 0
	mapped n 1
	reached udp $PUBLIC 40000
}

# a stream of datagrams both ways, as of a tunnel, for several intervals
t_long_session() {
	lab
	py h2 svc echo udp $TARGET 9000
	relay 9000 -T 3
	net out holdudp $PUBLIC 40000 9 0.02
}

t_iperf3() {
	lab
	need iperf3
	bg h2 iperf iperf3 -s -B $TARGET -p 9000
	soon 5 iperf3 listens h2 tcp 9000
	# its control connection takes the other way
	nm c -s $S1 -b 5000 -t $TARGET -p 9000
	relay 9000
	mapped c 1
	at out iperf3 -c $PUBLIC -p 40000 -u -b 20M -l 1200 -t 3 \
	    > "$D/iperf.out"
	eq "$(awk '/receiver/ { gsub(/[()%]/, ""); print ($(NF - 1) < 5) }' \
	    "$D/iperf.out")" 1 "loss under 5 %: $(grep receiver "$D/iperf.out")"
}

quick echo_and_target_sees_natmap 40
quick datagrams_of_all_sizes 50
quick ipv6 40
# needs IP_PKTINFO
[ -n "${NATMAP_PORTABLE:-}" ] || quick answers_from_the_address_asked 40
quick clients_300 50
long clients_2000 120
quick table_full_makes_room 50
quick silent_ones_go_first 50
quick refused_target_keeps_session 50
quick idle_timeout 50
quick held_and_checked 60
quick dead_stun_server 50
quick target_port_is_public_port 40
quick long_session 50
long iperf3 60
lab_main "$@"
