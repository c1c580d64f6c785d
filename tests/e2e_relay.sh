#!/bin/bash
# SPDX-License-Identifier: MIT
# Forward mode, TCP: from a client outside through the NAT to h2.
. "$(dirname "$0")/lab.sh"

TARGET=192.168.1.20
BIG=${NATMAP_BIG:-256}		# MiB of the bulk tests

lab() {
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
	www www
}

# relay PORT ARGS ...: natmap to that port of h2
relay() {
	local port=$1
	shift
	nm n -s $S1 -h $WWW -b 5000 -k 2 -t $TARGET -p "$port" "$@"
	mapped n 1
	eq "$(echo "$LINE" | cut -d ' ' -f 1,2)" "$PUBLIC 40000" mapped
}

t_echo_and_target_sees_natmap() {
	lab
	py h2 svc echo tcp $TARGET 9000
	py h2 who whoami tcp $TARGET 9001
	relay 9000
	probe tcp $PUBLIC 40000 20 0
	nm_stop n
	relay 9001
	has <(net out ask tcp $PUBLIC 40000) "^$HOST " "the target's client"
}

t_ipv6() {
	lab
	coturn turn6 $S1V6
	py h2 svc echo tcp :: 9000
	nm n -6 -s $S1V6 -b 5000 -k 2 -t 2001:db8:1::20 -p 9000
	mapped n 1
	probe tcp $PUBLICV6 40000 5 0
}

t_ssh_command_and_idle_session() {
	lab
	sshd h2 2222
	relay 2222
	eq "$(ssh_to $PUBLIC 40000 'echo relayed')" relayed ssh
	eq "$(ssh_to $PUBLIC 40000 'sleep 8; echo still')" still "idle session"
}

# -T 3: not before 3.0 s and not after 5
t_idle_timeout_fires() {
	local t
	lab
	py h2 svc echo tcp $TARGET 9000
	relay 9000 -T 3
	net out hold $PUBLIC 40000 20 > "$D/cut" || true
	t=$(sed -n 's/^cut \([0-9]*\)\.\([0-9][0-9]\).*/\1\2/p' "$D/cut")
	between 300 "${t:-0}" $((500 * SLOW)) "hundredths until the cut"
	# half of an interval each time keeps it
	net out hold $PUBLIC 40000 8 1.5
}

t_timeout_zero_is_never() {
	lab
	py h2 svc echo tcp $TARGET 9000
	relay 9000 -T 0
	net out hold $PUBLIC 40000 12
}

# one direction alone keeps a session
t_one_way_traffic_keeps_it() {
	lab
	cat > "$D/tick.py" <<-EOF
	import socket, time
	s = socket.create_server(('$TARGET', 9000))
	print('ready', flush=True)
	c = s.accept()[0]
	for i in range(9):
	    time.sleep(1)
	    c.sendall(b'%d' % i)
	c.close()
	EOF
	bg h2 svc "$PY" "$D/tick.py"
	soon 5 service grep -q ready "$D/svc.log"
	relay 9000 -T 3
	eq "$(at out "$PY" -c "
import socket
s = socket.create_connection(('$PUBLIC', 40000))
got = b''
while True:
    d = s.recv(100)
    if not d: break
    got += d
print(got.decode())")" 012345678 "what came"
}

# sessions: the clients' legs that natmap holds
sessions() {
	at h1 ss -Htn state established sport = :5000 dst $OUT | wc -l
}

no_sessions() {
	[ "$(sessions)" = 0 ]
}

# -T 0 and a client that vanished: kernel probes find it
t_vanished_client() {
	lab
	py h2 svc echo tcp $TARGET 9000
	nm n -s $S1 -h $WWW -b 5000 -k 5 -t $TARGET -p 9000 -T 0
	mapped n 1
	bg out client "$PY" "$NET" hold $PUBLIC 40000 600
	soon 5 client grep -q up "$D/client.log"
	eq "$(sessions)" 1 sessions
	# gone without a word
	at out nft -f - <<-EOF
	table ip gone {
		chain out {
			type filter hook output priority 0
			drop
		}
		chain in {
			type filter hook input priority 0
			drop
		}
	}
	EOF
	sleep 60
	eq "$(sessions)" 1 "sessions after an outage of a minute"
	soon 110 "the session of a vanished client lives on" no_sessions
	eq "$(at h2 ss -Htn state established sport = :9000 | wc -l)" 0 \
	    "the target's leg"
}

