//! What every sink must keep.
