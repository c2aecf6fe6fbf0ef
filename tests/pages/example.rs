//! `./dev package`: writes the man pages and completions into the folder that is named.
#![allow(clippy::expect_used, reason = "a failure ends the build of the package, and says why")]

#[path = "mod.rs"]
mod pages;

fn main() {
    let folder = std::env::args_os().nth(1).expect("usage: pages FOLDER");
    pages::write(folder.as_ref()).expect("write the pages");
}
