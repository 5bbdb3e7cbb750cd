//! What is measured here, as scripts that any [`Meter`] can follow: instruction counts (`src/bin/count`), allocations (`tests`), time (`benches`).

pub mod call;
pub mod floor;
pub mod handover;
pub mod house;
pub mod meter;
pub mod peers;
pub mod pieces;
pub mod transactions;

pub use meter::Meter;
