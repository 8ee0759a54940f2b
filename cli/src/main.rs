//! The holdfast binary: wiring only.
fn main() {}
