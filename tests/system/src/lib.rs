//! Tests with several processes on real servers: see `tests`.
