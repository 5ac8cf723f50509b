//! The nouns of the OCI specifications: pure values, no I/O, no async, no words of our own product.
//!
//! Everything here is valid by construction: what could be parsed can be used.

pub mod descriptor;
pub mod digest;
pub mod error;
mod json;
pub mod manifest;
pub mod media_type;
pub mod name;
pub mod range;
pub mod reference;

pub use descriptor::Descriptor;
pub use digest::Algorithm;
pub use digest::Digest;
pub use digest::Hasher;
pub use error::ErrorCode;
pub use manifest::Class;
pub use manifest::Manifest;
pub use media_type::MediaType;
pub use name::RegistryName;
pub use name::RepositoryKey;
pub use name::RepositoryName;
pub use range::ByteRange;
pub use reference::Reference;
pub use reference::Tag;
