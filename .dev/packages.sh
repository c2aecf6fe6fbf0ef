# The Debian packages that a developer's machine must have, and how they are installed without starting a service.

# command:package[,package]; a command that is there installs nothing
needed_commands="redis-server:redis-server dpkg-shlibdeps:dpkg-dev debootstrap:debootstrap ip:iproute2 nft:nftables openssl:openssl
  baresip:baresip-core promtool:prometheus unshare:util-linux nsenter:util-linux setpriv:util-linux flock:util-linux
  mount:mount python3:python3 node:nodejs npm:npm haproxy:haproxy kamailio:kamailio kamcmd:kamailio
  nginx:nginx named-checkzone:bind9-utils php:php-cli cc:gcc,libc6-dev"
needed_packages="python3-venv ca-certificates libfaketime php-curl"

missing_packages() {
  local pair
  for pair in $needed_commands; do
    command -v "${pair%%:*}" >/dev/null || tr , '\n' <<<"${pair#*:}"
  done
  for pair in $needed_packages; do
    dpkg-query -W -f '${db:Status-Status}' "$pair" 2>/dev/null | grep -qx installed || echo "$pair"
  done
}

install_packages() {
  local list policy=/usr/sbin/policy-rc.d
  list=$(missing_packages | sort -u | tr '\n' ' ')
  [ -n "${list// /}" ] || return 0
  command -v apt-get >/dev/null || die "these Debian packages are missing and there is no apt-get to install them: $list"
  say "installing with apt: $list"
  (
    # the services of these packages must not start: this policy says no to each, for as long as apt runs
    if [ ! -e $policy ]; then
      trap 'rm -f $policy' EXIT
      trap 'exit 130' INT TERM
      printf '#!/bin/sh\nexit 101\n' >$policy
      chmod 755 $policy
    fi
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    apt-get -qq update || say "apt-get update complained; trying with what it has"
    # shellcheck disable=SC2086
    apt-get -qq -o Dpkg::Use-Pty=0 install --no-install-recommends -y $list >/dev/null
  )
  list=$(missing_packages | sort -u | tr '\n' ' ')
  [ -z "${list// /}" ] || die "apt said it was done, but these are still missing: $list"
}
