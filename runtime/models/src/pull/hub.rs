//! What a hub says of a repository.

use std::ffi::OsString;

use locara_manifest::{Digest, ModelName, Source, SourceKind};
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE},
};
use serde::Deserialize;
use url::Url;

use super::{
    PullError, PullSpec,
    http::{Failure, Http, Patience, Token, host, text},
    quant::{self, Remote},
};
use crate::import::printable;

/// Largest answer of the hub that is read, in bytes: a repository of some ten thousand files.
const MAX_ANSWER: usize = 16 << 20;

/// Which hub, and who asks.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// The address of the hub or of its mirror, without a slash at the end.
    pub endpoint: String,
    /// Who asks, for models that are not for everybody.
    pub token: Option<Token>,
    /// How long to wait for what.
    pub patience: Patience,
}

impl HubOptions {
    /// What the environment says, as for Hugging Face's own programs: `HF_ENDPOINT` or else `configured`; `HF_TOKEN` or
    /// else the file that `hf auth login` wrote. `variable` reads an environment variable.
    #[must_use]
    pub fn usual(variable: impl Fn(&str) -> Option<OsString>, configured: &str) -> Self {
        let named = |name: &str| variable(name).filter(|value| !value.is_empty());
        let endpoint = named("HF_ENDPOINT").and_then(|value| value.into_string().ok());
        let folder = named("HF_HOME").map(std::path::PathBuf::from).or_else(|| {
            let caches = named("XDG_CACHE_HOME").map(std::path::PathBuf::from);
            let caches = caches.or_else(|| named("HOME").map(|home| std::path::PathBuf::from(home).join(".cache")));
            caches.map(|caches| caches.join("huggingface"))
        });
        let file =
            named("HF_TOKEN_PATH").map(std::path::PathBuf::from).or_else(|| folder.map(|folder| folder.join("token")));
        let token = match named("HF_TOKEN") {
            Some(value) => value.into_string().ok(),
            None => file.and_then(|file| fs_err::read_to_string(file).ok()),
        };
        Self {
            endpoint: endpoint.unwrap_or_else(|| configured.to_owned()),
            token: token.and_then(|text| Token::new(&text)),
            patience: Patience::default(),
        }
    }
}

/// A hub of Hugging Face's kind.
#[derive(Debug)]
pub struct Hub {
    pub(super) http: Http,
    endpoint: Url,
}

/// What a pull will bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullPlan {
    /// What the model would be called here.
    pub name: ModelName,
    /// Where it comes from.
    pub source: Source,
    /// Its files, in order.
    pub parts: Vec<PlannedPart>,
}

impl PullPlan {
    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).fold(0, u64::saturating_add)
    }
}

/// One file that a pull will bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPart {
    /// What people call it.
    pub file: String,
    /// Where it is.
    pub url: Url,
    /// Its size.
    pub bytes: u64,
    /// What the hub says its SHA-256 is. Servers that are no hub do not say.
    pub sha256: Option<Digest>,
}

#[derive(Deserialize)]
struct Repository {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

impl Hub {
    /// A hub. The process must have installed a TLS provider, as the host does when it starts.
    ///
    /// # Errors
    /// The address is none, or the client does not start.
    pub fn new(options: HubOptions) -> Result<Self, PullError> {
        let bad = |why: &str| PullError::Endpoint { address: options.endpoint.clone(), why: why.to_owned() };
        let endpoint = Url::parse(&options.endpoint).map_err(|error| bad(&error.to_string()))?;
        if !matches!(endpoint.scheme(), "http" | "https") || !endpoint.has_host() {
            return Err(bad("it does not begin with https:// and a host"));
        }
        if !endpoint.username().is_empty() || endpoint.password().is_some() {
            return Err(bad("it holds a password; the token belongs in HF_TOKEN"));
        }
        Ok(Self { http: Http::new(endpoint.clone(), options.token, options.patience)?, endpoint })
    }

    /// What a pull would bring: asks the hub which files there are, and picks.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn plan(&self, spec: &PullSpec) -> Result<PullPlan, PullError> {
        match spec {
            PullSpec::Repository { repository, revision, pick } => {
                let found = self.repository(repository, revision).await?;
                // What the hub calls a commit is put into addresses, so it must be one.
                let is_commit =
                    |sha: &String| (7..=64).contains(&sha.len()) && sha.bytes().all(|b| b.is_ascii_hexdigit());
                let commit = found.sha.filter(is_commit).unwrap_or_else(|| revision.clone());
                let files = found.siblings.into_iter().map(|sibling| Remote {
                    bytes: sibling.lfs.as_ref().and_then(|lfs| lfs.size).or(sibling.size),
                    sha256: sibling.lfs.and_then(|lfs| lfs.sha256?.parse().ok()),
                    path: sibling.rfilename,
                });
                let model = quant::pick(repository, files.collect(), pick)?;
                self.planned(repository, commit, model)
            }
            PullSpec::Address(url) => self.address(url).await,
        }
    }

