//! Reading encoded flowsets out of a switch by packets, sans I/O.
