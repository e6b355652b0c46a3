//! One kind of failure for all routes, and how each dialect writes it.
//!
//! A handler returns a [`Fault`]; the outermost layer renders it in the dialect of the path. So the refusals of layers,
//! extractors and the router itself come in the shape that the client at hand can read.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use locara_engine::EngineError;
use serde_json::{Map, Value, json};

use crate::host::Refusal;

/// What went wrong. Each kind has one status and one stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The body is no JSON.
    InvalidJson,
    /// A field is wrong.
    InvalidValue,
    /// The prompt does not fit into the context.
    ContextLength,
    /// The model cannot do that.
    NotOffered,
    /// No key, or a wrong one.
    Unauthorized,
    /// The key does not open this, or host or origin are not allowed.
    Forbidden,
    /// No such model, or it is switched off.
    ModelNotFound,
    /// No such route or object.
    NotFound,
    /// Another method is right.
    MethodNotAllowed,
    /// The body is too large.
    TooLarge,
    /// This client, or the queue, has enough.
    Busy,
    /// A fault of ours.
    Internal,
    /// The model does not load.
    LoadFailed,
    /// This host does not offer it.
    NotImplemented,
    /// Nothing is taken on for now.
    Unavailable,
    /// Memory is the reason.
    DoesNotFit,
}

impl Kind {
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::InvalidJson | Self::InvalidValue | Self::ContextLength | Self::NotOffered => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::ModelNotFound | Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal | Self::LoadFailed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::DoesNotFit => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    /// Part of the interface: never changed.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidValue => "invalid_value",
            // OpenAI's own word; clients look for it.
            Self::ContextLength => "context_length_exceeded",
            Self::NotOffered => "unsupported_by_model",
            Self::Unauthorized => "invalid_api_key",
            Self::Forbidden => "forbidden",
            Self::ModelNotFound => "model_not_found",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "request_too_large",
            Self::Busy => "too_many_requests",
            Self::Internal => "internal_error",
            Self::LoadFailed => "model_load_failed",
            Self::NotImplemented => "not_implemented",
            Self::Unavailable => "unavailable",
            Self::DoesNotFit => "does_not_fit",
        }
    }

    const fn openai_type(self) -> &'static str {
        match self {
            Self::Unauthorized => "authentication_error",
            Self::Forbidden => "permission_error",
            Self::ModelNotFound | Self::NotFound => "not_found_error",
            Self::Busy => "rate_limit_error",
            Self::Internal | Self::LoadFailed | Self::NotImplemented | Self::Unavailable | Self::DoesNotFit => {
                "server_error"
            }
            _ => "invalid_request_error",
        }
    }

    const fn anthropic_type(self) -> &'static str {
        match self {
            Self::Unauthorized => "authentication_error",
            Self::Forbidden => "permission_error",
            Self::ModelNotFound | Self::NotFound => "not_found_error",
            Self::TooLarge => "request_too_large",
            Self::Busy => "rate_limit_error",
            Self::Unavailable => "overloaded_error",
            Self::Internal | Self::LoadFailed | Self::NotImplemented | Self::DoesNotFit => "api_error",
            _ => "invalid_request_error",
        }
    }
}

/// A failure, before a dialect writes it.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    /// JSON path of the field that is wrong.
    pub(crate) param: Option<String>,
    /// Seconds.
    pub(crate) retry_after_s: Option<u32>,
    /// The figures of the message, for programs.
    pub(crate) numbers: Option<Box<Map<String, Value>>>,
}

