//! Shape checks shared by the ops.

use crate::{Error, Result};

/// Errors unless `got` equals `expected`.
pub(crate) fn expect<const D: usize>(
    op: &'static str,
    what: &'static str,
    got: [usize; D],
    expected: [usize; D],
) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    Err(Error::Shape { op, what, expected: expected.to_vec(), got: got.to_vec() })
}

/// Errors unless `ok`.
pub(crate) fn supported(
    op: &'static str,
    what: &'static str,
    got: usize,
    supported: &'static str,
    ok: bool,
) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::Unsupported { op, what, got, supported }) }
}
