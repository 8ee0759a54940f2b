//! Regions and views: what is refused, what is found.
