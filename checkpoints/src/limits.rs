//! Every limit of the crate, by name.

use std::time::Duration;

/// The most bytes that one value of [`crate::codec`] may have: 1 GiB.
pub const CODEC_BYTES_MAX: usize = 1 << 30;

/// The most bytes that one state object may have: 128 GiB, for S3 takes no more than 10,000 parts of an upload.
pub const STATE_OBJECT_BYTES_MAX: u64 = 128 << 30;

/// A state object up to this size is created in one request; a larger one is uploaded in parts while it is made: 32 MiB.
pub const STATE_IN_ONE_BYTES_MAX: usize = 32 << 20;

/// The size of those parts: 16 MiB. S3 wants at least 5 MiB, and some stores want all parts alike.
pub const STATE_PART_BYTES: usize = 16 << 20;

/// The most bytes that one manifest may have: 64 MiB.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// The longest operator uid or section name in a state object, in bytes.
pub const SECTION_NAME_BYTES_MAX: usize = 1024;

/// State objects up to this size are read whole at restore, larger ones by section: 8 MiB.
pub const STATE_READ_WHOLE_BYTES_MAX: u64 = 8 << 20;

/// How many bytes of whole state objects a [`crate::StateReader`] keeps: 256 MiB.
pub const STATE_CACHE_BYTES_MAX: u64 = 256 << 20;

/// How many checkpoints may exist whose output is not published yet.
pub const UNPUBLISHED_MAX: usize = 8;

/// After how many checkpoints a running coordinator claims a new generation, so that the base from which a successor looks for the
/// newest checkpoint moves on, and manifests behind it can be removed.
pub const REBASE_AFTER: u64 = 256;

/// How often a starting coordinator tries to claim a generation when others take it first.
pub const CLAIM_TRIES_MAX: u32 = 16;

/// How often a create-if-absent is tried when it is answered with "exists" and nothing is there.
pub const CREATE_TRIES_MAX: u32 = 8;

/// How many objects are removed or inspected at once.
pub const CONCURRENCY: usize = 8;

/// How often a request to a local or in-memory store is tried.
pub const STORE_TRIES: u32 = 5;

/// How often a request to a remote store is tried in addition to the client's own retries.
pub const REMOTE_TRIES: u32 = 2;

/// The wait before the second try of a request; it doubles with each further one.
pub const RETRY_DELAY: Duration = Duration::from_millis(50);

/// How long the client of a remote store retries one request.
pub const REMOTE_RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one request to a remote store may take, unless the opener or a variable says otherwise: what the client has by default.
pub const REMOTE_REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
