//! The browser border.
