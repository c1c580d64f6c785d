#!/bin/bash
# SPDX-License-Identifier: MIT
#
# release.sh DIR
#
# What `make release` made, in DIR: each binary runs under qemu and asks a STUN
# server; the packages have what they must have, byte by byte.
# shellcheck disable=SC2317	# try() calls the functions
. "$(dirname "$0")/../lab.sh"
cd "$1" || exit
bad=0

verdict() {
	if [ "$2" = 0 ]; then
		echo "ok release.$1"
	else
		sed 's/^/# /' "$D/log"
		echo "not ok release.$1"
		bad=1
	fi
}

# try NAME COMMAND ...
try() {
	local status=0
	("${@:2}") > "$D/log" 2>&1 || status=$?
	verdict "$1" $status
}

qemu() {
	case ${1##*-} in
	armhf) echo arm ;;
	i686) echo i386 ;;
	powerpc) echo ppc ;;
	*) echo "${1##*-}" ;;
	esac
}

runs() {
	local emulator
	emulator=qemu-$(qemu "$1")-static
	"$emulator" "./$1" --version || fail "--version"
	timeout 30 "$emulator" "./$1" --once -u -b 0 -s "127.0.0.1:$PORT" \
	    > "$D/line" || fail "--once"
	has "$D/line" '^127\.0\.0\.1 [0-9]+ .* udp 127\.0\.0\.1$' line
}

# no need of what a device has not: libc, a floating point unit
lean() {
	hasnt <(readelf -lW "$1") INTERP "$1 is not static"
	case ${1##*-} in
	mips|mipsel) has <(readelf -A "$1") 'FP ABI: Soft float' ;;
	arm) has <(readelf -hW "$1") 'Flags:.*soft-float' ;;
	armhf) has <(readelf -hW "$1") 'Flags:.*hard-float' ;;
	esac
}

packages() {
	cat > "$D/packages.py" <<-'EOF'
	import glob, gzip, hashlib, io, re, sys, tarfile, zlib
	version = sys.argv[1]
	files = {'etc/config/natmap': 0o600, 'etc/init.d/natmap': 0o755,
	         'usr/bin/natmap': 0o755, 'usr/lib/natmap/update.sh': 0o755}
	binaries = {open(f, 'rb').read() for f in
	            glob.glob('natmap-%s-*' % version)}

	def fields(text, sep):
	    return dict(line.split(sep, 1) for line in text.splitlines())

	def data(tar, more=()):
	    got = {m.name.lstrip('./'): m for m in tar if m.isfile()}
	    assert set(got) == set(files) | set(more), got
	    for name, mode in files.items():
	        assert (got[name].mode, got[name].uid) == (mode, 0), name
	    assert tar.extractfile(got['usr/bin/natmap']).read() in binaries
	    return got

	def ipk(name, arch):
	    outer = tarfile.open(name)
	    assert outer.getnames() == ['./debian-binary', './data.tar.gz',
	                                './control.tar.gz']
	    def part(n):
	        return outer.extractfile('./' + n)
	    assert part('debian-binary').read() == b'2.0\n'
	    data(tarfile.open(fileobj=part('data.tar.gz')))
	    control = tarfile.open(fileobj=part('control.tar.gz'))
	    f = fields(control.extractfile('./control').read().decode(), ': ')
	    assert f['Package'] == 'natmap-ng' and f['Architecture'] == arch
	    assert f['Version'] == version + '-r1', f
	    assert f['Provides'] == f['Conflicts'] == 'natmap'
	    assert control.extractfile('./conffiles').read() == \
	        b'/etc/config/natmap\n'
	    for script in 'postinst', 'prerm':
	        m = control.getmember('./' + script)
	        assert m.mode == 0o755
	        assert b'\ndefault_' + script.encode() + b' ' in \
	            control.extractfile(m).read()

	def apk(name, arch):
	    whole = open(name, 'rb').read()
	    z = zlib.decompressobj(31)
	    control = z.decompress(whole)
	    rest = z.unused_data
	    # no end blocks: apk reads both parts as one tar file
	    assert control[-1024:].strip(b'\0')
	    control = tarfile.open(fileobj=io.BytesIO(control + bytes(1024)))
	    assert control.getnames() == ['.PKGINFO', '.post-install',
	                                  '.post-upgrade', '.pre-deinstall']
	    f = fields(control.extractfile('.PKGINFO').read().decode(), ' = ')
	    assert (f['pkgname'], f['arch']) == ('natmap-ng', arch)
	    assert f['pkgver'] == version + '-r1'
	    assert f['provides'] == 'natmap=%s-r1' % version
	    assert f['datahash'] == hashlib.sha256(rest).hexdigest()
	    tar = tarfile.open(fileobj=io.BytesIO(gzip.decompress(rest)))
	    lists = ['lib/apk/packages/natmap-ng.' + e
	             for e in ('list', 'conffiles')]
	    for m in data(tar, lists).values():
	        assert m.pax_headers['APK-TOOLS.checksum.SHA1'] == \
	            hashlib.sha1(tar.extractfile(m).read()).hexdigest(), m.name
	    assert sorted(tar.extractfile(lists[0]).read().decode().split()) == \
	        sorted('/' + n for n in files)

	n = 0
	for name in glob.glob('natmap-ng*'):
	    arch = re.search(r'-r1_(.*)\.[ai]pk$', name)[1]
	    (apk if name.endswith('.apk') else ipk)(name, arch)
	    n += 1
	print(n, 'packages')
	assert n >= 2 and n % 2 == 0
	EOF
	"$PY" "$D/packages.py" "$1"
}

D=$(mktemp -d)
trap 'kill "$server"; rm -rf "$D"' EXIT
version=$(sed -n 's/^.define VERSION[^"]*"\(.*\)".*/\1/p' "$TESTS/../natmap.h")
PORT=$((20000 + RANDOM % 10000))
"$PY" "$NET" stun plain 127.0.0.1 $PORT udp > "$D/stun" &
server=$!
wait_for 10 grep -q ready "$D/stun"
try checksums sha256sum -c SHA256SUMS
for f in "natmap-$version"-*; do
	try "lean.${f##*-}" lean "$f"
	try "runs.${f##*-}" runs "$f"
done
try packages packages "$version"
exit $bad
