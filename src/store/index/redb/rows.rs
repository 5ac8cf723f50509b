//! Values of rows. Each carries a checksum over its key and itself: pages are checked only when redb repairs a file,
//! and a flipped bit must not become an answer.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::index::BlobRow;
use crate::store::index::BlobState;
use crate::store::index::Error;
use crate::store::tree::BlobKey;

/// FNV-1a over key and value: a guard against damage, not against an attacker, who could write the tree as well.
fn checksum(key: &[u8], value: &[u8]) -> u64 {
    let length = (key.len() as u64).to_le_bytes();
    length
        .iter()
        .chain(key)
        .chain(value)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The value with its checksum in front.
pub(super) fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(value.len() + 8);
    row.extend_from_slice(&checksum(key, value).to_le_bytes());
    row.extend_from_slice(value);
    row
}

/// The value, if it is what was sealed.
pub(super) fn unseal<'a>(key: &[u8], row: &'a [u8]) -> Result<&'a [u8], Error> {
    match row.split_first_chunk() {
        Some((sum, value)) if u64::from_le_bytes(*sum) == checksum(key, value) => Ok(value),
        _ => Err(Error::Damaged("a row's checksum is wrong".into())),
    }
}

/// A row in JSON.
pub(super) fn write<T: Serialize>(key: &[u8], value: &T) -> Result<Vec<u8>, Error> {
    let json = serde_json::to_vec(value).map_err(|error| Error::Encoding(error.into()))?;
    Ok(seal(key, &json))
}

/// Reads a row in JSON.
pub(super) fn read<T: DeserializeOwned>(key: &[u8], row: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(unseal(key, row)?).map_err(|error| Error::Damaged(format!("a row can't be read: {error}")))
}

/// The row of a number.
pub(super) fn write_number(key: &[u8], number: u64) -> Vec<u8> {
    seal(key, &number.to_le_bytes())
}

/// Reads the row of a number.
pub(super) fn read_number(key: &[u8], row: &[u8]) -> Result<u64, Error> {
    let value = unseal(key, row)?;
    let number = value.first_chunk().ok_or_else(|| Error::Damaged("a number is cut".into()))?;
    Ok(u64::from_le_bytes(*number))
}

/// The row of stored bytes.
pub(super) fn write_blob(key: &[u8], row: &BlobRow) -> Vec<u8> {
    let mut value = Vec::with_capacity(18);
    value.extend_from_slice(&row.size.to_le_bytes());
    value.extend_from_slice(&row.hosted.to_le_bytes());
    value.extend_from_slice(&row.proxied.to_le_bytes());
    value.push(match row.state {
        BlobState::Live => 0,
        BlobState::Damaged => 1,
        BlobState::Going => 2,
    });
    value.push(u8::from(row.precious));
    seal(key, &value)
}

/// Reads the row of stored bytes.
pub(super) fn read_blob(key: &[u8], row: &[u8]) -> Result<BlobRow, Error> {
    let value = unseal(key, row)?;
    let cut = || Error::Damaged("the row of a blob is cut".into());
    let (size, value) = value.split_first_chunk().ok_or_else(cut)?;
    let (hosted, value) = value.split_first_chunk().ok_or_else(cut)?;
    let (proxied, value) = value.split_first_chunk().ok_or_else(cut)?;
    let &[state, precious] = value else { return Err(cut()) };
    let state = match state {
        0 => BlobState::Live,
        1 => BlobState::Damaged,
        2 => BlobState::Going,
        _ => return Err(Error::Damaged("a blob is in no state".into())),
    };
    Ok(BlobRow {
        key: blob_key(key)?,
        size: u64::from_le_bytes(*size),
        state,
        hosted: u32::from_le_bytes(*hosted),
        proxied: u32::from_le_bytes(*proxied),
        precious: precious != 0,
    })
}

fn blob_key(key: &[u8]) -> Result<BlobKey, Error> {
    super::keys::read_blob(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_is_found() {
        let row = seal(b"key", b"value");
        assert_eq!(unseal(b"key", &row).unwrap(), b"value");
        assert!(unseal(b"kez", &row).is_err());
        for bit in 0..row.len() * 8 {
            let mut damaged = row.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(b"key", &damaged).is_err(), "bit {bit}");
        }
        assert!(unseal(b"key", &row[..7]).is_err());
    }
}
