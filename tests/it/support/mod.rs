//! What the integration tests share: larder itself in this process, a scripted upstream, images, a client.

pub mod chat;
pub mod client;
pub mod forge;
pub mod hosted;
pub mod images;
pub mod larder;
pub mod push;
pub mod random;
pub mod upstream;
pub mod users;

pub use client::Answer;
pub use larder::Larder;
pub use upstream::Fault;
pub use upstream::Upstream;
