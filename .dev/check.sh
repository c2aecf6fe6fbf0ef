# The quick answer while one writes: format, clippy, and the tests that need no root, no service and no setup.

check() {
  local name start=$SECONDS tests=(--lib)
  [ $# = 0 ] || { usage >&2; exit 2; }
  cd "$top"
  say "cargo fmt --check"
  cargo fmt --check
  say "cargo clippy"
  cargo clippy --all-targets --locked --quiet -- -D warnings
  for name in tests/pure/*.rs; do tests+=(--test "$(basename "$name" .rs)"); done
  say "cargo test: the library and the pure tests"
  # as if there were no lab and no program to run: none of these may need one
  env -u EVENRING_LAB -u EVENRING_BIN cargo test --locked --quiet "${tests[@]}"
  say "all is well, in $((SECONDS - start)) s"
}
