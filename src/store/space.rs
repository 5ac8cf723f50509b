//! The reserve of the file system, and whether there is room.

use tokio::sync::watch;

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// Bytes that are free beyond the reserve.
    pub free: u64,
    /// What that means.
    pub state: PressureState,
}

/// Whether writes are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PressureState {
    /// They are.
    Ok,
    /// The reserve is reached.
    Full,
    /// The file system takes none.
    ReadOnly,
}

/// Watches the file system.
#[derive(Debug)]
pub struct Space {
    pressure: watch::Sender<Pressure>,
}

impl Space {
    /// What is known, and what changes about it.
    pub fn pressure(&self) -> watch::Receiver<Pressure> {
        self.pressure.subscribe()
    }
}