    fn planned(&self, repository: &str, commit: String, model: quant::Candidate) -> Result<PullPlan, PullError> {
        let split = model.files.len() > 1;
        let mut parts = Vec::with_capacity(model.files.len());
        for file in model.files {
            let incomplete = |why: &str| PullError::Incomplete {
                repository: repository.to_owned(),
                file: file.path.clone(),
                why: why.to_owned(),
            };
            let bytes =
                file.bytes.filter(|bytes| *bytes > 0).ok_or_else(|| incomplete("the hub does not say its size"))?;
            if split && file.sha256.is_none() {
                return Err(incomplete("the hub does not say its SHA-256"));
            }
            let url = self.at(repository.split('/').chain(["resolve", &commit]).chain(file.path.split('/')))?;
            parts.push(PlannedPart { file: printable(&file.path), url, bytes, sha256: file.sha256 });
        }
        let first = parts.first().map(|part| part.file.clone()).unwrap_or_default();
        Ok(PullPlan {
            name: ModelName::from_text(&quant::model_name(repository, &model.stem)),
            source: Source { kind: SourceKind::Hub, name: format!("{repository}/{first}"), revision: Some(commit) },
            parts,
        })
    }

    /// An address below the hub's.
    fn at<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Result<Url, PullError> {
        let mut url = self.endpoint.clone();
        let bad =
            || PullError::Endpoint { address: self.endpoint.to_string(), why: "nothing can be below it".to_owned() };
        url.path_segments_mut().map_err(|()| bad())?.pop_if_empty().extend(words);
        Ok(url)
    }

    async fn repository(&self, repository: &str, revision: &str) -> Result<Repository, PullError> {
        let mut url =
            self.at(["api", "models"].into_iter().chain(repository.split('/')).chain(["revision", revision]))?;
        url.set_query(Some("blobs=true"));
        let what = if revision == "main" { repository.to_owned() } else { format!("{repository}@{revision}") };
        let mut attempt = 0;
        loop {
            let failure = match self.answer(&url, &what).await {
                Ok(answer) => {
                    return serde_json::from_slice(&answer).map_err(|error| PullError::Answer {
                        host: host(&url),
                        what,
                        why: error.to_string(),
                    });
                }
                Err(failure) => failure,
            };
            attempt += 1;
            self.http.pause(attempt, failure, &url, &what).await?;
        }
    }

    async fn answer(&self, url: &Url, what: &str) -> Result<Vec<u8>, Failure> {
        let mut response = self.http.get(url, what, &HeaderMap::new()).await?;
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| Failure::again(text(&error)))? {
            if answer.len() + chunk.len() > MAX_ANSWER {
                let why = format!("it has more than {MAX_ANSWER} bytes");
                return Err(PullError::Answer { host: host(url), what: what.to_owned(), why }.into());
            }
            answer.extend_from_slice(&chunk);
        }
        Ok(answer)
    }

    /// What a server that is no hub says of a file: asked for its first byte.
    async fn address(&self, url: &Url) -> Result<PullPlan, PullError> {
        let file = url.path_segments().and_then(|mut words| words.next_back()).unwrap_or_default().to_owned();
        let file = printable(&file);
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        let mut attempt = 0;
        let response = loop {
            match self.http.get(url, &file, &headers).await {
                Ok(response) => break response,
                Err(failure) => {
                    attempt += 1;
                    self.http.pause(attempt, failure, url, &file).await?;
                }
            }
        };
        let unknown = || PullError::Answer {
            host: host(url),
            what: file.clone(),
            why: "the server does not say how large it is".to_owned(),
        };
        let bytes = size(&response).filter(|bytes| *bytes > 0).ok_or_else(unknown)?;
        let stem = file.strip_suffix(".gguf").unwrap_or(&file);
        if crate::split::PartName::parse(&file).is_some() {
            let why = "parts of split models are pulled from repositories only; name `org/name/file.gguf`".to_owned();
            return Err(PullError::Incomplete { repository: host(url), file, why });
        }
        Ok(PullPlan {
            name: ModelName::from_text(stem),
            source: Source {
                kind: SourceKind::Url,
                name: printable(&format!("{}{}", url.origin().ascii_serialization(), url.path())),
                revision: None,
            },
            parts: vec![PlannedPart { file, url: url.clone(), bytes, sha256: None }],
        })
    }
}

/// The size of the whole file, from an answer with all of it or with a part.
fn size(response: &Response) -> Option<u64> {
    if response.status() == StatusCode::PARTIAL_CONTENT {
        return ContentRange::of(response)?.total;
    }
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What a server says of the part that it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    /// The first byte.
    pub(super) start: u64,
    /// The size of the whole file.
    pub(super) total: Option<u64>,
}

impl ContentRange {
    pub(super) fn of(response: &Response) -> Option<Self> {
        let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let start = range.split_once('-')?.0.trim().parse().ok()?;
        Some(Self { start, total: total.trim().parse().ok() })
    }
}
