//! Flow exports over groups of collectors.
