//! The verbs: one file each, thin; they print what the rooms below say.
//!
//! Owns the command line, exit codes and wording on the terminal. Must never decide anything about calls or nodes.

mod alias;
mod ami;
mod config;
mod doctor;
mod drain;
mod escape;
mod events;
mod explain;
mod forget;
mod logging;
mod login;
mod logout;
mod output;
mod phones;
mod run;
mod sessions;
mod status;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigError, Settings, process_env};
use crate::daemon::{DaemonError, LoopError};
use crate::ids::{Agent, Alias, Campaign};
use crate::node::session::Class;
use crate::registry::{LoginRequest, Registry, RegistryError};

/// Evenly spreads agents over the Asterisk nodes of a call centre, at login.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 done (login --wait: live), 1 failed or refused, 2 wrong usage or configuration,
3 Redis cannot be used, 4 another daemon has this node's name (run).

Examples:
  evenring run                                   the daemon of this node
  evenring login cc100x --agent 7 --wait         log an agent in, wait until he answers
  evenring explain cc100x                        where would it ring, and why not elsewhere
  evenring status                                all nodes
  evenring sessions --json                       all sessions, for programs
  evenring events --follow                       what happens in the cluster, as it happens
  evenring logout cc100x                         hang up and log out
  evenring doctor                                what is wrong, and what to do
  evenring drain tel-1 --wait                    no more logins on a node; wait until it is empty"
)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// The configuration file; without it /etc/evenring/config.toml, if there is one.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs the daemon of this node, in the foreground.
    Run,
    /// Logs an agent in: picks the node and rings the phone.
    Login(login::LoginArgs),
    /// Logs an agent out: hangs up and ends the session.
    Logout(logout::LogoutArgs),
    /// Shows all nodes.
    Status(JsonArgs),
    /// Shows the sessions.
    Sessions(sessions::SessionsArgs),
    /// Shows what happened in the whole cluster, in order, or follows it.
    Events(events::EventsArgs),
    /// Takes a node out of the rotation; who is logged in there stays.
    Drain(drain::DrainArgs),
    /// Takes a drained node back into the rotation.
    Resume(drain::ResumeArgs),
    /// Takes a dead node off the list.
    Forget(forget::ForgetArgs),
    /// Says what is wrong with this node and the cluster, and what to do.
    Doctor(doctor::DoctorArgs),
    /// Shows where a login would ring and why, and rings nobody.
    Explain(explain::ExplainArgs),
    /// Shows which phones can ring where.
    Phones(phones::PhonesArgs),
    /// Shows and changes explicit aliases.
    Alias(alias::AliasArgs),
    /// Shows what Asterisk's manager interface says: a capture, or a live connection.
    Ami(ami::AmiArgs),
    /// Checks or shows the configuration.
    Config(ConfigArgs),
}

#[derive(Debug, Args)]
struct JsonArgs {
    /// One JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    #[command(subcommand)]
    what: ConfigWhat,
}

#[derive(Debug, Subcommand)]
enum ConfigWhat {
    /// Says what is wrong with the configuration, and what is unwise.
    Check,
    /// Shows all settings in force, secrets masked.
    Dump,
}

/// Who logs in, as `login` and `explain` take it.
#[derive(Debug, Args)]
struct WhoArgs {
    /// The alias (`cc100x`) or the bare extension (`cc100`).
    alias: Alias,
    /// The person; by default named after the phone.
    #[arg(long, value_name = "ID")]
    agent: Option<Agent>,
    /// The campaign.
    #[arg(long, value_name = "NAME")]
    campaign: Option<Campaign>,
    /// The phone is not on this site: placed, but never counted as load.
    #[arg(long)]
    remote: bool,
    /// One JSON document instead of text.
    #[arg(long)]
    json: bool,
}

impl WhoArgs {
    fn request(&self) -> LoginRequest {
        LoginRequest {
            alias: self.alias.clone(),
            agent: self.agent.clone(),
            campaign: self.campaign.clone(),
            class: if self.remote { Class::Remote } else { Class::Local },
        }
    }
}

