//! [`HubId`]: `owner/name` or `owner/name@revision`, as opposed to a path.

use std::fmt;

use super::HubError;

/// Default revision.
pub(super) const MAIN: &str = "main";

/// Kinds of repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    DataSet,
}

impl Kind {
    /// Name of the kind in messages.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::DataSet => "data set",
        }
    }

    /// Name of the kind in addresses and in the cache's folder names.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::DataSet => "datasets",
        }
    }
}

/// A model or data set of the Hub at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HubId {
    pub(super) kind: Kind,
    /// `owner/name`
    pub(super) name: String,
    /// a branch, a tag or a commit
    pub(super) revision: String,
}

impl HubId {
    /// Parses the id of a data set.
    ///
    /// # Errors
    /// A text that is no id, or a revision that is no valid name of a branch, tag or commit.
    pub(super) fn data_set(text: &str) -> Result<Self, HubError> {
        let id = Self::parse(text)?.ok_or_else(|| {
            HubError::input(format!("{text:?} is no data set of the Hub"), "give owner/name or owner/name@revision")
        })?;
        Ok(Self { kind: Kind::DataSet, ..id })
    }

    /// Parses an id. Returns none for a text that can only be a path.
    ///
    /// # Errors
    /// An id whose revision is no valid name of a branch, tag or commit.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, HubError> {
        let (name, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let Some((owner, model)) = name.split_once('/') else { return Ok(None) };
        if !is_name(owner) || !is_name(model) {
            return Ok(None);
        }
        // the cache has a file of this name below `refs/`
        let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
        let is_refused = |c: char| c.is_control() || c.is_whitespace() || r#"\:?*[~^"<>|"#.contains(c);
        if !revision.split('/').all(is_part) || revision.contains("..") || revision.contains(is_refused) {
            return Err(HubError::input(
                format!("{text}: {revision:?} is not a revision"),
                format!("give a branch, a tag or a commit, as in {name}@main"),
            ));
        }
        Ok(Some(Self { kind: Kind::Model, name: name.to_owned(), revision: revision.to_owned() }))
    }

    /// True if the revision is a commit, which never changes.
    pub(super) fn is_commit(&self) -> bool {
        is_commit(&self.revision)
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.revision == MAIN { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// True for a full commit hash.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// True for a name that the Hub allows for owners and models.
fn is_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=96).contains(&name.len())
        && name.chars().all(is_allowed)
        && !name.starts_with(['-', '.'])
        && !name.ends_with(['-', '.'])
        && !name.contains("--")
        && !name.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_distinguished_from_paths() {
        let long = format!("ltg/{}", "x".repeat(97));
        for path in [
            "model",
            "demo/model/final",
            "./ltg/norbert3-xs",
            "../norbert3-xs",
            "/norbert3-xs",
            "ltg/",
            "ltg/..",
            "~/model",
            "ltg\\norbert3-xs",
            "ltg/nor bert",
            "ltg/nor--bert",
            ".cache/model",
            "ltg/.model",
            "ltg/snø",
            "",
            "/",
            "a@b",
            &long,
        ] {
            assert_eq!(HubId::parse(path).unwrap(), None, "{path}");
        }
        for (text, name, revision) in [
            ("ltg/norbert3-xs", "ltg/norbert3-xs", "main"),
            ("ltg/norbert3-xs@v1.0", "ltg/norbert3-xs", "v1.0"),
            ("a/B_c.d@refs/pr/1", "a/B_c.d", "refs/pr/1"),
            ("0x/y@feature@2", "0x/y", "feature@2"),
        ] {
            let id = HubId::parse(text).unwrap().unwrap();
            assert_eq!((id.name.as_str(), id.revision.as_str()), (name, revision));
            assert_eq!(id.to_string(), text);
        }
        assert_eq!(HubId::parse("a/b@main").unwrap().unwrap().to_string(), "a/b");
    }

    #[test]
    fn a_revision_that_leads_out_of_its_folder_is_refused() {
        for revision in ["", "..", "../x", "a/../b", "/etc", "a//b", "a b", ".git", "a\\b", "a\n", "x.lock", "a/"] {
            let error = HubId::parse(&format!("ltg/norbert3-xs@{revision}")).unwrap_err();
            assert!(error.to_string().contains("is not a revision"), "{error}");
        }
    }

    #[test]
    fn only_full_hashes_are_commits() {
        assert!(is_commit(&"0a".repeat(20)));
        for other in ["main", "0a0a0a", &"0A".repeat(20), &"0g".repeat(20), &"0a".repeat(21)] {
            assert!(!is_commit(other), "{other}");
        }
    }
}
