//! A plan in a file: with a code that only the server that made it can make, so that what is carried out is what was shown.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::SecureRandom;
use ring::rand::SystemRandom;
use serde::Deserialize;
use serde::Serialize;

use crate::store;
use crate::store::Store;
use crate::telemetry;

use super::document::Document;

/// Bytes of the key.
const KEY_BYTES: usize = 32;
/// The kind and the name of the record that keeps it.
const RECORD: (&str, &str) = ("prune", "key");

/// A plan with its code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// The plan.
    pub plan: Document,
    /// The code: HMAC-SHA256 over the plan as this server writes it.
    pub mac: String,
}

/// Makes and checks codes.
#[derive(Clone)]
pub(super) struct Seal(hmac::Key);

impl Seal {
    /// The key of this server: drawn once, and kept with the store. Where it can't be kept it lives as long as the process.
    pub(super) async fn open(store: &Store) -> Result<Self, store::Error> {
        let (kind, name) = RECORD;
        let kept: Option<String> = store.state(kind, name).await?;
        let mut key = [0; KEY_BYTES];
        if kept.is_some_and(|kept| hex::decode_to_slice(kept, &mut key).is_ok()) {
            return Ok(Self::of(&key));
        }
        if SystemRandom::new().fill(&mut key).is_err() {
            return Err(store::Error::Closed);
        }
        if let Err(error) = store.put_state(kind, name, &hex::encode(key)).await {
            tracing::warn!(error = %telemetry::chain(&error), "plans of prune end with this process: their key can't be kept");
        }
        Ok(Self::of(&key))
    }

    fn of(key: &[u8; KEY_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The plan with its code.
    pub(super) fn seal(&self, plan: Document) -> Result<PlanFile, serde_json::Error> {
        let bytes = serde_json::to_vec(&plan)?;
        let mac = STANDARD.encode(hmac::sign(&self.0, &bytes));
        Ok(PlanFile { plan, mac })
    }

    /// Whether the plan is as it was sealed. How it is laid out does not matter.
    pub(super) fn holds(&self, file: &PlanFile) -> bool {
        let (Ok(bytes), Ok(mac)) = (serde_json::to_vec(&file.plan), STANDARD.decode(&file.mac)) else { return false };
        hmac::verify(&self.0, &bytes, &mac).is_ok()
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn a_plan_that_was_edited_is_told_from_one_that_was_laid_out_anew() {
        let seal = Seal::of(&[7; KEY_BYTES]);
        let file = seal.seal(Document::new(Timestamp(5), None, None)).unwrap();
        let text = serde_json::to_string_pretty(&file).unwrap();
        let again: PlanFile = serde_json::from_str(&text).unwrap();
        assert!(seal.holds(&again));
        for (from, to) in [("\"made_at_ms\": 5", "\"made_at_ms\": 6"), ("\"policy\": null", "\"policy\": \"all\"")] {
            let edited: PlanFile = serde_json::from_str(&text.replace(from, to)).unwrap();
            assert!(!seal.holds(&edited), "{to}");
        }
        let more = text.replace("\"mac\"", "\"more\": 1, \"mac\"");
        assert!(serde_json::from_str::<PlanFile>(&more).is_err(), "what the code does not cover is refused");
        assert!(!Seal::of(&[8; KEY_BYTES]).holds(&file), "another server's");
    }
}
