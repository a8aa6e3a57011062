//! The store in Redis: the laws, what dies and comes back, and what is refused.
//! Each test has a server of its own.

#[path = "support/private.rs"]
mod private;
#[path = "support/redis.rs"]
mod server;

#[path = "redis/laws.rs"]
mod laws;
