//! `POST /api/v1/missing`: which images of a matrix are neither here nor upstream.

use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::api::Answer;
use crate::api::Api;
use crate::api::Asked;
use crate::api::Door;
use crate::api::Sent;
use crate::api::failure::Failure;
use crate::api::receive;
use crate::config::duration;
use crate::warm::missing::Asker;
use crate::warm::missing::Fault;
use crate::warm::missing::Question;
use crate::warm::missing::State;
use crate::warm::missing::matrix::Cell;

use super::document;

/// The body of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// The matrix: a text in YAML or JSON, or the matrix itself.
    matrix: Value,
    /// A duration, as the configuration writes them.
    #[serde(default)]
    lease: Option<String>,
    #[serde(default)]
    rows_max: Option<usize>,
}

/// Every cell with its state, and the rows that are to be built. From the registry's listener each cell needs the right to
/// pull it.
pub(super) async fn answer<B: Sent>(api: &Api, door: Door, asked: &Asked<'_>, body: &mut B) -> Answer {
    let bytes = receive::whole(api, asked, body).await?;
    let wanted: Wanted = serde_json::from_slice(&bytes)
        .map_err(|_| Failure::bad_request("the request's body is not {\"matrix\": …, \"lease\": \"30m\"}"))?;
    let lease = wanted.lease.as_deref().map(duration::parse).transpose();
    let lease = lease.ok().filter(|lease| lease.is_none_or(|lease| !lease.is_zero()));
    let lease = lease.ok_or_else(|| Failure::bad_request("`lease` is not a duration like 30m"))?;
    let matrix = match wanted.matrix {
        Value::String(text) => text,
        itself => itself.to_string(),
    };
    let question = Question { matrix, lease, rows_max: wanted.rows_max };
    let caller = asked.caller(None);
    let asker = if door == Door::Admin { Asker::Owner } else { Asker::Client(&caller) };
    let answered = api.missing.answer(asker, question).await?;
    let cells: Vec<Value> = answered.cells.into_iter().map(|(cell, state)| told(door, &cell, state)).collect();
    let count = |word: &str| answered.counts.get(word).copied().unwrap_or_default();
    let words = ["here", "upstream", "missing", "leased", "failed"];
    let counts: serde_json::Map<String, Value> =
        words.into_iter().map(|word| (word.to_owned(), count(word).into())).collect();
    document(&json!({
        "count": answered.rows.len(),
        "rows": answered.rows,
        "counts": counts,
        "leased_until": answered.leased_until.map(|until| until.to_string()),
        "cells": cells,
    }))
}

fn told(door: Door, cell: &Cell, state: State) -> Value {
    let values: serde_json::Map<String, Value> =
        cell.values.iter().map(|(name, value)| (name.to_string(), (**value).into())).collect();
    let mut told = json!({ "image": &*cell.image, "values": values, "state": state.word() });
    match state {
        State::Leased(until) => set(&mut told, "leased_until", until.to_string()),
        State::Failed(fault) => {
            let failure = match fault {
                Fault::Cache(error) => Failure::from(error),
                Fault::Hidden(refusal) => Failure::from(refusal),
            };
            set(&mut told, "error", if door == Door::Admin { failure.sentence() } else { failure.message() });
        }
        State::Here | State::Upstream | State::Missing => {}
    }
    told
}

fn set(told: &mut Value, key: &str, value: String) {
    if let Value::Object(told) = told {
        told.insert(key.to_owned(), value.into());
    }
}
