# Whether the pure tests notice when the pure modules do something else: cargo-mutants breaks one place at a time.
# Not a part of the test suite: all of it takes hours.

part tools

# Those of the pure tests (tests/pure) that are about src/ami and src/node. "fixtures" has snapshots, which go by the name
# of its binary; the others are one binary here, for the time that linking takes.
mutant_tests="link node node_fixtures node_gaps node_phones node_random node_reconcile probes wire"

# lean_crate FOLDER: this crate without the modules that know Redis or the command line, which no mutant is in: it is built and
# tested in a fraction of the time.
lean_crate() {
  local name
  mkdir -p "$1"
  rm -rf "$1/src" "$1/tests" "$1/proto-fixtures"
  cp -r src proto-fixtures Cargo.lock "$1"
  rm -r "$1"/src/{cli,daemon,registry,main.rs}
  sed -i '/^pub mod \(cli\|daemon\|registry\);/d' "$1/src/lib.rs"
  mkdir -p "$1/tests/pure"
  cp -r tests/{node_support,fake_ami,pure} "$1/tests"
  for name in $mutant_tests; do printf '#[path = "pure/%s.rs"]\nmod %s;\n' "$name" "$name"; done >"$1/tests/others.rs"
  sed '/^\[\[example\]\]/,$d' Cargo.toml >"$1/Cargo.toml"
  cat >>"$1/Cargo.toml" <<'END'
[[test]]
name = "fixtures"
path = "tests/pure/fixtures.rs"

[[test]]
name = "others"
path = "tests/others.rs"

[profile.dev]
opt-level = 1
debug = 0

[workspace]
END
}

# The exit code is that of cargo-mutants: 2 if a mutant was missed, 3 if one ran into the time limit.
mutants() {
  local target
  install_tool cargo-mutants "$cargo_mutants"
  rm -rf "$cache/tools/target"
  cd "$top"
  target=$(realpath -ms "${CARGO_TARGET_DIR:-$top/target}")/mutants
  lean_crate "$target/crate"
  say "breaking src/ami and src/node; the report is $target/mutants.out"
  # the crates are built once, into a folder that stays
  CARGO_TARGET_DIR=$target/build nice -n 19 "$cache/tools/bin/cargo-mutants" mutants --dir "$target/crate" --in-place \
    --output "$target" --file 'src/ami/**' --file 'src/node/**' --cargo-arg=--locked "$@"
}
