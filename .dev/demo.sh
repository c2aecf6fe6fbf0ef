# The demo: what is built for it. Keeping one up, looking into it and ending it is tests/demo/keep.rs.

part setup sandbox

demo_build() {
  setup asterisks
  say "building the release binary and the demo"
  cargo build --release --locked --bins --example demo
}

# Whether the example is there, and of a version that knows the words below.
built() { [ "$example" -nt tests/demo/keep.rs ]; }

demo() {
  need_root demo
  [ -z "${EVENRING_ASTERISK:-}" ] || [ -x "$EVENRING_ASTERISK/usr/sbin/asterisk" ] ||
    die "EVENRING_ASTERISK is $EVENRING_ASTERISK, but there is no $EVENRING_ASTERISK/usr/sbin/asterisk"
  cd "$top"
  local example=${CARGO_TARGET_DIR:-$top/target}/release/examples/demo
  case ${1:-} in
    "") demo_build; say "running the demo"; in_lab "$example" ;;
    --keep)
      # before a build that would replace the program of the demo that is up
      ! built || "$example" absent "$cache"
      demo_build
      exec "$example" keep "$cache" "${new_sandbox[@]}" "$example" stay ;;
    --exec)
      shift
      [ $# -gt 0 ] || die "demo --exec needs a command"
      built || demo_build
      # the demo has put its tools into bin: evenring, and the console of each Asterisk
      EVENRING_LAB=$cache TMPDIR=$sandbox PATH=$sandbox/bin:$PATH exec "$example" exec "$cache" "$@" ;;
    --stop)
      built || demo_build
      exec "$example" stop "$cache" ;;
    *) usage >&2; exit 2 ;;
  esac
}
