//! Lists of all nodes and sessions, read in several calls so that none blocks Redis for long. Owns the order of those calls
//! and the removal of duplicates. Must never change anything.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use redis::ScriptInvocation;

use super::view::{NodeRow, SESSIONS_MOST, SessionRow, Which};
use super::{Registry, RegistryError};
use crate::ids::SessionId;

/// Sessions on a page.
const PAGE: usize = 100;

/// A row of a reply.
type Cells = Vec<Option<String>>;

impl Registry {
    /// Every node, by name.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn nodes(&mut self) -> Result<Vec<NodeRow>, RegistryError> {
        let (mut nodes, mut from) = (Vec::new(), String::new());
        loop {
            let build = |call: &mut ScriptInvocation<'_>| {
                call.key(&self.namespace).arg(&from);
            };
            let (rows, next): (Vec<Vec<String>>, String) = self.connector.run(&self.scripts.status, build).await?;
            nodes.extend(rows.iter().map(|row| NodeRow::from_reply(row)));
            if next.is_empty() {
                return Ok(nodes);
            }
            from = next;
        }
    }

    /// The same with what waits for a restart there.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn nodes_shown(&mut self) -> Result<Vec<NodeRow>, RegistryError> {
        let mut nodes = self.nodes().await?;
        let mut told = self.told_settings().await?;
        for node in &mut nodes {
            node.restart_pending = told.remove(&node.name).unwrap_or_default().settings.restart;
        }
        Ok(nodes)
    }

    /// Sessions, oldest change first: those that are over before those that are open. Each once, as it stood when it was last
    /// looked at; no more than [`SESSIONS_MOST`].
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn sessions(&mut self, which: Which) -> Result<Vec<SessionRow>, RegistryError> {
        let mut list = List::default();
        match which {
            Which::One(id) => {
                list.add(self.session_page("one", &id.to_string()).await?.0);
            }
            Which::Open => {
                self.all_pages("open", String::new(), &mut list).await?;
            }
            Which::All => {
                let end = self.all_pages("ended", String::new(), &mut list).await?;
                self.all_pages("open", String::new(), &mut list).await?;
                // Those that ended meanwhile.
                self.all_pages("ended", end, &mut list).await?;
            }
        }
        Ok(list.rows.into_iter().flatten().collect())
    }

    /// One page of the sessions that are open, or of those that are over, oldest change first, behind the page that ended with
    /// `after`; and with what it ends, if there are more. A session that changes meanwhile comes again on a later page.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn sessions_page(
        &mut self,
        over: bool,
        after: Option<&PageEnd>,
    ) -> Result<(Vec<SessionRow>, Option<PageEnd>), RegistryError> {
        let from = after.map(|PageEnd(time, id)| format!("{time} {id}")).unwrap_or_default();
        let (rows, next) = self.session_page(if over { "ended" } else { "open" }, &from).await?;
        let end = next.split_once(' ').and_then(|(time, id)| Some(PageEnd(time.parse().ok()?, id.parse().ok()?)));
        Ok((rows.into_iter().filter_map(SessionRow::from_reply).collect(), end))
    }

    /// Adds the pages from there on; where the last one began.
    async fn all_pages(&mut self, index: &str, from: String, list: &mut List) -> Result<String, RegistryError> {
        let mut from = from;
        loop {
            let (rows, next) = self.session_page(index, &from).await?;
            list.add(rows);
            if next.is_empty() || list.rows.len() >= SESSIONS_MOST {
                return Ok(from);
            }
            from = next;
        }
    }

    async fn session_page(&mut self, which: &str, from: &str) -> Result<(Vec<Cells>, String), RegistryError> {
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(which).arg(PAGE).arg(from);
        };
        self.connector.run(&self.scripts.sessions, build).await
    }
}

/// Where a page of sessions ends: the time of the last one's change, and the last one. As text `1700000000000-5f3a09c1d2e4b607`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageEnd(u64, SessionId);

impl PageEnd {
    /// Behind this session.
    pub fn of(row: &SessionRow) -> Option<Self> {
        Some(Self(row.since, row.session.parse().ok()?))
    }
}

impl fmt::Display for PageEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl FromStr for PageEnd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "after is no end of a page: use `next` of the page before".to_owned();
        let (time, id) = text.split_once('-').ok_or_else(wrong)?;
        let plain = time.len() <= 15 && time.bytes().all(|byte| byte.is_ascii_digit());
        let time = time.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
        Ok(Self(time, id.parse().map_err(|_| wrong())?))
    }
}

/// Sessions in the order in which they came; one that has changed meanwhile leaves its former place.
#[derive(Debug, Default)]
struct List {
    rows: Vec<Option<SessionRow>>,
    places: BTreeMap<String, usize>,
}

impl List {
    fn add(&mut self, rows: Vec<Cells>) {
        for row in rows.into_iter().filter_map(SessionRow::from_reply) {
            let before = self.places.get(&row.session).and_then(|at| self.rows.get_mut(*at));
            if let Some(before) = before {
                if before.as_ref().is_some_and(SessionRow::is_over) && row.is_over() {
                    continue;
                }
                *before = None;
            }
            self.places.insert(row.session.clone(), self.rows.len());
            self.rows.push(Some(row));
        }
    }
}
