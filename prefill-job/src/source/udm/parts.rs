//! A list that UDM can't give as a whole, in parts by entryUUID.
//!
//! UDM maps all attributes of all entries while it lists names, so one entry whose values it can't map makes the whole
//! list 500, and one whose name is no text makes it unreadable. So halves are requested, and halves of the half that fails,
//! down to that entry. Each entry has a UUID, and LDAP compares them by order, so two halves are all there is. The same
//! helps where a list is too long or too slow.

use uuid::Uuid;

use super::list::{BrokenEntry, Listed, Wanted};
use super::retry::Failure;
use super::session::Session;
use crate::source::SourceError;

/// Entries of a list that break it, before that is no matter of entries any more.
const BROKEN_MAX: usize = 100;

/// If so many entries can't be read and no other can, the server is to blame, and not an entry.
const UNREADABLE_MAX: usize = 5;

/// How often a list that is only too long or too slow is halved.
const HALVED_MAX: u32 = 12;

/// Could a list that failed like this be read in parts?
pub(super) fn may_help(error: &SourceError) -> bool {
    breaks(error) || is_too_much(error)
}

/// Is it an entry that can't be listed?
fn breaks(error: &SourceError) -> bool {
    is_unreadable(error)
        || matches!(error, SourceError::Unavailable { source: Failure::Fault { status: 500.., .. }, .. })
}

/// Did an answer come that is no list?
fn is_unreadable(error: &SourceError) -> bool {
    matches!(error, SourceError::Unavailable { source: Failure::Unreadable(_), .. })
}

/// Is the list too long, or does it take too long?
fn is_too_much(error: &SourceError) -> bool {
    match error {
        SourceError::Refused { status: 400, .. } => true,
        SourceError::Unavailable { source, .. } => {
            matches!(source, Failure::Timeout(_) | Failure::Busy { .. } | Failure::Connection { .. })
        }
        _ => false,
    }
}

/// UUIDs from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    from: u128,
    to: u128,
    /// Halvings until here.
    depth: u32,
}

impl Range {
    const ALL: Self = Self { from: 0, to: u128::MAX, depth: 0 };

    /// The upper half and the lower half; `None` if it is a single UUID.
    fn halves(self) -> Option<[Self; 2]> {
        let Self { from, to, depth } = self;
        let middle = from + (to - from) / 2;
        let depth = depth + 1;
        (from < to).then_some([Self { from: middle + 1, to, depth }, Self { from, to: middle, depth }])
    }
}

/// Reads a list in parts; `whole` is how it failed as a whole.
pub(super) async fn list(
    session: &Session,
    wanted: &Wanted,
    whole: SourceError,
) -> Result<Listed, SourceError> {
    let module = &wanted.module;
    tracing::warn!(module, error = model::error_chain(&whole), "the list is read in parts");
    session.tell(format!("{}; it is read in parts", model::error_chain(&whole)));
    let mut all = Listed::empty(wanted.clone());
    // If even an empty list can't be read, no entry is to blame.
    if breaks(&whole) && session.part(&all.wanted, Uuid::nil(), Uuid::nil()).await.is_err_and(|e| breaks(&e))
    {
        return Err(whole);
    }
    // The last is read first: lists come from small UUIDs to large ones.
    let mut left: Vec<Range> = Range::ALL.halves().into_iter().flatten().collect();
    while let Some(range) = left.pop() {
        let [from, to] = [range.from, range.to].map(Uuid::from_u128);
        let error = match session.part(&all.wanted, from, to).await {
            Ok(part) => {
                all.append(part).map_err(|e| kept(module, &e))?;
                continue;
            }
            Err(error) => error,
        };
        match range.halves() {
            _ if !may_help(&error) => return Err(error),
            _ if is_too_much(&error) && range.depth >= HALVED_MAX => return Err(whole),
            Some(halves) => left.extend(halves),
            None if all.broken.len() >= BROKEN_MAX => return Err(whole),
            None if is_unreadable(&error) && all.results == 0 && all.broken.len() >= UNREADABLE_MAX => {
                return Err(whole);
            }
            None => {
                let dn = session.client().dn_of(from).await.unwrap_or_else(|| format!("entryUUID={from}"));
                all.broken.push(BrokenEntry { dn, uuid: from, problem: error });
            }
        }
    }
    // Nothing fails and nothing is there: this LDAP does not order UUIDs.
    if all.results == 0 && all.broken.is_empty() {
        return Err(whole);
    }
    all.entries.finish().map_err(|e| kept(module, &e))?;
    Ok(all)
}

fn kept(module: &str, error: &std::io::Error) -> SourceError {
    SourceError::Unreadable { what: format!("the list of {module}"), problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_all_of_it_and_end_at_a_single_uuid() {
        let [high, low] = Range::ALL.halves().unwrap();
        assert_eq!((low.from, low.to, high.from, high.to), (0, u128::MAX / 2, u128::MAX / 2 + 1, u128::MAX));
        let mut range = Range::ALL;
        for _ in 0..128 {
            let [high, low] = range.halves().unwrap();
            assert_eq!((low.from, low.to + 1, high.to), (range.from, high.from, range.to));
            range = if range.depth.is_multiple_of(3) { low } else { high };
        }
        assert_eq!((range.halves(), range.depth), (None, 128));
    }
}
