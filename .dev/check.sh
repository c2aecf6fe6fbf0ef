# The quick answer while one writes: format, clippy, and the tests that need no root, no service and no setup.

# Every binary in tests/*.rs stands in one of these lists, named after the most that it needs; tests/layout.rs sees to it.
# pure: nothing but what cargo has built
tests_pure="fixtures guarantees layout link node node_fixtures node_gaps node_phones node_random node_reconcile probes readme
  simulation wire"
# redis: a real Redis or Valkey as well
tests_redis="inbox redis_acl redis_door registry_model registry_scripts scale terminal"
# asterisk: real Asterisks as well, some with phones
tests_asterisk="ami_cli ami_retries bad_input bursts case demo_line doctor drain events fault_suite framing health keepalive
  left_out logging login missed_events names outcomes phone_evidence registrations rejoin reload restart_or_not restarts
  secrets sentinel soak"
# system: a Debian of its own that systemd boots
tests_system="package systemd"
# tools: programs that judge what is shipped (promtool, cargo-deny, systemd-analyze), and the lab and the demo themselves
tests_tools="alerts crates demo_keep lab_selftest packaging"

check() {
  local name start=$SECONDS tests=(--lib)
  [ $# = 0 ] || { usage >&2; exit 2; }
  cd "$top"
  say "cargo fmt --check"
  cargo fmt --check
  say "cargo clippy"
  cargo clippy --all-targets --locked --quiet -- -D warnings
  for name in $tests_pure; do tests+=(--test "$name"); done
  say "cargo test: the library and the pure tests"
  # as if there were no lab and no program to run: none of these may need one
  env -u EVENRING_LAB -u EVENRING_BIN cargo test --locked --quiet "${tests[@]}"
  say "all is well, in $((SECONDS - start)) s"
}
