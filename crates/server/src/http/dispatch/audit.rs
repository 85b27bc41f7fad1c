//! `/audit`: who did what.

use serde_json::{Value, json};

use super::{Answer, Request, answer};
use crate::accounts::Act;
use crate::accounts::audit::{PAGE_MAX, Stored};

/// Entries of a page unless another number is asked for.
const PAGE: u32 = 100;

/// Gives a page of the log, the newest first.
pub(super) async fn audit(request: &mut Request<'_>) -> Answer {
    request.who_may(Act::Administer).await?;
    let parameters = request.parameters()?;
    let before = parameters.number("before", 0, i64::MAX)?;
    let limit = parameters.number("limit", 1, PAGE_MAX)?.unwrap_or(PAGE);
    let entries = request.dispatch.accounts.audit_page(before, limit).await?;
    Ok(answer::json(&page(&entries, limit)))
}

/// The next page begins before the last entry of a full one.
fn page(entries: &[Stored], limit: u32) -> Value {
    let is_full = entries.len() >= limit as usize;
    let next = entries.last().filter(|_| is_full).map(|last| last.id.to_string());
    let entries: Vec<Value> = entries.iter().map(shown).collect();
    json!({ "error": false, "entries": entries, "next": next })
}

fn shown(entry: &Stored) -> Value {
    let Stored { id, at, who, from, act, what, outcome } = entry;
    json!({
        "id": id.to_string(), "at": at, "who": who, "from": from, "act": act, "what": what, "outcome": outcome,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: i64) -> Stored {
        let text = String::new;
        Stored {
            id,
            at: 5,
            who: "root".into(),
            from: text(),
            act: text(),
            what: text(),
            outcome: text(),
        }
    }

    #[test]
    fn only_a_full_page_has_a_next_one() {
        let check = |ids: &[i64], next: Value| {
            let entries: Vec<Stored> = ids.iter().map(|id| entry(*id)).collect();
            let page = page(&entries, 2);
            assert_eq!(page["next"], next, "{ids:?}");
            assert_eq!(page["entries"].as_array().unwrap().len(), ids.len());
        };
        check(&[], Value::Null);
        check(&[9], Value::Null);
        check(&[9, 7], "7".into());
        assert_eq!(page(&[entry(9)], 2)["entries"][0]["id"], "9");
    }
}
