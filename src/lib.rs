//! The server around the shards: configuration, databases, management interface, command line.
//!
//! Everything here runs on the control plane (tokio, threads of its own) and may be as slow as it likes: calls live
//! on the shards (`shards/`), which it reaches through bounded channels only.

pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
mod logs;
mod memory;
pub mod server;
pub mod store;
