# The sandbox that each test binary and the demo run in: network, processes and mounts of its own, gone when it ends.

# in-lab CMD...: runs one command with network, processes and mounts of its own. Whatever it leaves behind (Asterisks,
# namespaces, overlays, temporary files) is gone when it ends, and two of them never meet. The exit code is the command's.
in_lab() {
  [ $# -gt 0 ] || die "in-lab needs a command"
  need_root in-lab
  [ "${EVENRING_ASTERISK:-}" ] || { [ -d "$cache/asterisk-22" ] && [ -d "$cache/asterisk-16" ]; } || die "the lab is not built yet: run ./dev setup"
  mkdir -p "$sandbox"
  exec setpriv --pdeathsig KILL "${new_sandbox[@]}" "$@"
}

# Put before a command, it runs it in a new sandbox; every step is an exec, so the pid stays.
new_sandbox=(unshare --net --mount --pid --fork --kill-child --mount-proc /bin/bash "$self" sandbox)

# The first process of a sandbox: it reaps orphans, and when it ends the kernel ends all others.
sandbox() {
  local code=0
  [ $$ = 1 ] || die "'sandbox' is for in-lab only"
  ip link set lo up
  mkdir -p /run/netns
  mount -t tmpfs tmpfs /run/netns
  mount -t tmpfs -o mode=755 tmpfs "$sandbox"
  export EVENRING_LAB=$cache TMPDIR=$sandbox
  trap 'exit 130' INT TERM
  "$@" <&0 &
  wait $! || code=$?
  exit "$code"
}
