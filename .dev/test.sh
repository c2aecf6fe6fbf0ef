# All tests, each binary in a sandbox of its own.

part setup

run_tests() {
  unset EVENRING_ASTERISK # which is for the demo: the tests are about certain versions
  need_root test
  setup tools asterisks machine
  cd "$top"
  local triple
  triple=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
  say "cargo test --locked $*"
  exec env "CARGO_TARGET_${triple}_RUNNER=./dev in-lab" EVENRING_CACHE="$cache" cargo test --locked "$@"
}
