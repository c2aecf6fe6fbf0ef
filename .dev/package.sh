# The Debian package: what is built for it, and how it is packed (a test packs with the same recipe).

part setup

package() {
  local target built args=()
  case ${1:-} in
    --static) args=(--target "$(uname -m)-unknown-linux-musl") ;;
    "") ;;
    *) usage >&2; exit 2 ;;
  esac
  setup tools
  cd "$top"
  target=$(realpath -ms "${CARGO_TARGET_DIR:-$top/target}")
  built=$target/release
  if [ ${#args[@]} -gt 0 ]; then
    command -v musl-gcc >/dev/null || die "a static build needs musl-gcc (apt install musl-tools) and rustup target add ${args[1]}"
    built=$target/${args[1]}/release
  fi
  say "building the release binary, its man pages and completions"
  cargo build --release --locked "${args[@]}" --bins --example pages
  rm -rf "$target/package"
  mkdir -p "$target/package/release"
  cp "$built/evenring" "$target/package/release/"
  "$built/examples/pages" "$target/package/release/pages"
  say "packing"
  pack "$target/package"
}

# pack TARGET [ARGS]: what lies in TARGET/release as a package in TARGET/debian; the path is its last line.
pack() {
  local target=$1
  shift
  cd "$top"
  gzip -9nf "$target"/release/pages/*.[15]
  CARGO_TARGET_DIR=$target "$cache/tools/bin/cargo-deb" deb --no-build --locked --offline --compress-system --output "$target/debian/" "$@"
}
