//! Benchmarks; see benches/.
