//! Placeholder while the core is compiled.
