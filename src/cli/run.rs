//! `evenring run`: the daemon in the foreground. Owns only logging and the start. Must never put itself into the
//! background: systemd does.

use std::path::PathBuf;

use tracing::warn;

use super::{CliError, DONE, logging};
use crate::config::{Settings, process_env};
use crate::daemon::Reloader;

pub(super) async fn run(settings: Settings, path: Option<PathBuf>) -> Result<u8, CliError> {
    let log = logging::init(&settings.log)?;
    for warning in settings.warnings() {
        warn!(reason = warning, "configuration");
    }
    let filter = log.filter.clone();
    let reloader = Reloader {
        settings: Box::new(move || Settings::load(path.as_deref(), process_env())),
        filter: Box::new(move |text| filter.set(text)),
    };
    let result = crate::daemon::run(settings, reloader, log.dropped.clone()).await;
    log.finish();
    result?;
    Ok(DONE)
}
