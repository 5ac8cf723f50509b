//! What is wanted before somebody asks for it: which images of a matrix are missing, so that a pipeline builds only those.

pub mod missing;
