//! Guest memory as the front end describes it: regions of a file each, mapped once, looked up by two address spaces.
//!
//! Buffers arrive as guest addresses and may run from one region into the next; rings arrive as user addresses (the
//! front end's own) and must lie in one region.

mod error;
mod guard;
mod region;
mod view;

pub use error::MemError;
pub use guard::vanished_memory_count;
pub use region::{MemRegion, RegionSpec};
pub use view::MemView;
pub(crate) use view::{LocalView, Window};

#[cfg(test)]
mod tests;
