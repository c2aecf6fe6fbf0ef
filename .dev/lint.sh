# What is wrong with the tree without running it: format, clippy, docs, crates and shell scripts.

part tools

lint() {
  cd "$top"
  say "cargo fmt --check"
  cargo fmt --check
  cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
  say "the fuzz targets' Cargo.lock"
  cargo metadata --locked --format-version 1 --manifest-path tests/fuzz/Cargo.toml >/dev/null
  say "cargo clippy"
  cargo clippy --all-targets --locked -- -D warnings
  say "cargo doc"
  RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked --quiet
  install_tools
  say "cargo deny: licences, sources, what is banned"
  "$cache/tools/bin/cargo-deny" --log-level error --locked check bans licenses sources
  say "shell scripts"
  local script parts=(dev .dev/*.sh) scripts=(.ci/run tests/lab/boot.sh systemd/deb/*)
  for script in "${parts[@]}" "${scripts[@]}"; do bash -n "$script"; done
  if ! command -v shellcheck >/dev/null; then echo "(no shellcheck here: bash -n only)"; return; fi
  shellcheck "${scripts[@]}"
  # the parts share the variables and the `set -e` of dev
  shellcheck --shell bash --exclude SC2034,SC2154,SC2164 "${parts[@]}"
}
