//! Reading request bodies: bounded, and with errors that name the field.
//!
//! The official clients send more fields than anybody reads; unknown ones are passed over. A known field of the wrong type is
//! refused with its JSON path. The content type is not looked at: `curl -d` sends a wrong one, and foreign pages are
//! stopped by their origin.

use axum::{
    extract::{FromRequest, Request},
    http::header,
};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, MapAccess, SeqAccess, Visitor},
};

use crate::{
    Api,
    fault::{Fault, Kind},
};

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Api> for Body<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Fault> {
        let limit = api.config().max_body_bytes;
        let too_large =
            |bytes: &str| Fault::new(Kind::TooLarge, format!("the body has {bytes}, at most {limit} are read"));
        let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        if let Some(length) = announced.and_then(|length| length.parse::<u64>().ok())
            && length > u64::try_from(limit).unwrap_or(u64::MAX)
        {
            return Err(too_large(&format!("{length} bytes")));
        }
        let path = request.uri().path().to_owned();
        let bytes = axum::body::to_bytes(request.into_body(), limit).await.map_err(|_| too_large("more bytes"))?;
        if api.config().log_prompts {
            tracing::debug!(path, body = %String::from_utf8_lossy(&bytes), "request");
        }
        decode(&bytes).map(Self)
    }
}

/// Decodes a body.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() {
            let problem = without_place(&inner.to_string());
            if path == "." { Fault::new(Kind::InvalidValue, problem) } else { Fault::field(path, problem) }
        } else {
            Fault::new(Kind::InvalidJson, format!("the body is no JSON: {inner}"))
        }
    })?;
    reader.end().map_err(|error| Fault::new(Kind::InvalidJson, format!("the body is no JSON: {error}")))?;
    Ok(value)
}

/// serde_json adds ` at line 1 column 2`; the path says it better.
fn without_place(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(message, _)| message).to_owned()
}

/// One value or a list of them. Written by hand: serde's untagged enums lose the path of what is wrong inside.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OneOrMany<T> {
    One(String),
    Many(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OneOrMany<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or an array")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(OneOrMany::One(text.to_owned()))
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(OneOrMany::One(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut many = Vec::new();
                while let Some(item) = items.next_element()? {
                    many.push(item);
                }
                Ok(OneOrMany::Many(many))
            }
        }
        deserializer.deserialize_any(Either(std::marker::PhantomData))
    }
}

impl OneOrMany<String> {
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// A word, or an object with more to it, as `tool_choice` has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum WordOr<T> {
    Word(String),
    Object(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WordOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = WordOr<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or an object")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(WordOr::Word(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(WordOr::Object)
            }
        }
        deserializer.deserialize_any(Either(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Probe {
        #[serde(default)]
        items: Vec<Item>,
    }
    #[derive(Debug, Deserialize)]
    struct Item {
        content: OneOrMany<Inner>,
        choice: Option<WordOr<Inner>>,
    }
    #[derive(Debug, Deserialize)]
    struct Inner {
        text: String,
    }

    fn fault(body: &str) -> (Option<String>, String, &'static str) {
        let fault = decode::<Probe>(body.as_bytes()).unwrap_err();
        (fault.param, fault.message, fault.kind.code())
    }

    #[test]
    fn a_wrong_field_is_named_however_deep() {
        let (path, message, code) = fault(r#"{"items":[{"content":"x"},{"content":[{"text":"a"},{"text":7}]}]}"#);
        assert_eq!(path.as_deref(), Some("items[1].content[1].text"));
        assert_eq!(message, "items[1].content[1].text: invalid type: integer `7`, expected a string");
        assert_eq!(code, "invalid_value");
        assert_eq!(fault(r#"{"items":[{"content":7}]}"#).0.as_deref(), Some("items[0].content"));
        assert_eq!(
            fault(r#"{"items":[{"content":"x","choice":{"text":[]}}]}"#).0.as_deref(),
            Some("items[0].choice.text")
        );
    }

    #[test]
    fn what_is_no_json_is_said_to_be_none() {
        assert_eq!(fault("{\"items\":[").2, "invalid_json");
        assert_eq!(fault("{} x").2, "invalid_json");
        assert_eq!(fault("").2, "invalid_json");
        assert_eq!(fault("7").2, "invalid_value");
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        let probe: Probe = decode(br#"{"items":[{"content":"x","later":{"a":[1]}}],"more":null}"#).unwrap();
        assert_eq!(probe.items[0].content, OneOrMany::<Inner>::One("x".into()));
        assert!(probe.items[0].choice.is_none());
    }

    impl PartialEq for Inner {
        fn eq(&self, other: &Self) -> bool {
            self.text == other.text
        }
    }
}
