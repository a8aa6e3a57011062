//! Tests of several processes, on real servers: see `tests`.
