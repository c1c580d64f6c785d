#!/bin/sh
# SPDX-License-Identifier: MIT
#
# pack.sh BINARY VERSION ARCH DIR
#
# Makes OpenWrt's packages of a static binary without a buildroot, in DIR:
# an .ipk for opkg (up to 24.10) and an .apk for apk (from 25.12, where it is
# installed with --allow-untrusted).  ARCH is OpenWrt's name of it, as
# aarch64_cortex-a53.  Takes GNU tar; the same input gives the same bytes.
set -e
binary=$1 version=$2-r1 arch=$3 out=$4
files=$(dirname "$0")/files
name=natmap-ng
about='Opens a port behind a full-cone NAT'
when=${SOURCE_DATE_EPOCH:-0}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
umask 022

# FILE ...: in the current folder
archive() {
	tar --owner=0 --group=0 --numeric-owner --sort=name --mtime="@$when" \
	    -b 1 "$@"
}

# a script of the package: OpenWrt's own FUNCTION does the work
script() {
	cat <<-END
	#!/bin/sh
	[ "\$IPKG_NO_SCRIPT" = 1 ] && exit 0
	[ -s "\$IPKG_INSTROOT/lib/functions.sh" ] || exit 0
	. "\$IPKG_INSTROOT/lib/functions.sh"
	export root="\$IPKG_INSTROOT" pkgname=$name
	$1 "\$0" "\$@"
	END
}

mkdir -p "$out" "$dir/data/usr/bin" "$dir/data/usr/lib/natmap" \
    "$dir/data/etc/config" "$dir/data/etc/init.d" "$dir/control"
install -m 755 "$binary" "$dir/data/usr/bin/natmap"
install -m 755 "$files/natmap-update.sh" "$dir/data/usr/lib/natmap/update.sh"
install -m 755 "$files/natmap.init" "$dir/data/etc/init.d/natmap"
install -m 600 "$files/natmap.config" "$dir/data/etc/config/natmap"
size=$(du -sb "$dir/data" | cut -f 1)

# opkg: three members in a tar.gz
cat >"$dir/control/control" <<END
Package: $name
Version: $version
Provides: natmap
Conflicts: natmap
Section: net
Architecture: $arch
Installed-Size: $size
License: MIT
Description: $about
END
echo /etc/config/natmap >"$dir/control/conffiles"
script default_postinst >"$dir/control/postinst"
script default_prerm >"$dir/control/prerm"
chmod 755 "$dir/control/postinst" "$dir/control/prerm"
echo 2.0 >"$dir/debian-binary"
for part in control data; do
	archive -C "$dir/$part" -c . | gzip -9n >"$dir/$part.tar.gz"
done
archive -C "$dir" -c ./debian-binary ./data.tar.gz ./control.tar.gz |
    gzip -9n >"$out/${name}_${version}_$arch.ipk"

# apk, format 2: a control part without the two blocks of zeros that end a tar
# file, then the data, each file with its SHA-1 in a pax header
mkdir -p "$dir/data/lib/apk/packages"
(cd "$dir/data" && find . -type f | sed 's/^.//' | sort) >"$dir/list"
mv "$dir/list" "$dir/data/lib/apk/packages/$name.list"
echo /etc/config/natmap >"$dir/data/lib/apk/packages/$name.conffiles"
(
	cd "$dir/data"
	find . -mindepth 1 | sed 's/^..//' | LC_ALL=C sort | while read -r f; do
		# tar writes no header when all times are deleted
		form=--format=ustar sum=
		[ -d "$f" ] || {
			sum=$(sha1sum "$f" | cut -d ' ' -f 1)
			form=--pax-option=atime:=0,delete=ctime
		}
		archive "$form${sum:+,APK-TOOLS.checksum.SHA1:=$sum}" \
		    --no-recursion -c "$f" | head -c -1024
	done
	head -c 1024 /dev/zero
) | gzip -9n >"$dir/data.tar.gz"
rm -rf "$dir/control"
mkdir "$dir/control"
cat >"$dir/control/.PKGINFO" <<END
pkgname = $name
pkgver = $version
pkgdesc = $about
builddate = $when
size = $size
arch = $arch
license = MIT
origin = $name
provides = natmap=$version
datahash = $(sha256sum "$dir/data.tar.gz" | cut -d ' ' -f 1)
END
script default_postinst >"$dir/control/.post-install"
script default_postinst | sed '1a export PKG_UPGRADE=1' \
    >"$dir/control/.post-upgrade"
script default_prerm >"$dir/control/.pre-deinstall"
chmod 755 "$dir"/control/.p*
{
	archive --format=ustar -C "$dir/control" -c .PKGINFO .post-install \
	    .post-upgrade .pre-deinstall | head -c -1024 | gzip -9n
	cat "$dir/data.tar.gz"
} >"$out/$name-${version}_$arch.apk"
