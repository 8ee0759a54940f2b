//! (room prepared; see ARCHITECTURE.md)
