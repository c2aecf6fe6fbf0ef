//! `evenring run`: the daemon in the foreground. Owns nothing but logging and the start. Must never background itself:
//! systemd does.

use tracing::warn;

use super::{CliError, DONE, logging};
use crate::config::Settings;

pub(super) async fn run(settings: Settings) -> Result<u8, CliError> {
    logging::init(&settings.log)?;
    for warning in settings.warnings() {
        warn!(reason = warning, "configuration");
    }
    crate::daemon::run(settings).await?;
    Ok(DONE)
}
