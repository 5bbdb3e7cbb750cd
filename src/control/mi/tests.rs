//! The table against the reference's recorded answers, over shards that answer from a list.
