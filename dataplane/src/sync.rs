//! What threads meet by. The models in tests/models compile mailbox and drain with a scheduler's own version of these.

pub(crate) use std::sync::mpsc::Sender;
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};
