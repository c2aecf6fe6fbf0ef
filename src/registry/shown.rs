//! Lists of all nodes and sessions, read in several calls so that none blocks Redis for long. Owns the order of those calls
//! and the removal of duplicates. Must never change anything.

use std::collections::BTreeMap;

use redis::ScriptInvocation;

use super::view::{NodeRow, SESSIONS_MOST, SessionRow, Which};
use super::{Registry, RegistryError};

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
