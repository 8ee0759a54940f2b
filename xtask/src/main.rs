//! Developer commands behind the Makefile.
fn main() {}
