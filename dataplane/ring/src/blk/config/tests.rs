//! The configuration space, byte by byte.
