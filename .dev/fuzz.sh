# The fuzz targets: how they are built for libFuzzer, and run all at once.

fuzz_targets="frame link action"

# libFuzzer on the stable toolchain: its counters come from a pass of LLVM that `-C` switches on. All that is made
# lies under target/fuzz: the corpus grows there from run to run, and a finding is kept as artifacts/TARGET-*.
fuzz() {
  local minutes=5 triple dir target pids=() pid code=0
  case ${1:-} in
    --minutes) [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die "fuzz --minutes needs a number of minutes"; minutes=$2 ;;
    "") ;;
    *) usage >&2; exit 2 ;;
  esac
  command -v c++ >/dev/null || die "libFuzzer needs a C++ compiler: install g++"
  cd "$top"
  triple=$(rustc -vV | sed -n 's/^host: //p')
  dir=$(realpath -ms "${CARGO_TARGET_DIR:-$top/target}")/fuzz
  say "building the fuzz targets"
  env CARGO_TARGET_DIR="$dir" "CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$triple")_RUSTFLAGS=-Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1" \
    cargo build --locked --quiet --release --target "$triple" --manifest-path tests/fuzz/Cargo.toml
  mkdir -p "$dir/artifacts"
  say "fuzzing for $minutes minutes: $fuzz_targets"
  for target in $fuzz_targets; do
    mkdir -p "$dir/corpus/$target"
    nice -n 19 "$dir/$triple/release/$target" "$dir/corpus/$target" proto-fixtures/v13 proto-fixtures/v16 proto-fixtures/v18 proto-fixtures/v22 \
      -max_total_time=$((minutes * 60)) -max_len=1024 -timeout=20 -rss_limit_mb=2048 -verbosity=0 \
      -print_final_stats=1 -artifact_prefix="$dir/artifacts/$target-" >"$dir/$target.log" 2>&1 &
    pids+=($!)
  done
  # shellcheck disable=SC2064
  trap "kill ${pids[*]} 2>/dev/null || true" EXIT
  for pid in "${pids[@]}"; do wait "$pid" || code=1; done
  trap - EXIT
  for target in $fuzz_targets; do
    say "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$dir/$target.log") executions"
    if grep -qE 'SUMMARY|panicked|ERROR' "$dir/$target.log"; then
      code=1
      tail -n 40 "$dir/$target.log" >&2
    fi
  done
  [ $code = 0 ] || die "a finding: see above, and $dir/artifacts"
  say "no finding"
}
