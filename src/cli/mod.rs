//! The command line: one file for each command, thin; it prints what the modules below return.
//!
//! Owns the command line, exit codes and the texts on the terminal. Must never decide anything about calls or nodes.

mod alias;
mod ami;
mod config;
mod doctor;
mod drain;
mod escape;
mod events;
mod explain;
mod export;
mod forget;
mod known;
mod logging;
mod login;
mod logout;
mod output;
mod phones;
mod queue;
mod run;
mod sessions;
mod status;
mod token;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{ConfigError, Settings, process_env};
use crate::daemon::{DaemonError, LoopError};
use crate::ids::{Agent, Alias, Campaign};
use crate::node::session::Class;
use crate::registry::{LoginRequest, Registry, RegistryError};

/// Spread agents evenly over the Asterisk nodes of a call centre at login.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 done (login --wait: live), 1 failed or refused, 2 wrong usage or configuration,
3 Redis unavailable or not-now, 4 another daemon has this node's name (run).

Examples:
  evenring run                                   run the daemon of this node
  evenring login cc100x --agent 7 --wait         log an agent in and wait for the answer
  evenring explain cc100x                        show where a login would ring, and why
  evenring status                                show all nodes
  evenring sessions --json                       list open sessions as JSON
  evenring events --follow                       follow what happens in the cluster
  evenring logout cc100x                         hang up and log the agent out
  evenring doctor                                find problems and how to fix them
  evenring drain tel-1 --wait                    drain a node and wait until it is empty
  evenring export --format dispatcher            list the nodes that take calls for Kamailio"
)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Configuration file [default: /etc/evenring/config.toml, if it exists].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon of this node in the foreground.
    Run,
    /// Log an agent in: choose a node and ring the phone.
    Login(login::LoginArgs),
    /// Log an agent out: hang up and end the session.
    Logout(logout::LogoutArgs),
    /// Show all nodes with their state and load.
    Status(JsonArgs),
    /// Show sessions: who is logged in where.
    Sessions(sessions::SessionsArgs),
    /// Show or follow the events of the whole cluster, in order.
    Events(events::EventsArgs),
    /// Drain a node: no new logins, active sessions stay.
    Drain(drain::DrainArgs),
    /// Resume a drained node: it takes logins again.
    Resume(drain::ResumeArgs),
    /// Forget a node that will not come back.
    Forget(forget::ForgetArgs),
    /// Check this node and the cluster; each finding says what to do.
    Doctor(doctor::DoctorArgs),
    /// Show where a login would ring and why, without ringing.
    Explain(explain::ExplainArgs),
    /// List the nodes that take calls, for proxies and DNS; keep a file with the list.
    Export(export::ExportArgs),
    /// Show which phones can ring on which nodes.
    Phones(phones::PhonesArgs),
    /// Show and change explicit aliases.
    Alias(alias::AliasArgs),
    /// Show the queues, and logins that nobody could read.
    Queue(queue::QueueArgs),
    /// Make a token for the HTTP API.
    Token(token::TokenArgs),
    /// Show AMI messages, from a capture or a live connection.
    Ami(ami::AmiArgs),
    /// Check or show the configuration.
    Config(ConfigArgs),
}

#[derive(Debug, Args)]
struct JsonArgs {
    /// Print one JSON document instead of a table.
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
    /// Check the configuration: report errors and unwise settings.
    Check,
    /// Print all settings in effect, with secrets masked.
    Dump,
}

/// The agent who logs in, as `login` and `explain` take it.
#[derive(Debug, Args)]
struct WhoArgs {
    /// Alias (`cc100x`) or bare extension (`cc100`).
    alias: Alias,
    /// Id of the agent [default: the name of the phone].
    #[arg(long, value_name = "ID")]
    agent: Option<Agent>,
    /// Campaign of the login.
    #[arg(long, value_name = "NAME")]
    campaign: Option<Campaign>,
    /// Remote agent: placed like any other, but never counted as load.
    #[arg(long)]
    remote: bool,
    /// Print one JSON document instead of text.
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
            moves: false,
            hold: None,
        }
    }
}

/// Success; with `login --wait`, the session is live.
const DONE: u8 = 0;
/// The command failed or was refused.
const FAILED: u8 = 1;
/// Wrong usage or configuration.
const USAGE: u8 = 2;
/// Redis is unavailable.
const NO_REDIS: u8 = 3;

/// Another daemon has this node's name.
const NAME_TAKEN: u8 = 4;

/// Why a command failed.
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
    #[error("cannot start the async runtime: {0}")]
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
                DaemonError::Loop(LoopError::TaskEnded(_) | LoopError::StoodStill { .. })
                | DaemonError::Signals(_)
                | DaemonError::Api(_),
            )
            | Self::Runtime(_) => FAILED,
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    if let Some(argument) = std::env::args_os().find(|argument| argument.to_string_lossy().contains(char::is_control)) {
        // Before clap sees it, which would show it as it is.
        output::complain(&format!("the argument {argument:?} contains a control character, which is not allowed"));
        return ExitCode::from(USAGE);
    }
    // clap would colour its help where CI is set, whatever the terminal is.
    let colours = if output::is_dumb() { ColorChoice::Never } else { ColorChoice::Auto };
    let cli = Cli::from_arg_matches(&Cli::command().color(colours).get_matches()).unwrap_or_else(|error| error.exit());
    let is_daemon = matches!(cli.verb, Verb::Run);
    let result = cli.run();
    ExitCode::from(result.unwrap_or_else(|error| {
        // Each problem of the settings has its own line; a server's error is escaped into one line.
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
        if let Verb::Token(args) = &self.verb {
            return Ok(token::run(args));
        }
        // who speaks with Asterisk alone needs no password of Redis
        let load = if matches!(self.verb, Verb::Ami(_)) { Settings::look } else { Settings::load };
        let settings = load(path, process_env())?;
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
                Verb::Run | Verb::Config(_) | Verb::Ami(_) | Verb::Doctor(_) | Verb::Token(_) => Ok(DONE),
                Verb::Login(args) => login::run(&mut registry, &settings, &args).await,
                Verb::Logout(args) => logout::run(&mut registry, &args).await,
                Verb::Status(args) => status::run(&mut registry, args.json).await,
                Verb::Sessions(args) => sessions::run(&mut registry, &args).await,
                Verb::Events(args) => events::run(&mut registry, &args).await,
                Verb::Drain(args) => drain::drain(&mut registry, &args).await,
                Verb::Resume(args) => drain::resume(&mut registry, &args).await,
                Verb::Forget(args) => forget::run(&mut registry, &args).await,
                Verb::Explain(args) => explain::run(&mut registry, &args).await,
                Verb::Export(args) => export::run(&mut registry, args).await,
                Verb::Phones(args) => phones::run(&mut registry, &args).await,
                Verb::Alias(args) => alias::run(&mut registry, &args).await,
                Verb::Queue(args) => queue::run(&mut registry, &args).await,
            }
        })
    }
}
