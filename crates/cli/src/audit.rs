//! `gatehouse audit`: who did what.

use crate::screen::Screen;
use crate::session::{ServerOptions, Surroundings};
use crate::table::Table;
use crate::{CliError, Outcome, shown};

/// Arguments of `gatehouse audit`.
#[derive(Debug, Clone, clap::Args)]
pub struct AuditArgs {
    /// Only lines older than this one
    #[arg(long, value_name = "ID")]
    pub before: Option<u64>,
    /// At most so many
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub limit: Option<u64>,
    /// Which server is meant.
    #[command(flatten)]
    pub server: ServerOptions,
}

/// Shows a page of the audit log, newest first.
pub(crate) fn run(
    args: &AuditArgs,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let before = args.before.map(|id| id.to_string());
    let page = around.client(&args.server)?.audit(before.as_deref(), args.limit)?;
    let mut table = Table::new(["ID", "TIME", "WHO", "FROM", "ACT", "WHAT", "OUTCOME"]);
    for entry in &page.entries {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        table.row([
            &entry.id,
            &shown::time(entry.at),
            &text(&entry.who),
            &text(&entry.from),
            &entry.act,
            &text(&entry.what),
            &text(&entry.outcome),
        ]);
    }
    screen.list(&page, &table)?;
    tell_of_more(screen, page.next.as_deref());
    Ok(Outcome::Fine)
}

/// Says how the next page is asked for; with JSON the page itself says so.
pub(crate) fn tell_of_more(screen: &mut Screen<'_>, next: Option<&str>) {
    if let (Some(next), false) = (next, screen.json) {
        screen.note(&format!("there are older ones: --before {next}"));
    }
}
