//! Benchmarks of several processes, on real servers.
