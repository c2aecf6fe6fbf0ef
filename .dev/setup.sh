# All that must be there before a test or the demo can run: packages, Debian roots, tools, the queue clients, crates.

part packages roots tools

# build FILE COMMENT COMMAND...: what is missing in the cache folder is made in the background; `wait_builds` waits for all.
builds=()
build() {
  [ ! -e "$cache/$1" ] || return 0
  say "$2"
  shift 2
  "$@" & builds+=($!)
}

wait_builds() {
  local pid
  # shellcheck disable=SC2064
  trap "kill ${builds[*]:-} 2>/dev/null || true" EXIT
  for pid in "${builds[@]}"; do wait "$pid" || exit 1; done
  trap - EXIT
  builds=()
}

build_tools() { install_tools & builds+=($!); }

# Of the versions in requirements.txt, and nothing else.
build_venv() {
  cmp -s "$top/tests/clients/requirements.txt" "$cache/python/requirements.txt" && return 0
  say "making a Python environment with PyRSMQ and schemathesis, clients of the queue and of the API"
  rm -rf "$cache/python"
  "$(command -v /usr/bin/python3 || command -v python3)" -m venv "$cache/python"
  "$cache/python/bin/pip" -q install --no-deps -r "$top/tests/clients/requirements.txt"
  "$cache/python/bin/python" -c 'import rsmq, schemathesis'
  cp "$top/tests/clients/requirements.txt" "$cache/python/requirements.txt" # written last: the environment is whole
}

# Of the versions in the lock file; none of them runs a script of its own.
build_node_clients() {
  cmp -s "$top/tests/clients/package-lock.json" "$cache/clients/package-lock.json" && return 0
  say "installing rsmq, the foreign client of the queue tests that is written for Node.js"
  rm -rf "$cache/clients" "$cache/clients.new"
  mkdir "$cache/clients.new"
  cp "$top/tests/clients/package.json" "$top/tests/clients/package-lock.json" "$cache/clients.new"
  (cd "$cache/clients.new" && npm ci --silent --ignore-scripts --no-audit --no-fund) || die "npm could not install rsmq"
  mv -T "$cache/clients.new" "$cache/clients"
}

# setup WHAT...: the packages, the crates, and of the rest what is named: tools, asterisks, machine
setup() {
  local what
  need_root setup
  command -v cargo >/dev/null || die "cargo is not there; install Rust first (rust-version in Cargo.toml says which)"
  install_packages
  mkdir -p "$cache" "$sandbox"
  exec 9>"$cache/lock"
  flock -n 9 || { say "waiting for another ./dev setup"; flock 9; }
  for what in "$@"; do "build_$what"; done
  wait_builds
  build_venv
  build_node_clients
  exec 9>&-
  (cd "$top" && cargo fetch --locked --quiet)
}
