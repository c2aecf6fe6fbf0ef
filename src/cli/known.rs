//! Names that do not exist: they are refused with the nearest one that does. Owns how near that must be, and the texts.
//! Must never refuse a name that anybody uses.

use super::output;
use crate::ids::{Alias, NodeName};
use crate::registry::{Registry, RegistryError};

/// The known name that this one may be a slip of, if there is one.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let scored = known.into_iter().map(|known| (strsim::osa_distance(&lower, &known.to_lowercase()), known));
    let (distance, near) = scored.min()?;
    // Of a name of one letter, nothing is left that could be like it.
    let most = 2.max(name.len() / 3).min(name.len().max(near.len()) - 1);
    (distance <= most).then_some(near)
}

/// `, did you mean NAME?` or nothing, to stand behind the name.
pub(super) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map(|near| format!(", did you mean {near}?")).unwrap_or_default()
}

/// Complains that there is no such node, with the names of those that exist.
pub(super) async fn no_such_node(registry: &mut Registry, node: &NodeName) -> Result<(), RegistryError> {
    let names: Vec<String> = registry.nodes().await?.into_iter().map(|row| row.name).collect();
    output::complain(&no_node(node, &names));
    Ok(())
}

/// What is said of a node that does not exist.
pub(super) fn no_node(node: &NodeName, names: &[String]) -> String {
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let hint = hint(node.as_str(), names.iter().map(String::as_str));
    format!("there is no node {node}{hint}{} known nodes: {known}", if hint.is_empty() { ";" } else { "" })
}

/// Every extension that a node has reported.
async fn extensions(registry: &mut Registry) -> Result<Vec<String>, RegistryError> {
    let mut names: Vec<String> = registry.phone_list(None).await?.into_iter().map(|row| row.extension).collect();
    names.dedup();
    Ok(names)
}

/// What is said of an extension that no node knows; `None`: no node has reported any phone, so nobody can tell.
pub(super) async fn no_extension(registry: &mut Registry, name: &str) -> Result<Option<String>, RegistryError> {
    let known = extensions(registry).await?;
    let hint = hint(name, known.iter().map(String::as_str));
    let text =
        format!("no node knows the phone {name}{hint}{} see `evenring phones`", if hint.is_empty() { ";" } else { "" });
    Ok((!known.is_empty()).then_some(text))
}

/// What is said of a name that is no explicit alias and no phone of any node, with or without the suffix; `None`: it is one,
/// or nobody can tell.
pub(super) async fn no_alias(registry: &mut Registry, alias: &Alias) -> Result<Option<String>, RegistryError> {
    let name = registry.case().one_spelling(alias.as_str()).into_owned();
    let mut known = extensions(registry).await?;
    if known.is_empty() {
        return Ok(None);
    }
    let suffix = registry.alias_suffix().to_owned();
    known.extend(registry.aliases().await?.into_iter().map(|row| row.alias));
    let is_known = |name: &str| known.iter().any(|known| known == name);
    if is_known(&name) || name.strip_suffix(&suffix).is_some_and(is_known) {
        return Ok(None);
    }
    let stem = name.strip_suffix(&suffix).filter(|stem| !stem.is_empty()).unwrap_or(&name);
    let near = nearest(&name, known.iter().map(String::as_str)).or(nearest(stem, known.iter().map(String::as_str)));
    let hint = near.map(|near| format!(", did you mean {near}?")).unwrap_or_default();
    let end = if hint.is_empty() { ";" } else { "" };
    Ok(Some(format!(
        "there is no alias or extension {alias}{hint}{end} see `evenring alias list` and `evenring phones`"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_name_is_none() {
        let nodes = ["tel-1", "tel-2", "a"];
        for (name, near) in [("tel1", Some("tel-1")), ("TEL-2", Some("tel-2")), ("tle-1", Some("tel-1"))] {
            assert_eq!(nearest(name, nodes), near, "{name}");
        }
        for name in ["frankfurt", "b", ""] {
            assert_eq!(nearest(name, nodes), None, "{name}");
        }
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn what_is_said_of_a_node_that_does_not_exist() {
        let names = ["tel-1".to_owned(), "tel-2".to_owned()];
        let said = |name: &str| no_node(&name.parse().unwrap(), &names);
        assert_eq!(said("tel-l"), "there is no node tel-l, did you mean tel-1? known nodes: tel-1, tel-2");
        assert_eq!(said("berlin"), "there is no node berlin; known nodes: tel-1, tel-2");
        assert_eq!(no_node(&"a".parse().unwrap(), &[]), "there is no node a; known nodes: none");
    }
}
