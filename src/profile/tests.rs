//! Tests of profiles as a whole.
