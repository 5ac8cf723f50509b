//! The upstream against real servers of this process: scripted, counting, on addresses of this machine.

mod auth;
mod health;
mod proxy;
mod pull;
mod server;
