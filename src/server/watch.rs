//! What the server tells of by itself, whatever clients ask for.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::events::Event;
use crate::events::Events;
use crate::store::Pressure;
use crate::store::PressureState;

/// Tells when the store takes nothing more: once each time that it comes to that.
pub(super) async fn room(mut pressure: watch::Receiver<Pressure>, events: Events, stopping: CancellationToken) {
    let mut before = PressureState::Ok;
    loop {
        let now = pressure.borrow_and_update().state;
        if before == PressureState::Ok && now != PressureState::Ok {
            events.emit(Event::StoreFull);
        }
        before = now;
        tokio::select! {
            () = stopping.cancelled() => return,
            changed = pressure.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_store_that_fills_up_is_told_of_once() {
        let told = watch::Sender::new(Pressure { free: 9, state: PressureState::Ok });
        let events = Events::new(9, Arc::new(|_| ()));
        let mut heard = events.subscribe();
        let watching = room(told.subscribe(), events, CancellationToken::new());
        tokio::pin!(watching);
        let mut step = async |state| {
            told.send_replace(Pressure { free: 0, state });
            assert!(futures_util::poll!(watching.as_mut()).is_pending());
        };
        let states = [PressureState::Full, PressureState::ReadOnly, PressureState::Ok, PressureState::ReadOnly];
        for state in states {
            step(state).await;
        }
        drop(told);
        watching.await;
        assert_eq!((heard.next().await, heard.next().await), (Some(Event::StoreFull), Some(Event::StoreFull)));
        assert_eq!(heard.next().await, None, "no more than twice");
    }
}
