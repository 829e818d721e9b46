//! Unpacking of layers, seen from outside: what becomes of every entry type, of hostile archives, of
//! broken streams, and whether peers make the same tree.

mod entries;
mod hostile;
mod peers;
mod random;
mod streams;
mod support;
mod whiteouts;
