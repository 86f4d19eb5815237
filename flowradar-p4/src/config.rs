//! The generated header that ties a P4 program to a layout.
