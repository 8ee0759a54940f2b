//! Writes that overlap keep their order, new ones and those that are done again, whatever the device makes of it: the newest
//! is what a guest reads afterwards.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod again;
#[path = "../common/mod.rs"]
mod common;
mod new;
mod stage;