/// Done, or live.
const DONE: u8 = 0;
/// Failed or refused.
const FAILED: u8 = 1;
/// Wrong usage or configuration.
const USAGE: u8 = 2;
/// Redis cannot be used.
const NO_REDIS: u8 = 3;

/// Another daemon speaks for this node.
const NAME_TAKEN: u8 = 4;

/// Why a verb could not do its work.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error(transparent)]
    Logging(#[from] logging::LoggingError),
    #[error("the runtime cannot start: {0}")]
    Runtime(std::io::Error),
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Logging(_) | Self::Daemon(DaemonError::Config(_)) => USAGE,
            Self::Registry(RegistryError::Settings(_))
            | Self::Daemon(DaemonError::Registry(RegistryError::Settings(_))) => USAGE,
            Self::Registry(error) | Self::Daemon(DaemonError::Registry(error)) => {
                if error.is_outage() {
                    NO_REDIS
                } else {
                    FAILED
                }
            }
            Self::Daemon(DaemonError::NameTaken { .. } | DaemonError::Loop(LoopError::Fenced { .. })) => NAME_TAKEN,
            Self::Daemon(
                DaemonError::Loop(LoopError::TaskEnded(_) | LoopError::StoodStill { .. }) | DaemonError::Signals(_),
            )
            | Self::Runtime(_) => FAILED,
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    if let Some(argument) = std::env::args_os().find(|argument| argument.to_string_lossy().contains(char::is_control)) {
        // Before clap sees it, which would show it as it is.
        output::complain(&format!("the argument {argument:?} has a control character; none of ours may"));
        return ExitCode::from(USAGE);
    }
    let cli = Cli::parse();
    let is_daemon = matches!(cli.verb, Verb::Run);
    let result = cli.run();
    ExitCode::from(result.unwrap_or_else(|error| {
        // Each problem of the settings has a line; the words of a server have one at all.
        let settings = matches!(error, CliError::Config(_) | CliError::Daemon(DaemonError::Config(_)));
        let text = error.to_string();
        let lines = if settings { text } else { escape::line(&text).into_owned() };
        if is_daemon {
            output::complain_within(logging::LAST_LINES, lines);
        } else {
            lines.lines().for_each(output::complain);
        }
        error.exit_code()
    }))
}

impl Cli {
    fn run(self) -> Result<u8, CliError> {
        let path = self.config.as_deref();
        if let Verb::Config(args) = &self.verb {
            return Ok(match args.what {
                ConfigWhat::Check => config::check(path),
                ConfigWhat::Dump => config::dump(path),
            });
        }
        if let Verb::Ami(ami::AmiArgs { what: ami::AmiWhat::Decode(args) }) = &self.verb {
            return Ok(ami::decode(args));
        }
        let settings = Settings::load(path, process_env())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)?;
        runtime.block_on(async {
            if matches!(self.verb, Verb::Run) {
                return run::run(settings, self.config).await;
            }
            if let Verb::Ami(ami::AmiArgs { what: ami::AmiWhat::Tail(args) }) = self.verb {
                return ami::tail(settings, args).await;
            }
            if let Verb::Doctor(args) = &self.verb {
                return doctor::run(&settings, args).await;
            }
            let mut registry = Registry::new(&settings)?;
            match self.verb {
                Verb::Run | Verb::Config(_) | Verb::Ami(_) | Verb::Doctor(_) => Ok(DONE),
                Verb::Login(args) => login::run(&mut registry, &settings, &args).await,
                Verb::Logout(args) => logout::run(&mut registry, &args).await,
                Verb::Status(args) => status::run(&mut registry, args.json).await,
                Verb::Sessions(args) => sessions::run(&mut registry, &args).await,
                Verb::Events(args) => events::run(&mut registry, &args).await,
                Verb::Drain(args) => drain::drain(&mut registry, &args).await,
                Verb::Resume(args) => drain::resume(&mut registry, &args).await,
                Verb::Forget(args) => forget::run(&mut registry, &args).await,
                Verb::Explain(args) => explain::run(&mut registry, &args).await,
                Verb::Phones(args) => phones::run(&mut registry, &args).await,
                Verb::Alias(args) => alias::run(&mut registry, &args).await,
            }
        })
    }
}
