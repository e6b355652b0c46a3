//! From a word that somebody wrote to a model: roles, aliases, names, digests.

use crate::text::{nearest, quoted};
use crate::{Digest, ModelName, RegisteredModel, Registry, Role};

/// Digits of a digest that are enough to name a model, if only one begins with them.
pub const MIN_DIGEST_PREFIX: usize = 8;

/// The model behind a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved<'r> {
    /// Its digest.
    pub digest: &'r Digest,
    /// What the registry says of it. Answers name [`RegisteredModel::name`], never the word that was asked for.
    pub model: &'r RegisteredModel,
}

/// Why a word leads to no model that may be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// Nothing is called so.
    #[error("there is no model, alias or role {}{}", quoted(.asked), or_else(.suggestions))]
    Unknown {
        /// What was asked for.
        asked: String,
        /// What was likely meant, or otherwise some of what there is.
        suggestions: Vec<String>,
    },
    /// The role is known and nobody plays it.
    #[error(
        "no model plays the role `{role}`; give it one with `locara role set {role} MODEL`, `locara models` lists them"
    )]
    Unassigned {
        /// The role.
        role: String,
    },
    /// Several digests begin like this.
    #[error("{} models begin with {}: {}; write more digits", .matches.len(), quoted(.asked), .matches.join(", "))]
    Ambiguous {
        /// What was asked for.
        asked: String,
        /// Names and digests, each as `name (12 digits)`.
        matches: Vec<String>,
    },
    /// The owner has switched the model off.
    #[error("the model {name} is disabled in the registry; remove `disabled` from its entry, or ask for another one")]
    Disabled {
        /// What was asked for.
        asked: String,
        /// The model.
        name: ModelName,
    },
    /// Only in a registry that was edited and not checked yet.
    #[error("{} leads in a circle; give one of these a model: {}", quoted(.asked), .through.join(" → "))]
    Circle {
        /// What was asked for.
        asked: String,
        /// The words, in order; the last one is among the ones before it.
        through: Vec<String>,
    },
}

fn or_else(suggestions: &[String]) -> String {
    match suggestions {
        [] => "; `locara pull` or `locara import` adds models".to_owned(),
        [one] => format!("; did you mean `{one}`?"),
        several => format!("; there are: {}", several.join(", ")),
    }
}

/// Names that an error lists at most.
const MAX_LISTED: usize = 12;

impl Registry {
    /// The model that a word means: a role, an alias, a name of a model, its digest (also after `sha256:`), or at least
    /// [`MIN_DIGEST_PREFIX`] digits of its beginning. Tried in this order.
    ///
    /// # Errors
    /// Nothing or too much is called so, or the model is disabled.
    pub fn resolve(&self, asked: &str) -> Result<Resolved<'_>, Unresolved> {
        let found = self.follow(asked)?;
        if found.model.disabled {
            return Err(Unresolved::Disabled { asked: asked.to_owned(), name: found.model.name.clone() });
        }
        Ok(found)
    }

    /// [`Registry::resolve`] that also finds what is disabled.
    ///
    /// # Errors
    /// Nothing or too much is called so.
    pub fn follow(&self, asked: &str) -> Result<Resolved<'_>, Unresolved> {
        let mut through = vec![asked.to_owned()];
        let mut word = asked;
        while let Some(next) = self.step(word) {
            let seen = through.iter().any(|before| before == next.as_str());
            through.push(next.to_string());
            if seen {
                return Err(Unresolved::Circle { asked: asked.to_owned(), through });
            }
            word = next.as_str();
        }
        if let Some((digest, model)) = self.models.iter().find(|(_, model)| model.name.as_str() == word) {
            return Ok(Resolved { digest, model });
        }
        self.by_digest(asked, word)
    }

    /// What a role or an alias stands for; `None` for everything else.
    pub(crate) fn step(&self, word: &str) -> Option<&ModelName> {
        let role = self.roles.iter().find(|(role, _)| role.as_str() == word).map(|(_, target)| target);
        role.or_else(|| self.aliases.iter().find(|(alias, _)| alias.as_str() == word).map(|(_, target)| target))
    }

    fn by_digest(&self, asked: &str, word: &str) -> Result<Resolved<'_>, Unresolved> {
        let digits = word.strip_prefix("sha256:").or_else(|| word.strip_prefix("sha256-")).unwrap_or(word);
        if digits.len() >= MIN_DIGEST_PREFIX && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            let mut matches = self.models.iter().filter(|(digest, _)| digest.as_str().starts_with(digits));
            match (matches.next(), matches.next()) {
                (Some((digest, model)), None) => return Ok(Resolved { digest, model }),
                (Some(first), Some(second)) => {
                    let all = [first, second].into_iter().chain(matches).take(MAX_LISTED);
                    let shown = all.map(|(digest, model)| format!("{} ({})", model.name, &digest.as_str()[..12]));
                    return Err(Unresolved::Ambiguous { asked: asked.to_owned(), matches: shown.collect() });
                }
                _ => {}
            }
        }
        if Role::BUILT_IN.contains(&word) {
            return Err(Unresolved::Unassigned { role: word.to_owned() });
        }
        Err(Unresolved::Unknown { asked: asked.to_owned(), suggestions: self.suggestions(word) })
    }

    /// The word that was likely meant, or else the first few of what there is.
    pub(crate) fn suggestions(&self, word: &str) -> Vec<String> {
        let models = self.models.values().filter(|model| !model.disabled).map(|model| model.name.as_str());
        let all = self.roles.keys().map(Role::as_str).chain(self.aliases.keys().map(ModelName::as_str)).chain(models);
        match nearest(word, all.clone()) {
            Some(meant) => vec![meant.to_owned()],
            None => all.take(MAX_LISTED).map(str::to_owned).collect(),
        }
    }
}
