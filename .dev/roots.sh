# The Debian roots in the cache folder: two with Asterisk, one with systemd; where they come from and what is in them.

# The Debian mirror that apt uses here.
mirror() {
  local found
  found=$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
    awk '/^URIs:/ && $2 ~ /\/debian\/?$/ {print $2; exit}
         /^deb / {for (i = 2; i <= NF; i++) if ($i ~ /^https?:.*\/debian\/?$/) {print $i; exit}}')
  [ -n "$found" ] || die "no Debian mirror found in apt's sources; give one: EVENRING_MIRROR=http://.../debian ./dev setup"
  echo "$found"
}

# build_root NAME SUITE PACKAGES PROGRAM [SCRIPT]: a small Debian in which PROGRAM is. Renamed into place when complete, so
# that a build that was interrupted is done again. debootstrap's own mounts live and die in a mount namespace.
build_root() {
  local root=$cache/$1 log=$cache/$1.log proxy=
  rm -rf "$root.part"
  eval "$(apt-config shell proxy Acquire::http::Proxy)"
  # shellcheck disable=SC2015 # a root without its program is a failure, too
  http_proxy=${http_proxy:-$proxy} setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child \
    debootstrap --variant=minbase --include="$3" "$2" "$root.part" "${EVENRING_MIRROR:-$(mirror)}" ${5:+"$5"} \
    >"$log" 2>&1 </dev/null && [ -x "$root.part$4" ] || {
    tail -n 20 "$log" >&2
    die "the Debian root $1 could not be built; the whole log is $log"
  }
  rm -rf "$root.part"/var/cache/apt/* "$root.part"/var/lib/apt/lists/* "$root.part"/var/cache/debconf/*-old
  rm -rf "$root"
  mv -T "$root.part" "$root"
  say "the Debian root $1 is ready"
}

build_asterisks() {
  [ -z "${EVENRING_ASTERISK:-}" ] || return 0
  # Valkey, which Debian 12 has not, stands in the same root
  build asterisk-22/usr/bin/valkey-server "building a Debian root with Asterisk 22 and Valkey (about a minute)" \
    build_root asterisk-22 forky asterisk,procps,valkey-server /usr/sbin/asterisk /usr/share/debootstrap/scripts/sid
  build asterisk-16 "building a Debian root with Asterisk 16 (about a minute)" \
    build_root asterisk-16 bullseye asterisk,procps /usr/sbin/asterisk
}

# A clean Debian 12 that systemd boots, for the tests of unit, package and README.md. Its apt knows one source, a folder in it:
# so "apt-get install redis-server" installs it there without a network, as it does on a new host.
build_machine() {
  build debian-12/srv/debian/Packages "building a Debian root with systemd (about a minute)" machine_root
}

machine_root() {
  local root=$cache/debian-12.new proxy=
  build_root debian-12.new bookworm systemd,systemd-sysv,procps,man-db /lib/systemd/systemd
  eval "$(apt-config shell proxy Acquire::http::Proxy)"
  # shellcheck disable=SC2015 # whatever fails here, there is no root
  http_proxy=${http_proxy:-$proxy} setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child \
    chroot "$root" /bin/bash -euc '
      export DEBIAN_FRONTEND=noninteractive
      apt-get -qq update
      apt-get -qq install --yes --no-install-recommends --download-only redis-server
      mkdir /srv/debian
      mv /var/cache/apt/archives/*.deb /srv/debian/' >>"$cache/debian-12.new.log" 2>&1 </dev/null &&
    (cd "$root/srv/debian" && dpkg-scanpackages --multiversion . >Packages 2>>"$cache/debian-12.new.log") &&
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* &&
    echo 'deb [trusted=yes] file:/srv/debian ./' >"$root/etc/apt/sources.list" &&
    chroot "$root" apt-get -qq update >>"$cache/debian-12.new.log" 2>&1 </dev/null || {
    tail -n 20 "$cache/debian-12.new.log" >&2
    die "the Debian root debian-12 could not be built; the whole log is $cache/debian-12.new.log"
  }
  rm -rf "$cache/debian-12"
  mv -T "$root" "$cache/debian-12"
}