impl Fault {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None, retry_after_s: None, numbers: None }
    }

    /// A field that is wrong; `path` as in `messages[0].content`.
    pub(crate) fn field(path: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        let path = path.into();
        Self { message: format!("{path}: {problem}"), param: Some(path), ..Self::new(Kind::InvalidValue, "") }
    }

    /// A field with a wish that this host or model cannot fulfil.
    pub(crate) fn not_offered(path: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self { kind: Kind::NotOffered, ..Self::field(path, problem) }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    fn retry(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds.max(1));
        self
    }

    fn with_numbers<const N: usize>(mut self, numbers: [(&str, Value); N]) -> Self {
        self.numbers = Some(Box::new(numbers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()));
        self
    }

    /// The body in a dialect.
    pub(crate) fn body(&self, dialect: Dialect) -> Value {
        let code = self.kind.code();
        let numbers = self.numbers.as_ref().map(|numbers| Value::Object((**numbers).clone()));
        match dialect {
            Dialect::OpenAi => {
                let mut error = json!({"message": self.message, "type": self.kind.openai_type(), "param": self.param,
                    "code": code});
                if let Some(numbers) = numbers {
                    error["numbers"] = numbers;
                }
                json!({ "error": error })
            }
            Dialect::Anthropic => {
                let mut details = json!({ "error_code": code });
                if let Some(numbers) = numbers {
                    details["numbers"] = numbers;
                }
                json!({"type": "error", "error": {"type": self.kind.anthropic_type(), "message": self.message,
                    "details": details}})
            }
            Dialect::Ollama => {
                let mut error = json!({"error": self.message, "code": code});
                if let Some(numbers) = numbers {
                    error["numbers"] = numbers;
                }
                error
            }
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Unknown(_) | Refusal::Disabled(_) => {
                Self { param: Some("model".into()), ..Self::new(Kind::ModelNotFound, message) }
            }
            Refusal::DoesNotFit { needed_bytes, available_bytes, .. } => Self::new(Kind::DoesNotFit, message)
                .with_numbers([
                    ("needed_bytes", needed_bytes.into()),
                    ("available_bytes", available_bytes.into()),
                    ("short_by_bytes", needed_bytes.saturating_sub(available_bytes).into()),
                ]),
            Refusal::Busy { retry_after_s, .. } => Self::new(Kind::Busy, message).retry(retry_after_s),
            Refusal::Unavailable { retry_after_s, .. } => Self::new(Kind::Unavailable, message).retry(retry_after_s),
            Refusal::LoadFailed { .. } => Self::new(Kind::LoadFailed, message),
            Refusal::Invalid(_) => Self::new(Kind::InvalidValue, message),
            Refusal::Unsupported(_) => Self::new(Kind::NotImplemented, message),
            Refusal::Failed(_) => Self::new(Kind::Internal, message),
        }
    }
}

impl From<EngineError> for Fault {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::InvalidRequest(_) => Self::new(Kind::InvalidValue, message),
            EngineError::ContextOverflow { prompt_tokens, n_ctx, .. } => Self::new(
                Kind::ContextLength,
                format!(
                    "the prompt has {prompt_tokens} tokens, and prompt and answer together may have {n_ctx}; shorten the prompt"
                ),
            )
            .with_numbers([("prompt_tokens", prompt_tokens.into()), ("context_tokens", n_ctx.into())]),
            EngineError::Busy { retry_after_ms, .. } => {
                Self::new(Kind::Busy, message).retry(retry_after_ms.div_ceil(1000))
            }
            EngineError::Throttled { retry_after_ms } => {
                Self::new(Kind::Unavailable, message).retry(retry_after_ms.div_ceil(1000))
            }
            EngineError::Unsupported(_) => Self::new(Kind::NotOffered, message),
            // Sessions are ours; a client knows nothing of them.
            EngineError::UnknownSession(_) | EngineError::SessionBusy(_) | EngineError::Failed(_) => {
                Self::new(Kind::Internal, message)
            }
            EngineError::Stopped => Self::new(Kind::Unavailable, "the model was taken out of memory; try again").retry(1),
        }
    }
}

impl IntoResponse for Fault {
    /// Not rendered yet: [`render`] does that, which knows the dialect.
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The language of a client, told by the path, and for paths of both OpenAI and Anthropic by a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    OpenAi,
    Anthropic,
    Ollama,
}

impl Dialect {
    pub(crate) fn of(request: &Request) -> Self {
        let path = request.uri().path();
        let versioned = path.starts_with("/v1/") && request.headers().contains_key("anthropic-version");
        if versioned || path == "/v1/messages" || path.starts_with("/v1/messages/") {
            Self::Anthropic
        } else if path.starts_with("/api/") {
            Self::Ollama
        } else {
            Self::OpenAi
        }
    }
}

/// The outermost layer: writes faults in the dialect of the path.
pub(crate) async fn render(request: Request, next: Next) -> Response {
    let dialect = Dialect::of(&request);
    let mut response = next.run(request).await;
    let Some(fault) = response.extensions_mut().remove::<Fault>() else { return response };
    if fault.kind.status().is_server_error() {
        tracing::warn!(code = fault.kind.code(), message = fault.message, "a request failed");
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.remove(header::CONTENT_LENGTH);
    if let Some(seconds) = fault.retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    *response.body_mut() = Body::from(fault.body(dialect).to_string());
    response
}
