#!/bin/bash
# SPDX-License-Identifier: MIT
# Bind mode beside a service that runs already, and -i, -f, -b.
. "$(dirname "$0")/lab.sh"

lab() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
	www www
}

# shares TCP|UDP ARGS: a service of another user that set no SO_REUSEPORT
shares() {
	mapped n 1
	eq "$(echo "$LINE" | cut -d ' ' -f 1,2)" "$PUBLIC 40000" mapped
	probe "$1" $PUBLIC 40000 8 0.4
	alive svc
}

t_tcp_of_another_user() {
	lab
	py h1 svc echo tcp 0.0.0.0 5000 uid=65534
	nm n -s $S1 -h $WWW -b 5000 -k 1
	shares tcp
}

t_udp_of_another_user() {
	lab
	py h1 svc echo udp 0.0.0.0 5000 uid=65534
	nm n -u -s $S1 -b 5000 -k 1
	shares udp
}

t_tcp_on_both_families() {
	lab
	cat > "$D/dual.py" <<-EOF
	import socket
	s = socket.create_server(('::', 5000), family=socket.AF_INET6,
	    dualstack_ipv6=True)
	print('ready', flush=True)
	while True:
	    c = s.accept()[0]
	    c.sendall(c.recv(100))
	    c.close()
	EOF
	bg h1 svc "$PY" "$D/dual.py"
	soon 5 service grep -q ready "$D/svc.log"
	nm n -s $S1 -h $WWW -b 5000 -k 1
	shares tcp
}

t_tcp_with_live_sessions() {
	lab
	py h1 svc echo tcp 0.0.0.0 5000 uid=65534
	bg out session "$PY" "$NET" hold $PUBLIC 40000 9 0.5
	soon 5 session grep -q up "$D/session.log"
	nm n -s $S1 -h $WWW -b 5000 -k 1
	shares tcp
	soon 12 "the session was cut" grep -q alive "$D/session.log"
}

# a server that starts again under another pid, as another user
t_service_restarts() {
	lab
	py h1 svc echo tcp 0.0.0.0 5000 uid=65534
	nm n -s $S1 -h $WWW -b 5000 -k 1
	shares tcp
	stop svc
	sleep 1.5
	py h1 svc echo tcp 0.0.0.0 5000 reuseport
	reached tcp $PUBLIC 40000 6
	sleep 3
	reached tcp $PUBLIC 40000
	eq "$(lines "$D/n.out")" 1 lines
}

# in UDP we never keep a service from its port
t_udp_service_restarts_any_time() {
	local _
	lab
	nm n -u -s $S1 -b 5000 -k 1
	mapped n 1
	for _ in 1 2 3 4 5 6; do
		py h1 svc echo udp 0.0.0.0 5000 uid=65534
		sleep 0.7
		reached udp $PUBLIC 40000 2
		stop svc
	done
}

# twin ARGS: a second natmap names the first as the one that has the port, and
# says so once
twin() {
	nm two "$@"
	said two "port 5000: in use by natmap \(pid ${PID[one]}," 8
	sleep 3
	eq "$(count "$D/two.err" 'in use by')" 1 "said once"
	hasnt "$D/two.err" 'has not ended yet'
	nm_stop two
}

t_two_on_one_port() {
	lab
	py h1 svc echo tcp 0.0.0.0 5000
	nm one -s $S1,$S2 -h $WWW -b 5000 -k 1
	mapped one 1
	sleep 1
	twin -s $S1,$S2 -h $WWW -b 5000 -k 1
	stop svc
	nm_stop one
	nm one -s $S1 -b 5000 -k 1 -t 192.168.1.20 -p 9
	mapped one 1
	twin -s $S1 -b 5000 -k 1
	twin -s $S1 -b 5000 -k 1 -t 192.168.1.20 -p 9
}

t_nobody_listens_is_said_once() {
	lab
	nm n -s $S1 -h $WWW -b 5000 -k 1
	nm u -u -s $S1 -b 5001 -k 1
	said n '5000.*nobody listens' 8
	said u '5001.*nobody listens' 8
	sleep 4
	eq "$(count "$D/n.err" 'nobody listens')" 1 "tcp warnings"
	eq "$(count "$D/u.err" 'nobody listens')" 1 "udp warnings"
}

t_listener_is_not_warned_of() {
	lab
	py h1 svc echo tcp 0.0.0.0 5000
	py h1 svcu echo udp 0.0.0.0 5000
	nm n -s $S1 -h $WWW -b 5000 -k 1
	nm u -u -s $S1 -b 5000 -k 1
	mapped n 1
	mapped u 1
	sleep 5
	hasnt "$D/n.err" 'nobody listens'
	hasnt "$D/u.err" 'nobody listens'
}

# thief MODE: what a neighbour of another user gets of UDP port 5000
thief() {
	at h1 "$PY" - "$1" <<-'EOF'
	import os, socket, sys
	os.setuid(65534)
	for o in (2, 15), (2,), (15,):  # SO_REUSEADDR, SO_REUSEPORT
	    s = socket.socket(type=socket.SOCK_DGRAM)
	    for name in o:
	        s.setsockopt(socket.SOL_SOCKET, name, 1)
	    try:
	        s.bind(('0.0.0.0', 5000))
	        sys.exit('a neighbour has the port ' + sys.argv[1])
	    except OSError:
	        pass
	EOF
}