# the same in seconds: the target's host sends a reset when asked
t_vanished_target_resets_client() {
	lab
	py h2 svc rst $TARGET 9000
	relay 9000
	eq "$(net out until_reset $PUBLIC 40000)" "bye reset" "reset after data"
}

t_half_close() {
	lab
	py h2 svc banner $TARGET 9000
	relay 9000
	eq "$(net out halfclose $PUBLIC 40000 3000000)" hello banner
	soon 5 "bytes after the half-close" grep -q 'got 3000000' "$D/svc.log"
}

t_refusing_target() {
	lab
	relay 9
	eq "$(at out "$PY" -c "
import socket, time
t = time.monotonic()
try:
    s = socket.create_connection(('$PUBLIC', 40000), timeout=5)
    print('eof' if s.recv(1) == b'' else 'data')
except ConnectionResetError:
    print('reset', time.monotonic() - t < 3)")" "reset True" client
	alive n
}

t_bulk_each_way_and_both() {
	lab
	py h2 svc sink $TARGET 9000
	relay 9000
	eq "$(net out bulk $PUBLIC 40000 "$BIG")" same "to the target"
	nm_stop n
	py h2 duplex both $TARGET 9001 "$BIG"
	relay 9001
	eq "$(net out bulkboth $PUBLIC 40000 "$BIG")" same "both at once"
	eq "$(lines "$D/n.out")" 1 lines
}

t_bulk_1_gib() {
	BIG=1024
	t_bulk_each_way_and_both
}

t_bulk_with_slow_reader() {
	lab
	py h2 svc sink $TARGET 9000 slow
	relay 9000
	bg out client "$PY" "$NET" bulk $PUBLIC 40000 "$BIG"
	sleep 1.5
	between 0 "$(kb n VmRSS)" 8192 "kB while it waits"
	soon 60 "bulk through a slow reader" grep -q same "$D/client.log"
}

# a receiver that takes nothing for longer than any keep-alive
t_paused_reader_survives() {
	lab
	cat > "$D/pause.py" <<-EOF
	import hashlib, socket, time
	s = socket.create_server(('$TARGET', 9000))
	print('ready', flush=True)
	c = s.accept()[0]
	time.sleep($((12 * SLOW)))
	n = 0
	while True:
	    d = c.recv(1 << 20)
	    if not d: break
	    n += len(d)
	print('got', n, flush=True)
	EOF
	bg h2 svc "$PY" "$D/pause.py"
	soon 5 service grep -q ready "$D/svc.log"
	nm n -s $S1 -h $WWW -b 5000 -k 1 -t $TARGET -p 9000 -T 0
	mapped n 1
	bg out client "$PY" -c "
import socket
s = socket.create_connection(('$PUBLIC', 40000))
s.sendall(b'x' * (20 << 20))
s.close()"
	soon 40 "bytes after the pause" grep -q "got $((20 << 20))" "$D/svc.log"
	between 0 "$(cpu n)" $((2000 * SLOW)) "ms of CPU"
}

