//! Sets `cfg(fuzzing)` for whoever compiles this crate, not only for cargo-fuzz: all of it is for that.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(fuzzing)");
    println!("cargo::rustc-cfg=fuzzing");
}
