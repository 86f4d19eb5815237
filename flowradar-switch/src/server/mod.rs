//! The P4Runtime service over a switch.