# in UDP SO_REUSEADDR would let every user take the service's datagrams
t_udp_neighbour_gets_nothing() {
	lab
	py h1 svc echo udp 0.0.0.0 5000
	nm n -u -s $S1 -b 5000 -k 1
	mapped n 1
	thief "while natmap runs"
	probe udp $PUBLIC 40000 8 0.4
	nm_stop n
	thief "after its end"
	nm n -1 -u -s $S1 -b 5000
	nm_wait n
	eq $STATUS 0 status
	thief "after --once"
	reached udp $PUBLIC 40000
}

# flags NAME: SO_REUSEADDR and SO_REUSEPORT of each socket of a service
flags() {
	"$PY" - "${PID[$1]}" <<-'EOF'
	import ctypes, os, socket, sys
	pid = os.pidfd_open(int(sys.argv[1]))
	for fd in sorted(map(int, os.listdir('/proc/%s/fd' % sys.argv[1]))):
	    link = os.readlink('/proc/%s/fd/%d' % (sys.argv[1], fd))
	    if link.startswith('socket:'):
	        s = socket.socket(fileno=ctypes.CDLL(None).syscall(
	            438, pid, fd, 0))  # pidfd_getfd
	        print(*[s.getsockopt(socket.SOL_SOCKET, o) for o in (2, 15)])
	EOF
}

# the service's sockets end as they began, the live connection too
t_flags_are_taken_back() {
	local kind tcp udp
	lab
	py h1 tcp echo tcp 0.0.0.0 5000 uid=65534
	py h1 udp echo udp 0.0.0.0 5000 uid=65534
	bg out session "$PY" "$NET" hold $PUBLIC 40000 30 0.5
	soon 5 session grep -q up "$D/session.log"
	tcp=$(flags tcp)
	udp=$(flags udp)
	for kind in -v -u; do
		nm n $kind -s $S1 -b 5000 -k 1
		mapped n 1
		sleep 2
		[ "$kind" = -v ] || eq "$(flags udp)" '0 1' "UDP, shared"
		nm_stop n
		eq "$(flags tcp)" "$tcp" "flags, TCP"
		eq "$(flags udp)" "$udp" "flags, UDP"
	done
}

# between bind and connect our flow takes datagrams of the service
t_udp_connect_follows_bind() {
	need strace
	lab
	py h1 svc echo udp 0.0.0.0 5000
	NATMAP_WRAP="strace -o $D/trace $NATMAP_WRAP" \
	    nm n -u -s $S1,$S2 -b 5000 -k 1
	mapped n 1
	sleep 3
	kill "$(pgrep -P "${PID[n]}")"
	nm_wait n
	between 3 "$(grep -c 'bind.*5000.* = 0' "$D/trace")" 20 binds
	eq "$(grep -A 1 'bind.*5000.* = 0' "$D/trace" | grep -c ^connect)" \
	    "$(grep -c 'bind.*5000.* = 0' "$D/trace")" "connect after bind"
}

# without root the port of another user cannot be shared: said, and retried
t_not_root() {
	lab
	py h1 svc echo tcp 0.0.0.0 5000
	NATMAP_WRAP="setpriv --reuid 65534 --clear-groups $NATMAP_WRAP" \
	    nm n -s $S1 -h $WWW -b 5000 -k 1
	said n 'TCP port 5000.*in use by.*uid 0'
	sleep 1
	eq "$(count "$D/n.err" 'in use by')" 1 "said once"
	alive n
	stop svc
	mapped n 1 10
	said n '5000.*can be used'
}

# a service that natmap cannot see is not the kernel's: another container has
# it, or a right is missing
t_service_that_cannot_be_seen() {
	need unshare setpriv
	lab
	py h1 svc echo tcp 0.0.0.0 5000
	py h1 svcu echo udp 0.0.0.0 5000
	NATMAP_WRAP="unshare -p -f --kill-child --mount-proc $NATMAP_WRAP" \
	    nm n -s $S1 -b 5000
	NATMAP_WRAP="setpriv --bounding-set -sys_ptrace $NATMAP_WRAP" \
	    nm c -s $S1 -b 5000
	NATMAP_WRAP="setpriv --bounding-set -sys_ptrace $NATMAP_WRAP" \
	    nm u -u -s $S1 -b 5000
	said n 'uid 0: it cannot be seen.*--pid=host.*SYS_PTRACE'
	said c 'uid 0: it cannot be seen.*--pid=host.*SYS_PTRACE'
	said u 'the kernel itself .WireGuard.*cannot be seen.*--pid=host'
}

t_range_moves_on_only_when_it_must() {
	lab
	nat r2 cone 5000:40000 5001:40001 5002:40002
	py h1 busy echo udp 0.0.0.0 5000
	NM_NS=h1 nm n -u -s $S1 -b 5000-5002 -k 1 -t 127.0.0.1 -p 9
	mapped n 1
	eq "$(echo "$LINE" | cut -d ' ' -f 2,4)" "40001 5001" "next in order"
	stop busy
	nm_stop n
	nm n -u -s $S1 -b 5000~5002 -k 1
	mapped n 1
	between 5000 "$(echo "$LINE" | cut -d ' ' -f 4)" 5002 "random port"
}

