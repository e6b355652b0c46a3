//! `/v1/embeddings` and `/v1/rerank`.

use axum::{
    Json,
    extract::{Extension, State},
};
use base64::Engine as _;
use locara_engine::Token;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::{
    Api,
    access::Caller,
    answering::reply,
    body::{Body, OneOrMany},
    embedding::similarity,
    fault::Fault,
};

/// Texts to embed. Fields that are not listed are accepted and have no effect.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EmbeddingsRequest {
    /// A model or a role.
    model: String,
    /// A text, several texts, tokens, or several lists of tokens.
    #[schema(value_type = Value)]
    input: OneOrMany<Input>,
    /// Length of the vectors.
    dimensions: Option<u32>,
    /// `float` or `base64`.
    encoding_format: Option<String>,
}

/// One text of several, or one token of one text.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Input {
    Token(Token),
    Text(String),
    Tokens(Vec<Token>),
}

/// Vectors.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Embeddings {
    /// `list`.
    object: &'static str,
    data: Vec<Embedding>,
    /// The physical model.
    model: String,
    usage: TextUsage,
}

/// One vector.
#[derive(Debug, Serialize, ToSchema)]
struct Embedding {
    /// `embedding`.
    object: &'static str,
    index: usize,
    /// Numbers, or their bytes (f32, little endian) in base64.
    embedding: Value,
}

/// Counts of texts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TextUsage {
    prompt_tokens: u32,
    total_tokens: u32,
}

/// The texts of an input; tokens are written out.
async fn texts(api: &Api, caller: &Caller, model: &str, input: OneOrMany<Input>) -> Result<Vec<String>, Fault> {
    let items = match input {
        OneOrMany::One(text) => return Ok(vec![text]),
        OneOrMany::Many(items) => items,
    };
    let mut texts = Vec::new();
    let mut tokens = Vec::new();
    for (at, item) in items.into_iter().enumerate() {
        match item {
            Input::Text(text) if tokens.is_empty() => texts.push(text),
            Input::Token(token) if texts.is_empty() => tokens.push(token),
            Input::Tokens(list) if tokens.is_empty() => {
                let served = api.engine(caller, model).await?;
                texts.push(reply(served.engine.detokenize(list)).await?);
            }
            _ => return Err(Fault::field(format!("input[{at}]"), "texts and single tokens are mixed")),
        }
    }
    if !tokens.is_empty() {
        let served = api.engine(caller, model).await?;
        texts.push(reply(served.engine.detokenize(tokens)).await?);
    }
    Ok(texts)
}

/// One vector for each text.
#[utoipa::path(post, path = "/v1/embeddings", tag = "openai", request_body = EmbeddingsRequest,
    responses((status = 200, body = Embeddings), (status = 400), (status = 404)))]
pub(crate) async fn embeddings(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<EmbeddingsRequest>,
) -> Result<Json<Embeddings>, Fault> {
    let base64 = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            return Err(Fault::field("encoding_format", format!("{other:?} is neither \"float\" nor \"base64\"")));
        }
    };
    let texts = texts(&api, &caller, &request.model, request.input).await?;
    let embedded = api.embed(&caller, &request.model, "input", texts, request.dimensions).await?;
    let data = embedded.vectors.iter().enumerate().map(|(index, vector)| Embedding {
        object: "embedding",
        index,
        embedding: if base64 { in_base64(vector) } else { json!(vector) },
    });
    Ok(Json(Embeddings {
        object: "list",
        data: data.collect(),
        model: embedded.model,
        usage: TextUsage { prompt_tokens: embedded.tokens, total_tokens: embedded.tokens },
    }))
}

fn in_base64(vector: &[f32]) -> Value {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes).into()
}

/// Documents to be put in order.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RerankRequest {
    /// A model or a role, of an embedding model.
    model: String,
    query: String,
    /// Texts, or objects with a `text`.
    #[schema(value_type = Vec<Value>)]
    documents: Vec<Document>,
    /// How many to return.
    top_n: Option<usize>,
    return_documents: Option<bool>,
}

/// A document.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Document {
    Text(String),
    Object { text: String },
}

/// Documents in order, the most relevant first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reranked {
    /// `list`.
    object: &'static str,
    /// The physical model.
    model: String,
    results: Vec<Ranked>,
    usage: TextUsage,
}

/// One document.
#[derive(Debug, Serialize, ToSchema)]
struct Ranked {
    /// Its place in the request.
    index: usize,
    /// How alike query and document are: the cosine of their embeddings, -1 to 1.
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Value>,
}

/// Puts documents in order of how alike they are to the query, by their embeddings.
#[utoipa::path(post, path = "/v1/rerank", tag = "openai", request_body = RerankRequest,
    responses((status = 200, body = Reranked), (status = 400), (status = 404)))]
pub(crate) async fn rerank(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<RerankRequest>,
) -> Result<Json<Reranked>, Fault> {
    if request.query.is_empty() {
        return Err(Fault::field("query", "empty"));
    }
    if request.documents.is_empty() {
        return Err(Fault::field("documents", "there are none"));
    }
    let documents = request.documents.into_iter().map(|document| match document {
        Document::Text(text) | Document::Object { text } => text,
    });
    let texts: Vec<String> = std::iter::once(request.query).chain(documents).collect();
    if let Some(at) = texts.iter().skip(1).position(String::is_empty) {
        return Err(Fault::field(format!("documents[{at}]"), "an empty text has no embedding"));
    }
    let mut embedded = api.embed(&caller, &request.model, "documents", texts.clone(), None).await?;
    let query = embedded.vectors.remove(0);
    let mut results: Vec<Ranked> = embedded
        .vectors
        .iter()
        .zip(texts.into_iter().skip(1))
        .enumerate()
        .map(|(index, (vector, text))| Ranked {
            index,
            relevance_score: similarity(&query, vector),
            document: (request.return_documents == Some(true)).then(|| json!({ "text": text })),
        })
        .collect();
    results.sort_by(|a, b| b.relevance_score.total_cmp(&a.relevance_score));
    results.truncate(request.top_n.unwrap_or(usize::MAX));
    Ok(Json(Reranked {
        object: "list",
        model: embedded.model,
        results,
        usage: TextUsage { prompt_tokens: embedded.tokens, total_tokens: embedded.tokens },
    }))
}
