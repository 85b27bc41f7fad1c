//! Writes `docs/configuration.md` from the table of settings.
//!
//! Invariant: the page says what the table says; a test compares the committed page.
//! Not here: any setting.

use super::table::{InForce, ROOMS, Row, rows_of};

const INTRODUCTION: &str = include_str!("document/introduction.md");
const PARAMETERS: &str = include_str!("document/parameters.md");

/// The whole page.
#[must_use]
pub fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for room in ROOMS {
        page.push_str(&format!("\n## [{}]\n\n{}\n\n", room.name, room.about));
        let rows: Vec<&Row> = rows_of(room.name).collect();
        if rows.is_empty() {
            page.push_str(PARAMETERS);
            continue;
        }
        page.push_str("| key | value | default | in force after | what it is |\n");
        page.push_str("|---|---|---|---|---|\n");
        for row in rows {
            page.push_str(&line(row));
        }
    }
    page
}

fn line(row: &Row) -> String {
    let also: String = row.aliases.iter().map(|alias| format!(" = `{alias}`")).collect();
    let default = match row.default {
        None | Some("") => "none".to_owned(),
        Some(text) => format!("`{text}`"),
    };
    let in_force = match row.in_force {
        InForce::Reload => "reload",
        InForce::Hangup => "SIGHUP",
        InForce::Start => "new start",
    };
    let (key, expected, about) = (row.key, row.expected(), row.about);
    format!("| `{key}`{also} | {expected} | {default} | {in_force} | {about} |\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::page;

    #[test]
    fn the_committed_page_is_the_one_the_table_gives() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
        if std::env::var_os("GATEHOUSE_REWRITE").is_some_and(|value| value == "1") {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, page()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == page(),
            "docs/configuration.md is out of date; rewrite it with \
             `GATEHOUSE_REWRITE=1 cargo test -p server the_committed_page`"
        );
    }
}
