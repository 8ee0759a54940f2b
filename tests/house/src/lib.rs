//! The rules of the house, as tests.
//!
//! This room holds no product code. Its tests read the workspace as `cargo metadata` and as text and
//! fail when a rule of ARCHITECTURE.md is broken: who may import whom, where `unsafe` may stand, how
//! long a file may grow. A rule that no test holds is advice, and advice is forgotten.
#![forbid(unsafe_code)]
