//! The error codes of the distribution specification ("Error Codes").

/// A code that clients understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The blob is not known to the repository.
    BlobUnknown,
    /// The upload can't go on.
    BlobUploadInvalid,
    /// There is no such upload.
    BlobUploadUnknown,
    /// The digest is none, or not that of the bytes.
    DigestInvalid,
    /// A manifest names a blob that the repository lacks.
    ManifestBlobUnknown,
    /// The manifest can't be used.
    ManifestInvalid,
    /// The manifest is not known to the repository.
    ManifestUnknown,
    /// The name is none.
    NameInvalid,
    /// The repository is not known.
    NameUnknown,
    /// The size is not that of the bytes.
    SizeInvalid,
    /// A credential is needed.
    Unauthorized,
    /// The credential does not suffice.
    Denied,
    /// The operation is not supported here.
    Unsupported,
    /// Too many requests; common, though not in the specification's table.
    TooManyRequests,
    /// A fault on this side or of an upstream, which clients may take up again.
    Unavailable,
}

impl ErrorCode {
    /// The code as it stands in the body.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}
