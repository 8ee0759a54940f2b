//! The product's `sync.rs`, with locks and channels that the scheduler switches at.

pub(crate) use shuttle::sync::mpsc::Sender;
pub(crate) use shuttle::sync::{Mutex, MutexGuard};
pub(crate) use std::sync::PoisonError;
