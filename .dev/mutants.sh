# Whether the pure tests notice when the pure modules do something else: cargo-mutants breaks one place at a time.
# Not a part of the test suite: all of it takes hours.

part tools

# Those of the pure tests (.dev/check.sh) that are about src/ami and src/node.
mutant_tests="fixtures link node node_fixtures node_gaps node_phones node_random node_reconcile probes wire"

# The exit code is that of cargo-mutants: 2 if a mutant was missed, 3 if one ran into the time limit.
mutants() {
  local target name tests=(--lib)
  for name in $mutant_tests; do tests+=(--test "$name"); done
  install_tool cargo-mutants "$cargo_mutants"
  rm -rf "$cache/tools/target"
  cd "$top"
  target=$(realpath -ms "${CARGO_TARGET_DIR:-$top/target}")/mutants
  mkdir -p "$target"
  say "breaking src/ami and src/node; the report is $target/mutants.out"
  # the crates are built once, into a folder that stays
  CARGO_TARGET_DIR=$target/build CARGO_PROFILE_DEV_DEBUG=0 nice -n 19 "$cache/tools/bin/cargo-mutants" mutants --output "$target" --jobs 1 \
    --file 'src/ami/**' --file 'src/node/**' --cargo-arg=--locked "$@" -- "${tests[@]}"
}
