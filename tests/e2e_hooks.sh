#!/bin/bash
# SPDX-License-Identifier: MIT
# The hooks of contrib/hooks, under busybox ash, against the servers that they
# are for.  (Those that set firewall rules: hooks.sh.)
. "$(dirname "$0")/lab.sh"

HOOKS=$(cd "$TESTS/.." && pwd)/contrib/hooks
IP4P=2001::9c40:c633:640a

lab() {
	need busybox
	lab_up
	nat r2 cone 5000:40000
	coturn turn $S1 $S2
}

# hook NAME VARIABLE=VALUE ...: a script for -e that runs this hook
hook() {
	local name=$1
	shift
	{
		echo "#!$(command -v busybox) ash"
		[ $# = 0 ] || printf 'export %q\n' "$@"
		echo "exec busybox ash $HOOKS/$name.sh \"\$@\""
	} > "$D/$name"
	chmod +x "$D/$name"
}

# run NAME [PORT]: the hook, called as natmap calls it for a new public port;
# sets STATUS, what it says is in NAME.said
run() {
	STATUS=0
	at h1 "$D/$1" $PUBLIC "${2:-40000}" $IP4P 5000 tcp $HOST \
	    > "$D/$1.said" 2>&1 || STATUS=$?
}

# fails NAME WHAT: natmap repeats a hook that ends with more than 1
fails() {
	run "$1"
	between 2 $STATUS 125 "status: $2"
}

works() {
	run "$@"
	eq $STATUS 0 "status of $*: $(cat "$D/$1.said")"
}

# ---- nsupdate.sh and BIND ------------------------------------------------

zone() {
	need named nsupdate dig tsig-keygen
	tsig-keygen natmap > "$D/key"
	tsig-keygen other > "$D/wrong"
	cat > "$D/zone" <<-EOF
	\$TTL 60
	@ SOA ns.example.org. root.example.org. 1 60 60 60 60
	@ NS ns.example.org.
	ns A $DNS
	home A 192.0.2.1
	home AAAA 2001:db8::1
	home TXT "stays"
	_ssh._tcp.home SRV 0 0 1 home.example.org.
	EOF
	cat > "$D/named.conf" <<-EOF
	include "$D/key";
	options { directory "$D"; pid-file none; session-keyfile none;
	    listen-on { $DNS; }; listen-on-v6 { none; }; recursion no;
	    dnssec-validation no; };
	controls { };
	zone example.org { type primary; file "$D/zone";
	    allow-update { key natmap; }; };
	EOF
	bg inet named named -g -n 1 -c "$D/named.conf"
	soon 10 "BIND did not start" listens inet udp 53 $DNS
	soon 10 "BIND did not start" resolves home.example.org A 192.0.2.1
}

# resolves NAME TYPE [VALUE]: all its values, sorted
resolves() {
	[ "$(at h1 dig +short "$1" "$2" | sort | tr '\n' '/')" = \
	    "${3:+$3/}" ] || {
		echo "$1 $2: $(at h1 dig +short "$1" "$2")"
		return 1
	}
}

t_nsupdate() {
	lab
	zone
	hook nsupdate DNS_NAME=home.example.org DNS_SRV=_ssh._tcp \
	    DNS_HTTPS=yes DNS_KEY="$D/key"
	nm n -s $S1 -b 5000 -k 1 -e "$D/nsupdate"
	soon 10 "no update" resolves home.example.org A $PUBLIC
	resolves _ssh._tcp.home.example.org SRV "0 0 40000 home.example.org."
	resolves home.example.org HTTPS "1 . port=40000 ipv4hint=$PUBLIC"
	resolves home.example.org AAAA 2001:db8::1
	resolves home.example.org TXT '"stays"'
	# one message makes one serial
	has <(at h1 dig +short example.org SOA) ' 2 60 60 60 60$' serial
	nm_stop n

	works nsupdate 40001
	resolves _ssh._tcp.home.example.org SRV "0 0 40001 home.example.org."

	# nothing has changed when nothing could
	hook nsupdate DNS_NAME=home.example.org DNS_KEY="$D/wrong"
	fails nsupdate "another key"
	hook nsupdate DNS_NAME=home.example.com DNS_KEY="$D/key"
	fails nsupdate "a zone of somebody else"
	hook nsupdate DNS_NAME=home.example.org DNS_KEY="$D/key" \
	    DNS_SERVER="$S1 53" DNS_ZONE=example.org
	fails nsupdate "no such server"
	hook nsupdate
	fails nsupdate "no name"
	has <(at h1 dig +short example.org SOA) ' 3 60 60 60 60$' serial
}

t_nsupdate_named_server() {
	lab
	zone
	echo "nameserver $S2" > "/etc/netns/$L-h1/resolv.conf"
	hook nsupdate DNS_NAME=home.example.org. DNS_KEY="$D/key" \
	    DNS_SERVER=$DNS DNS_ZONE=example.org DNS_TTL=30
	at h1 "$D/nsupdate" 2001:db8:f::7 40000 '' 5000 tcp $HOSTV6
	has <(at inet dig +noall +answer home.example.org AAAA "@$DNS") \
	    '[[:blank:]]30[[:blank:]].*2001:db8:f::7$' "AAAA"
	has <(at inet dig +short home.example.org A "@$DNS") 192.0.2.1 "A"
}

# ---- web servers ---------------------------------------------------------

# web: keeps what it is sent in $D/got; /port/N tells whether it can connect
# back to port N; /broken fails
web() {
	cat > "$D/web.py" <<-EOF
	import http.server, socket, sys
	class H(http.server.BaseHTTPRequestHandler):
	    def say(self, code, text=b''):
	        self.send_response(code)
	        self.send_header('Content-Length', str(len(text)))
	        self.end_headers()
	        self.wfile.write(text)
	    def take(self):
	        n = int(self.headers.get('Content-Length', 0))
	        h = self.headers
	        body = self.rfile.read(n).decode()
	        if self.path != '/put':
	            return self.say(500)
	        with open('$D/got', 'a') as f:
	            print(self.command, h.get('Authorization'),
	                  h.get('Content-Type'), body, sep='|', file=f)
	        self.say(200 if h.get('Authorization') in
	                 (None, 'Bearer s"c') else 401)
	    do_PUT = do_POST = take
	    def do_GET(self):
	        kind, port = self.path[1:].split('/')
	        try:
	            a = (self.client_address[0], int(port))
	            socket.create_connection(a, 1).close()
	            up = True
	        except OSError:
	            up = False
	        answer = {'port': '%d\n' % up, 'empty': '', 'odd': '10',
	                  'json': '{\n "reachable": %s }' % str(up).lower()}
	        self.say(200 if kind in answer else 500,
	                 answer.get(kind, '').encode())
	http.server.ThreadingHTTPServer(('$WWW', 80), H).serve_forever()
	EOF
	bg inet web "$PY" "$D/web.py"
	soon 10 "no web server" listens inet tcp 80 $WWW
	: > "$D/got"
}

# by CLIENT: the hooks of $D use this program.  Debian's busybox prefers its
# own wget, so that wget has another shell.
by() {
	local f
	[ "$1" = wget ] || return 0
	mkdir -p "$D/bin"
	for f in cat dirname mktemp rm sed timeout tr wget; do
		ln -sf "$(command -v $f)" "$D/bin/$f"
	done
	for f in "$D"/*-* "$D/ntfy"; do
		[ ! -x "$f" ] || sed -i "1s|.*|#!/bin/sh|
		    2i PATH=$D/bin
		    s|busybox ash|/bin/sh|" "$f"
	done
}

got() {
	eq "$(tail -n 1 "$D/got")" "$1" "what the server got"
}

# sends CLIENT
sends() {
	need "$1"
	lab
	web
	hook http-put HTTP_URL=http://$WWW/put
	by "$1"
	works http-put
	got "PUT|None|text/plain|$PUBLIC 40000"

	hook http-put HTTP_URL=http://$WWW/put HTTP_TOKEN='s\"c' \
	    HTTP_METHOD=POST HTTP_TYPE=application/json \
	    HTTP_BODY='{"ip":"ADDR","port":PORT}'
	[ "$1" = curl ] || sed -i 's/s..*"c/s\\"c/' "$D/http-put"
	by "$1"
	works http-put
	got "POST|Bearer s\"c|application/json|{\"ip\":\"$PUBLIC\",\"port\":40000}"

	hook http-put HTTP_URL=http://$WWW/put HTTP_TOKEN=wrong
	fails http-put "a wrong token"
	hook http-put HTTP_URL=http://$WWW/broken
	fails http-put "an error of the server"
	hook http-put HTTP_URL=http://$WWW:81/put
	fails http-put "no server"

	hook ntfy NTFY_URL=http://$WWW/put NTFY_NAME='ssh at home'
	works ntfy
	got "POST|None|text/plain|ssh at home is at $PUBLIC:40000"
	at h1 "$D/ntfy" 2001:db8::7 4 '' 5 tcp ::1
	got "POST|None|text/plain|ssh at home is at [2001:db8::7]:4"
	hook ntfy
	fails ntfy "no URL"
}

t_http_put_curl() {
	sends curl
}

t_http_put_wget() {
	sends wget
}

# answers STATUS WORDS
answers() {
	run check-port
	eq $STATUS "$1" "status: $(cat "$D/check-port.said")"
	has "$D/check-port.said" "$2" "check-port.sh"
}

# checks CLIENT
checks() {
	local kind
	need "$1"
	lab
	web
	py h1 svc echo tcp 0.0.0.0 5000
	for kind in port json; do
		nat r2 cone 5000:40000
		hook check-port CHECK_URL=http://$WWW/$kind
		by "$1"
		answers 0 "$PUBLIC:40000 .tcp.: reached from outside"
		nat r2 restricted
		answers 1 "$PUBLIC:40000 .tcp.: not reached from outside"
	done
	for kind in empty odd broken; do
		hook check-port CHECK_URL=http://$WWW/$kind
		by "$1"
		answers 2 "no answer from http://$WWW/$kind"
	done
}

t_check_port_curl() {
	checks curl
}

t_check_port_wget() {
	checks wget
}

# ---- bittorrent.sh -------------------------------------------------------

# torrent: a file that is seeded, its info hash in HASH
torrent() {
	need transmission-create transmission-show
	mkdir "$D/seed"
	head -c 300000 /dev/urandom > "$D/seed/file"
	transmission-create -o "$D/a.torrent" "$D/seed/file" > /dev/null
	HASH=$(transmission-show "$D/a.torrent" |
	    sed -n 's/^ *Hash\( v1\)*: \([0-9a-f]*\).*/\2/p')
	eq "${#HASH}" 40 "length of the hash"
}

# leech NAME ADDRESS PORT: shakes hands with the seed from there and stays
leech() {
	cat > "$D/leech.py" <<-EOF
	import socket, sys, time
	me, port, info = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
	hello = b'\\x13BitTorrent protocol' + bytes(8) + info
	got = b''
	# a client that is still reading its files hangs up
	while got != hello[:20]:
	    time.sleep(0.2)
	    try:
	        s = socket.create_connection(('$PUBLIC', port), 30, (me, 0))
	        s.sendall(hello + b'-LT0000-' + me.encode()[-12:])
	        got = s.recv(20, socket.MSG_WAITALL)
	    except OSError as e:
	        print(e, flush=True)
	print('ready', flush=True)
	time.sleep(60)
	EOF
	bg out "$1" "$PY" "$D/leech.py" "$2" "$3" "$HASH"
}

# seeds PEERS: natmap and the hook lead two leechers to the client, which
# sees their addresses; PEERS is a command that tells these
seeds() {
	py h1 other echo tcp 0.0.0.0 6000
	nm n -s $S1 -s $S2 -b 5000 -k 1 -e "$D/bittorrent"
	soon 10 "no rule" eval 'at h1 nft list ruleset | grep -q "dnat to"'
	soon 10 "the client's port" listens h1 tcp 40000
	leech one $OUT 40000
	leech two 198.51.100.101 40000
	soon 30 "leecher one" grep -q ready "$D/one.log"
	soon 30 "leecher two" grep -q ready "$D/two.log"
	soon 30 "peer one" eval "$1 | grep -qF $OUT"
	soon 30 "peer two" eval "$1 | grep -qF 198.51.100.101"
	stop one
	stop two
	nat r2 cone 5000:40500
	forget r2
	soon 10 "the client's next port" listens h1 tcp 40500
	leech three $OUT 40500
	soon 30 "leecher at the next port" grep -q ready "$D/three.log"
	nm_stop n
}

t_bittorrent_transmission() {
	need transmission-daemon transmission-remote
	lab
	torrent
	at h1 sh -c 'echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse'
	bg h1 tr env TR_CURL_VERBOSE= transmission-daemon -f -g "$D/tr" \
	    -P 51413 -p 9091 -t -u me -v 'p w' --no-portmap --no-dht \
	    -a 127.0.0.1 -w "$D/seed"
	soon 10 "transmission did not start" listens h1 tcp 9091
	export TR_AUTH='me:p w'
	soon 10 "no torrent" at h1 transmission-remote -ne -a "$D/a.torrent"
	soon 10 "not seeding" eval \
	    'at h1 transmission-remote -ne -t 1 -i | grep -q "Done: 100"'
	hook bittorrent TR_AUTH="$TR_AUTH"
	seeds 'at h1 transmission-remote -ne -t 1 -pi'
	hook bittorrent TR_AUTH=me:wrong
	fails bittorrent "a wrong password"
	stop tr
	fails bittorrent "no client"
	has "$D/bittorrent.said" "did not take port 40000" "what it says"
}

# api PATH [CURL OPTION ...]
api() {
	local path=$1
	shift
	at h1 curl -fsS -b "$D/cookies" -c "$D/cookies" "$@" \
	    "http://127.0.0.1:8080/api/v2/$path"
}

t_bittorrent_qbittorrent() {
	local hash
	need qbittorrent-nox curl
	lab
	torrent
	mkdir -p "$D/qb/qBittorrent/config"
	hash=$("$PY" -c 'import base64, hashlib
b = base64.b64encode
print((b(b"s" * 16) + b":" + b(hashlib.pbkdf2_hmac("sha512",
    b"p \"\\w", b"s" * 16, 100000, 64))).decode())')
	cat > "$D/qb/qBittorrent/config/qBittorrent.conf" <<-EOF
	[LegalNotice]
	Accepted=true
	[BitTorrent]
	Session\\Port=51413
	Session\\DHTEnabled=false
	Session\\LSDEnabled=false
	[Network]
	PortForwardingEnabled=false
	[Preferences]
	WebUI\\LocalHostAuth=true
	WebUI\\Port=8080
	WebUI\\Username=me
	WebUI\\Password_PBKDF2="@ByteArray($hash)"
	EOF
	bg h1 qb env HOME="$D" qbittorrent-nox --profile="$D/qb"
	soon 20 "qBittorrent did not start" listens h1 tcp 8080
	api auth/login -d username=me --data-urlencode 'password=p "\w' \
	    > /dev/null
	api torrents/add -F "torrents=@$D/a.torrent" -F savepath="$D/seed" \
	    > /dev/null
	soon 20 "not seeding" eval \
	    'api torrents/info | grep -Eq "\"state\":\"(stalledUP|uploading)\""'
	hook bittorrent QBT_URL=http://127.0.0.1:8080 QBT_USER=me \
	    QBT_PASS='p "\w'
	seeds "api 'sync/torrentPeers?hash=$HASH'"
	hook bittorrent QBT_URL=http://127.0.0.1:8080 QBT_USER=me \
	    QBT_PASS=wrong
	fails bittorrent "a wrong password"
	hook bittorrent QBT_URL=http://127.0.0.1:8081
	fails bittorrent "no client"
	has "$D/bittorrent.said" "did not take port 40000" "what it says"
}

# ---- upnp.sh and miniupnpd -----------------------------------------------

# router: r1 is a home router with UPnP; its WAN address is a shared one
router() {
	at r1 nft -f - <<-EOF
	table inet igd {
		chain miniupnpd { }
		chain prerouting_miniupnpd { }
		chain postrouting_miniupnpd { }
		chain forward {
			type filter hook forward priority 0; policy drop
			ct state established,related accept
			iifname lan accept
			jump miniupnpd
		}
		chain prerouting {
			type nat hook prerouting priority -100
			jump prerouting_miniupnpd
		}
		chain postrouting {
			type nat hook postrouting priority 100
			jump postrouting_miniupnpd
			oifname wan masquerade
		}
	}
	EOF
	cat > "$D/igd.conf" <<-EOF
	ext_ifname=wan
	listening_ip=lan
	enable_upnp=yes
	secure_mode=yes
	upnp_table_name=igd
	upnp_nat_table_name=igd
	upnp_forward_chain=miniupnpd
	upnp_nat_chain=prerouting_miniupnpd
	upnp_nat_postrouting_chain=postrouting_miniupnpd
	uuid=00000000-0000-0000-0000-000000000001
	$1
	EOF
	bg r1 igd miniupnpd -d -f "$D/igd.conf" -P "$D/igd.pid"
	soon 10 "miniupnpd did not start" eval \
	    'at r1 ss -Hlnu | grep -q :1900'
}

t_upnp() {
	need upnpc miniupnpd
	lab
	nat r2 cone host=100.64.0.2 5000:40000
	router ext_ip=8.8.8.8
	py h1 svc echo tcp 0.0.0.0 5000 reuseport
	printf '#!/bin/sh\necho "$*" > %s/next.log\n' "$D" > "$D/next"
	chmod +x "$D/next"
	hook upnp UPNP_LEASE=6 UPNP_NEXT="$D/next" RUNTIME_DIRECTORY="$D/run"
	nm n -s $S1 -s $S2 -b 5000 -k 1 -e "$D/upnp"
	soon 12 "the next script" grep -qx \
	    "$PUBLIC 40000 $IP4P 5000 tcp $HOST" "$D/next.log"
	reached tcp $PUBLIC 40000
	# a router that has forgotten is told again
	stop igd
	at r1 nft flush chain inet igd prerouting_miniupnpd
	unreached tcp $PUBLIC 40000
	router ext_ip=8.8.8.8
	reached tcp $PUBLIC 40000 12
	# and it lives no longer than natmap
	nm_stop n
	soon 12 "the port is still open" not_reached tcp $PUBLIC 40000
}

t_upnp_by_hand() {
	need upnpc miniupnpd
	lab
	nat r2 cone host=100.64.0.2 5000:40000
	router ext_ip=8.8.8.8
	py h1 svc echo udp 0.0.0.0 5000
	at h1 busybox ash "$HOOKS/upnp.sh" 5000 udp
	reached udp $PUBLIC 40000
	STATUS=0
	at h2 busybox ash "$HOOKS/upnp.sh" 5000 udp 2> "$D/h2.said" || STATUS=$?
	eq $STATUS 2 "status where another host has the port"
	has "$D/h2.said" 'upnp.sh: .*conflict' "what it says"
	stop igd
	hook upnp
	fails upnp "no router with UPnP"
	has "$D/upnp.said" 'upnp.sh: .*IGD' "what it says"
}

# miniupnpd with a shared address on its WAN refuses without STUN, or ext_ip=.
# It takes no address of a test network for a public one.
t_upnp_cgn() {
	need upnpc miniupnpd
	lab
	public 9.8.7.6
	route inet 9.8.7.6 dev br0
	route r2 198.51.100.0/24 dev wan
	nat r2 learn host=100.64.0.2
	router ''
	hook upnp RUNTIME_DIRECTORY="$D/run"
	fails upnp "a shared address on the router's WAN"
	stop igd
	router "ext_perform_stun=yes
ext_stun_host=$S1"
	works upnp
}

quick nsupdate 60
quick nsupdate_named_server 60
quick http_put_curl 60
quick http_put_wget 60
quick check_port_curl 60
quick check_port_wget 60
quick bittorrent_transmission 90
quick bittorrent_qbittorrent 90
quick upnp 90
quick upnp_by_hand 60
quick upnp_cgn 60
lab_main "$@"
