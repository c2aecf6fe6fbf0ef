# The cargo tools that are built into the cache folder, and their versions.

cargo_deny=0.20.2
cargo_deb=3.8.0
cargo_mutants=27.1.0

# install_tool NAME VERSION [ARGS]: from crates.io, not into ~/.cargo, where it could be of another version. Built without
# optimising: this takes one minute instead of five, and none of them computes much. What they have in common is built once.
install_tool() {
  local name=$1 version=$2
  shift 2
  ! "$cache/tools/bin/$name" "${name#cargo-}" --version 2>/dev/null | grep -qF "$version" || return 0
  say "building $name $version (about a minute)"
  env CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root "$cache/tools" \
    --target-dir "$cache/tools/target" "$@" "$name@$version" </dev/null || die "$name could not be built: see above"
}

install_tools() {
  install_tool cargo-deny "$cargo_deny"
  install_tool cargo-deb "$cargo_deb" --no-default-features # without liblzma, which xz has
  rm -rf "$cache/tools/target"
}