# who cannot share, and tries once, looks at the whole range
t_long_range_is_tried_at_once() {
	lab
	nat r2 cone 5030:40030
	bg h1 busy "$PY" -c 'if True:
	    import socket, time
	    held = [socket.socket(type=socket.SOCK_DGRAM) for i in range(30)]
	    for i, s in enumerate(held):
	        s.bind(("", 5000 + i))
	    print("ready", flush=True)
	    time.sleep(60)'
	soon 10 "the ports are not held" grep -q ready "$D/busy.log"
	NATMAP_WRAP="setpriv --reuid 65534 --clear-groups $NATMAP_WRAP" \
	    nm n -1 -u -s $S1 -b 5000-5030
	nm_wait n
	eq $STATUS 0 "status: $(cat "$D/n.err")"
	eq "$(cut -d ' ' -f 2,4 "$D/n.out")" "40030 5030" "the last port"
}

t_interface_and_source() {
	lab
	at h1 ip link add lan2 type veth peer name other
	at h1 ip link set lan2 up
	addr h1 eth0 192.168.1.11/24
	nat r2 cone host=192.168.1.11 5000:41000
	nm n -u -s $S1 -b 5000 -i 192.168.1.11
	mapped n 1
	eq "$(echo "$LINE" | cut -d ' ' -f 2,6)" "41000 192.168.1.11" source
	nm_stop n
	nat r2 cone 5000:40000
	nm n -s $S1 -h $WWW -b 5000 -i eth0
	mapped n 1
	eq "$(echo "$LINE" | cut -d ' ' -f 2,6)" "40000 $HOST" interface
	nm_stop n
	nm n -u -s $S1 -b 5000 -i lan2 -k 1
	sleep 3
	eq "$(lines "$D/n.out")" 0 "nothing through the wrong interface"
}

t_interface_that_comes_later() {
	lab
	nm n -u -s $S1 -b 5000 -i late0 -k 2
	said n 'late0.*not exist'
	sleep 1
	at h1 ip link set eth0 down
	at h1 ip link set eth0 name late0
	at h1 ip link set late0 up
	route h1 default via 192.168.1.1
	mapped n 1 8
	eq "$(count "$D/n.err" 'late0.*not exist')" 1 "said once"
}

# with privacy addresses the stable one is announced, and a new temporary one
# is no news
t_temporary_addresses() {
	local kind
	lab_up
	nat r2 cone host6=2001:db8:1::abcd 5000:40000
	at h1 sh -c 'cd /proc/sys/net/ipv6/conf/eth0; echo 2 > use_tempaddr
	    echo 4 > temp_prefered_lft; echo 60 > temp_valid_lft
	    echo 1 > regen_max_retry'
	ip -n "$L-h1" addr del $HOSTV6/64 dev eth0
	ip -n "$L-h1" addr add 2001:db8:1::abcd/64 dev eth0 mngtmpaddr nodad
	soon 5 "no temporary address" eval \
	    'at h1 ip -6 addr show temporary | grep -q inet6'
	coturn turn $S1V6 $S2V6
	for kind in -v -u; do
		nm n$kind -6 $kind -s $S1V6,$S2V6 -b 5000 -k 1
		mapped n$kind 1
	done
	sleep 8
	between 2 "$(at h1 ip -6 -o addr show temporary | wc -l)" 99 \
	    "temporary addresses"
	for kind in -v -u; do
		eq "$(cut -d ' ' -f 6 "$D/n$kind.out")" 2001:db8:1::abcd \
		    "addresses, $kind"
		hasnt "$D/n$kind.err" 'network changed'
	done
}

t_mark() {
	lab
	at h1 ip rule add fwmark 0x77 table 77
	at h1 ip route add default via 192.168.1.1 table 77
	at h1 ip route del default
	nm plain -u -s $S1 -b 5000 -k 1
	nm n -u -s $S1 -b 5000 -k 1 -f 0x77
	nm t -s $S1 -h $WWW -b 5000 -k 1 -f 119
	mapped n 1
	mapped t 1
	eq "$(lines "$D/plain.out")" 0 "lines without the mark"
}

quick tcp_of_another_user 40
quick udp_of_another_user 40
quick tcp_on_both_families 40
quick tcp_with_live_sessions 50
quick service_restarts 50
quick udp_service_restarts_any_time 50
quick two_on_one_port 60
quick nobody_listens_is_said_once 40
quick listener_is_not_warned_of 40
quick udp_neighbour_gets_nothing 40
quick flags_are_taken_back 40
quick udp_connect_follows_bind 40
quick not_root 50
quick service_that_cannot_be_seen 40
quick range_moves_on_only_when_it_must 40
quick long_range_is_tried_at_once 30
quick interface_and_source 50
quick interface_that_comes_later 50
quick temporary_addresses 40
quick mark 40
lab_main "$@"
