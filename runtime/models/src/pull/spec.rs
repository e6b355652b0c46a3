//! What a person writes to name a model of a hub.

use std::{fmt, str::FromStr};

use url::Url;

use super::PullError;

/// What to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullSpec {
    /// From a repository of the hub.
    Repository {
        /// `org/name`.
        repository: String,
        /// A branch, tag or commit; `main` if nobody says.
        revision: String,
        /// Which of its files.
        pick: Pick,
    },
    /// From any server.
    Address(Url),
}

/// Which of the files of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// The only one, or [`Pick::DEFAULT`].
    Default,
    /// The one with this quantisation.
    Quant(String),
    /// The one with this path.
    File(String),
}

impl Pick {
    /// What is taken when nobody says: the usual balance of size and quality.
    pub const DEFAULT: &'static str = "Q4_K_M";
}

/// Hosts whose addresses mean repositories of the hub, whichever mirror that is.
const HUB_HOSTS: [&str; 3] = ["huggingface.co", "hf.co", "www.huggingface.co"];

impl FromStr for PullSpec {
    type Err = PullError;

    /// Reads `org/name[@revision][:quant]`, `org/name/path/file.gguf`, the same after `hf.co/`, the address of a page or file
    /// of Hugging Face, or any other https address.
    fn from_str(text: &str) -> Result<Self, PullError> {
        let bad = || PullError::Spec(text.chars().take(200).collect());
        let text = text.trim();
        let Some((scheme, _)) = text.split_once("://") else {
            let words = HUB_HOSTS.iter().find_map(|host| text.strip_prefix(host)?.strip_prefix('/'));
            return repository(words.unwrap_or(text)).ok_or_else(bad);
        };
        let url = Url::parse(text).map_err(|_| bad())?;
        let host = url.host_str().ok_or_else(bad)?;
        // Plain text on the machine itself only.
        let safe = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http") && is_local(&url);
        if !safe || !url.username().is_empty() || url.password().is_some() {
            return Err(bad());
        }
        if HUB_HOSTS.contains(&host) {
            return page(&url).ok_or_else(bad);
        }
        Ok(Self::Address(url))
    }
}

/// Whether an address is on this machine, so that nobody else hears what is sent there.
pub(super) fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// `org/name`, maybe with `@revision`, then `:quant` or `/path/file.gguf`.
fn repository(text: &str) -> Option<PullSpec> {
    let (org, rest) = text.split_once('/')?;
    let (name, pick) = match rest.split_once('/') {
        Some((name, file)) => (name, Pick::File(file_path(file)?)),
        None => match rest.split_once(':') {
            Some((name, "latest")) => (name, Pick::Default),
            Some((name, quant)) => (name, Pick::Quant(word(quant)?.to_owned())),
            None => (rest, Pick::Default),
        },
    };
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    Some(PullSpec::Repository {
        repository: format!("{}/{}", word(org)?, word(name)?),
        revision: word(revision)?.to_owned(),
        pick,
    })
}

/// The address of a page of Hugging Face: of a repository, or of a file after `blob`, `resolve` or `raw`.
fn page(url: &Url) -> Option<PullSpec> {
    let words: Vec<&str> = url.path_segments()?.filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        [org, name] => repository(&format!("{org}/{name}")),
        [org, name, "tree", revision] => repository(&format!("{org}/{name}@{revision}")),
        [org, name, "blob" | "resolve" | "raw", revision, file @ ..] => {
            repository(&format!("{org}/{name}@{revision}/{}", file.join("/")))
        }
        _ => None,
    }
}

/// A word of a repository: letters, digits, `.`, `_`, `-`, and nothing that climbs.
fn word(text: &str) -> Option<&str> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let fits = (1..=128).contains(&text.len()) && text.chars().all(good) && !text.starts_with(['.', '-']);
    fits.then_some(text)
}

fn file_path(text: &str) -> Option<String> {
    let fits = text.ends_with(".gguf") && text.len() <= 512 && !text.chars().any(char::is_control);
    let climbs = text.split('/').any(|word| matches!(word, "" | "." | ".."));
    (fits && !climbs).then(|| text.to_owned())
}

impl fmt::Display for PullSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(url) => write!(f, "{}{}", url.host_str().unwrap_or_default(), url.path()),
            Self::Repository { repository, revision, pick } => {
                f.write_str(repository)?;
                if revision != "main" {
                    write!(f, "@{revision}")?;
                }
                match pick {
                    Pick::Default => Ok(()),
                    Pick::Quant(quant) => write!(f, ":{quant}"),
                    Pick::File(file) => write!(f, "/{file}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<PullSpec>().map_or_else(|_| "refused".to_owned(), |spec| spec.to_string())
    }

    #[test]
    fn every_way_to_name_a_model_of_a_hub() {
        for (text, expected) in [
            ("org/name", "org/name"),
            ("org/name:Q8_0", "org/name:Q8_0"),
            ("org/name:latest", "org/name"),
            ("org/name@v1.0:Q8_0", "org/name@v1.0:Q8_0"),
            ("org/name/file.gguf", "org/name/file.gguf"),
            ("org/name/Q8_0/file-00001-of-00002.gguf", "org/name/Q8_0/file-00001-of-00002.gguf"),
            ("hf.co/org/name:Q4_K_M", "org/name:Q4_K_M"),
            ("huggingface.co/org/name", "org/name"),
            ("https://huggingface.co/org/name", "org/name"),
            ("https://huggingface.co/org/name/tree/main", "org/name"),
            ("https://huggingface.co/org/name/blob/main/file.gguf", "org/name/file.gguf"),
            ("https://hf.co/org/name/resolve/abc123/a/file.gguf?download=true", "org/name@abc123/a/file.gguf"),
            ("https://example.com/models/file.gguf?x=1", "example.com/models/file.gguf"),
            ("http://127.0.0.1:8000/file.gguf", "127.0.0.1/file.gguf"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_names_nothing_or_too_much_is_refused() {
        for text in [
            "",
            "qwen2.5:7b",
            "name",
            "org/",
            "/name",
            "../name",
            "org/../etc",
            "org/name/../../x.gguf",
            "org/name/readme.md",
            "org/na me",
            "http://example.com/file.gguf",
            "ftp://example.com/file.gguf",
            "https://user:pw@example.com/file.gguf",
            "https://huggingface.co/datasets/org/name",
            "org/name:",
        ] {
            assert_eq!(shown(text), "refused", "{text}");
        }
    }
}