t_nagle_is_off() {
	local ms
	lab
	py h2 svc echo tcp $TARGET 9000
	relay 9000
	ms=$(at out "$PY" -c "
import socket, time
s = socket.create_connection(('$PUBLIC', 40000))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
t = time.monotonic()
for i in range(30):
    s.sendall(b'a')
    time.sleep(0.002)
    s.sendall(b'b')
    n = 0
    while n < 2: n += len(s.recv(2 - n))
print(int((time.monotonic() - t) * 1000 / 30))")
	between 0 "$ms" $((25 * SLOW)) "ms for two writes and a read"
}

# many sessions at once, none lost, none left
many() {
	local before
	lab
	py h2 svc echo tcp $TARGET 9000
	relay 9000 -n $(($1 + 100))
	sleep 1
	before=$(fds n)
	net out many tcp $PUBLIC 40000 "$1" 2 1
	# shellcheck disable=SC2016
	soon 15 "descriptors are left" eval '[ "$(fds n)" -le '$((before + 2))' ]'
	probe tcp $PUBLIC 40000
}

t_sessions_500() {
	many 500
}

t_sessions_5000() {
	many 5000
}

t_full_is_not_dead() {
	lab
	py h2 svc echo tcp $TARGET 9000
	NATMAP_WRAP="prlimit --nofile=40:40 $NATMAP_WRAP" nm n \
	    -s $S1 -h $WWW -b 5000 -k 1 -t $TARGET -p 9000
	mapped n 1
	net out flock_of $PUBLIC 40000 200 6 > "$D/flock"
	between 1 "$(awk '{ print $2 }' "$D/flock")" 20 "served at once"
	between 0 "$(cpu n)" $((1500 * SLOW)) "ms of CPU while full"
	reached tcp $PUBLIC 40000 8
	sleep 3
	eq "$(lines "$D/n.out")" 1 "the mapping was never lost"
	alive n
}

t_max_sessions() {
	lab
	py h2 svc echo tcp $TARGET 9000
	relay 9000 -n 3
	net out flock_of $PUBLIC 40000 10 3 > "$D/flock"
	eq "$(cat "$D/flock")" "served 3" "with -n 3"
	reached tcp $PUBLIC 40000 5
}

t_target_port_is_public_port() {
	lab
	py h2 svc echo tcp $TARGET 40000
	py h2 svc2 echo tcp $TARGET 40001
	nm n -s $S1,$S2 -h $WWW -b 5000 -k 1 -c 1 -t $TARGET -p 0
	mapped n 1
	probe tcp $PUBLIC 40000
	stop svc
	nat r2 cone 5000:40001
	forget r2
	mapped n 2 8
	reached tcp $PUBLIC 40001
}

t_target_by_name() {
	lab
	py inet dns dns $DNS home.test=192.168.1.99,$TARGET
	py h2 svc echo tcp $TARGET 9000
	nm n -s $S1 -h $WWW -b 5000 -k 2 -t home.test -p 9000
	mapped n 1
	# nobody answers ARP for .99: the second address is tried; and a session
	# that rested, whose signals only we may get, outlives the look-up's child
	eq "$(at out "$PY" -c "
import socket, time
s = socket.create_connection(('$PUBLIC', 40000), timeout=20)
s.sendall(b'there'); print(s.recv(10).decode())
time.sleep(2)
s.sendall(b'still'); print(s.recv(10).decode())" | tr '\n' ' ')" \
	    "there still " "second address, and after a rest"
}

t_itself_is_refused() {
	lab
	nm n -s $S1 -h $WWW -b 5000 -k 2 -t $HOST -p 5000
	mapped n 1
	for _ in 1 2 3; do
		unreached tcp $PUBLIC 40000
	done
	said n 'the mapped port'
	between 0 "$(cpu n)" $((500 * SLOW)) "ms of CPU"
	eq "$(count "$D/n.err" 'itself|is the mapped port')" 1 "said once"
}

t_busy_port_is_named() {
	lab
	py h1 svc echo tcp 0.0.0.0 5000
	py h2 target echo tcp $TARGET 9000
	nm n -s $S1 -h $WWW -b 5000 -k 1 -t $TARGET -p 9000
	said n 'TCP port 5000.*in use by python'
	stop svc
	mapped n 1 12
	probe tcp $PUBLIC 40000
	# and nobody steals it while we listen
	! at h1 timeout 1 "$PY" "$NET" echo tcp 0.0.0.0 5000 reuseport \
	    2> /dev/null || fail "another program could bind our port"
}

t_keepalive_troubles_touch_nothing() {
	lab
	py h2 svc echo tcp $TARGET 9000
	relay 9000
	bg out client "$PY" "$NET" hold $PUBLIC 40000 14 0.5
	soon 5 client grep -q up "$D/client.log"
	stop www
	mute $S1 $S2
	sleep 8
	probe tcp $PUBLIC 40000 5 0.2
	soon 12 "the session was cut" grep -q alive "$D/client.log"
}

# the NAT forgets idle flows within 20 s and drops what it does not know
t_idle_session_through_forgetful_nat() {
	lab
	sshd h2 2222
	nat r2 learn timeout=15 strict 5000:40000
	ct r2 tcp_timeout_established=20
	nm n -s $S1 -h $WWW -b 5000 -k 10 -t $TARGET -p 2222 -T 0
	mapped n 1
	eq "$(at out ssh -i "$D/key" -p 40000 -o StrictHostKeyChecking=no \
	    -o UserKnownHostsFile=/dev/null -o BatchMode=yes \
	    -o LogLevel=ERROR -o TCPKeepAlive=no -o ServerAliveInterval=0 \
	    root@$PUBLIC 'sleep 60; echo alive')" alive "after 60 idle seconds"
}

t_iperf3() {
	lab
	need iperf3
	bg h2 iperf iperf3 -s -B $TARGET -p 9000
	soon 5 iperf3 listens h2 tcp 9000
	relay 9000
	at out iperf3 -c $PUBLIC -p 40000 -t 2 > "$D/iperf.out"
	at out iperf3 -c $PUBLIC -p 40000 -t 2 -R -P 4 > "$D/iperf2.out"
}

# knock TEXT [HEX]: what a client from outside is told that sends that
knock() {
	at out "$PY" -c "
import socket, sys
s = socket.create_connection(('$PUBLIC', 40000), 10)
s.sendall(bytes.fromhex('${2:-}') + b'$1')
s.settimeout(10)
while (d := s.recv(65536)):
    sys.stdout.write(d.decode('latin-1'))"
}

# our own, the LAN's, and what comes back by the public address prove nothing
t_not_from_outside() {
	lab
	py h2 svc echo tcp $TARGET 9000
	relay 9000
	addr h1 lo 198.51.100.77/32
	net h2 ask tcp $HOST 5000 hello > "$D/got"
	net h1 ask tcp 127.0.0.1 5000 hello > "$D/got"
	net h1 ask tcp 198.51.100.77 5000 hello > "$D/got"
	eq "$(cat "$D/got")" hello echo
	hasnt "$D/n.err" 'from outside'
	net out ask tcp $PUBLIC 40000 hello > "$D/got"
	said n "$OUT came in from outside"
}

# The target sees the client's address, as it is told before the first byte.
t_proxy_protocol_nginx() {
	lab
	need nginx
	cat > "$D/nx.conf" <<-EOF
	daemon off; master_process off; pid $D/nx.pid; error_log $D/nx.err;
	events { }
	http {
		access_log off; client_body_temp_path $D/nx1;
		proxy_temp_path $D/nx2; fastcgi_temp_path $D/nx3;
		uwsgi_temp_path $D/nx4; scgi_temp_path $D/nx5;
		server {
			listen $TARGET:9000 proxy_protocol;
			location / { return 200
			    "from \$proxy_protocol_addr to \$proxy_protocol_server_addr:\$proxy_protocol_server_port\\n"; }
			location /big { alias $D/big; }
		}
	}
	EOF
	head -c 30000000 /dev/urandom > "$D/big"
	chmod -R a+rX "$D"
	bg h2 nx nginx -e "$D/nx.err" -c "$D/nx.conf"
	soon 10 nginx listens h2 tcp 9000
	relay 9000 --proxy-protocol
	at out curl -s "http://$PUBLIC:40000/" > "$D/got"
	has "$D/got" "^from $OUT to $HOST:5000" nginx
	at out curl -s "http://$PUBLIC:40000/big" > "$D/got"
	cmp "$D/got" "$D/big" || fail "the file is another"
	# a header of the client's own is data, here no HTTP
	knock "" "0d0a0d0a000d0a515549540a2111000c7f0000017f00000100500050" > "$D/got"
	hasnt "$D/got" "from 127" "a forged address"
	# a header alone: nothing is said of a client that closes at once
	at out "$PY" -c "
import socket
for i in range(20):
    socket.create_connection(('$PUBLIC', 40000), 10).close()"
	at out curl -s "http://$PUBLIC:40000/" > "$D/got"
	has "$D/got" "^from $OUT to" "nginx later"
	hasnt "$D/nx.err" 'broken header' "nginx"
}

t_proxy_protocol_haproxy() {
	lab
	need haproxy
	py h2 svc echo tcp $TARGET 9001
	cat > "$D/ha.conf" <<-EOF
	global
		log stdout format raw daemon
	defaults
		mode tcp
		timeout client 20s
		timeout server 20s
		timeout connect 5s
	frontend f
		bind $TARGET:9000 accept-proxy
		log global
		log-format "client %ci to %fi:%fp sent %U"
		default_backend b
	backend b
		server echo $TARGET:9001
	EOF
	bg h2 ha haproxy -f "$D/ha.conf" -db
	soon 10 haproxy listens h2 tcp 9000
	relay 9000 --proxy-protocol
	probe tcp $PUBLIC 40000 3 0
	soon 10 "haproxy's log" grep -q "client $OUT to $HOST:5000" "$D/ha.log"
	# idle: haproxy waits for a header, and closes without one
	net out hold $PUBLIC 40000 6 5
}

t_report_and_verbose() {
	lab
	py h2 svc echo tcp $TARGET 9000
	relay 9000 -v
	probe tcp $PUBLIC 40000 3 0
	said n "$OUT.*"
	said n "$OUT came in from outside: the port is reachable"
	eq "$(count "$D/n.err" 'came in from outside')" 1 "said once"
	kill -USR1 "${PID[n]}"
	said n '(3 ever|3 in all|sessions.*3|ever.*3|3.*session)'
}

# a session that nothing moves costs nothing
t_idle_sessions_do_not_wake() {
	local a
	lab
	need strace
	[ -z "$NATMAP_WRAP" ] || skip "no strace under $NATMAP_WRAP"
	py h2 svc echo tcp $TARGET 9000
	nm n -s $S1 -h $WWW -b 5000 -k 3600 -t $TARGET -p 9000
	mapped n 1
	bg out client "$PY" "$NET" many tcp $PUBLIC 40000 50 1 30
	soon 10 clients grep -q lost "$D/client.log"
	sleep 6
	timeout -s INT 6 strace -f -c -p "${PID[n]}" -o "$D/strace" || true
	a=$(awk '$NF ~ /^p?poll/ { print $4 }' "$D/strace")
	between 0 "${a:-0}" 3 "polls in 6 s"
}

quick echo_and_target_sees_natmap 40
quick ipv6 40
quick ssh_command_and_idle_session 60
quick idle_timeout_fires 60
quick timeout_zero_is_never 50
quick one_way_traffic_keeps_it 50
long vanished_client 260
quick vanished_target_resets_client 40
quick half_close 40
quick refusing_target 40
quick bulk_each_way_and_both 100
long bulk_1_gib 300
quick bulk_with_slow_reader 100
quick paused_reader_survives 90
quick nagle_is_off 40
quick sessions_500 60
long sessions_5000 200
# without TIOCOUTQ each of the 200 dead clients keeps its place for a second
[ -n "${NATMAP_PORTABLE:-}" ] || quick full_is_not_dead 60
quick max_sessions 40
quick target_port_is_public_port 50
quick target_by_name 70
quick itself_is_refused 50
quick busy_port_is_named 50
quick keepalive_troubles_touch_nothing 60
long idle_session_through_forgetful_nat 140
long iperf3 60
quick not_from_outside 40
quick proxy_protocol_nginx 60
quick proxy_protocol_haproxy 60
quick report_and_verbose 40
quick idle_sessions_do_not_wake 60
lab_main "$@"
