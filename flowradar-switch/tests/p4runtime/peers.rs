//! Clients of other projects, from PyPI.
