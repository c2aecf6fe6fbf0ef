# The programs that are built with --release and run: bench, simulation, faults and soak.

bench() {
  cd "$top"
  say "building the bench (release)"
  cargo bench --locked --bench bench --no-run
  cargo bench --locked --quiet --bench bench -- "$@"
}

sim() {
  cd "$top"
  say "building the simulation (release)"
  cargo build --release --locked --quiet --example sim
  "${CARGO_TARGET_DIR:-$top/target}/release/examples/sim" "$@"
}

# faults WORD ARGS: what the program of both is called with
faults() {
  part setup sandbox
  need_root "$1"
  setup asterisks
  cd "$top"
  say "building the release binary and the fault suite"
  cargo build --release --locked --bins --example faults
  in_lab "${CARGO_TARGET_DIR:-$top/target}/release/examples/faults" "$@"
}
