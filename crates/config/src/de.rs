//! From the merged tree to typed sections, through serde; no message ever holds a value.

use std::{cell::RefCell, fmt};

use serde::{
    Deserializer,
    de::{self, DeserializeSeed, Expected, IntoDeserializer, Unexpected, Visitor, value::StrDeserializer},
};

use crate::{
    problem::Problem,
    suggest::did_you_mean,
    tree::{Node, Scalar, Table, render},
};

/// Why a value does not fit, and its path.
#[derive(Debug)]
pub(crate) struct DeError {
    /// Outermost key first.
    pub(crate) path: Vec<String>,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl DeError {
    fn new(message: impl Into<String>) -> Self {
        Self { path: Vec::new(), message: message.into(), hint: None }
    }

    fn expected(what: &str, found: &Scalar) -> Self {
        let mut error = match found {
            // Text without a type fits anything in kind: what is wrong is its content.
            Scalar::Text(_) => Self::new(format!("expected {what}")),
            _ => Self::new(format!("expected {what}, found {}", found.kind())),
        };
        error.hint = match found {
            Scalar::Str(_) if what != "a table" => Some("remove the quotes".into()),
            Scalar::Int(_) | Scalar::Float(_) | Scalar::Bool(_) if what == "text" => Some("put it in quotes".into()),
            _ => None,
        };
        error
    }
}

impl fmt::Display for DeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", render(&self.path), self.message)
    }
}

impl std::error::Error for DeError {}

// serde's own wording of all but `custom` quotes the value; these do not.
impl de::Error for DeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}"))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("expected one of {}", expected.join(", ")))
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("expected one of {}", expected.join(", ")))
    }
}

/// Reads a tree; keys that no section knows become problems.
pub(crate) fn read<T: de::DeserializeOwned>(root: &Table, unknown: &mut Vec<Problem>) -> Result<T, DeError> {
    let found = RefCell::new(Vec::new());
    let read = T::deserialize(TableDe { table: root, path: Vec::new(), unknown: &found });
    *unknown = found.into_inner();
    read
}

struct TableDe<'a> {
    table: &'a Table,
    path: Vec<String>,
    unknown: &'a RefCell<Vec<Problem>>,
}

impl TableDe<'_> {
    fn report_unknown(&self, fields: &[&'static str]) {
        // `url` is not a field: it was taken apart into host, port and the rest before.
        let url = fields.contains(&"host").then_some("url");
        let candidates: Vec<&str> = fields.iter().copied().chain(url).collect();
        for (key, node) in &self.table.entries {
            if fields.contains(&key.as_str()) {
                continue;
            }
            let path: Vec<&str> = self.path.iter().map(String::as_str).chain([key.as_str()]).collect();
            let hint = match did_you_mean(key, &candidates) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", candidates.join(", ")),
            };
            let places: Vec<_> = match node {
                Node::Table(table) => table.at.iter().collect(),
                Node::Value(stack) => stack.iter().map(|entry| &entry.at).collect(),
            };
            let problems =
                places.into_iter().map(|at| Problem::new(render(&path), at.clone(), "unknown key").hint(hint.clone()));
            self.unknown.borrow_mut().extend(problems);
        }
    }
}

impl<'de> Deserializer<'de> for TableDe<'_> {
    type Error = DeError;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DeError> {
        Err(DeError::new("expected a single value, found a table"))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DeError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        visitor.visit_some(self)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        visitor.visit_map(Entries { de: &self, rest: self.table.entries.iter(), value: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DeError> {
        self.report_unknown(fields);
        self.deserialize_map(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct enum identifier ignored_any
    }
}

struct Entries<'a, 'b> {
    de: &'b TableDe<'a>,
    rest: std::collections::btree_map::Iter<'a, String, Node>,
    value: Option<(&'a str, &'a Node)>,
}

impl<'de> de::MapAccess<'de> for Entries<'_, '_> {
    type Error = DeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DeError> {
        let Some((key, node)) = self.rest.next() else { return Ok(None) };
        self.value = Some((key, node));
        let key: StrDeserializer<'_, DeError> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, DeError> {
        let Some((key, node)) = self.value.take() else { return Err(DeError::new("a value without a key")) };
        let read = match node {
            Node::Table(table) => {
                let path = self.de.path.iter().cloned().chain([key.to_owned()]).collect();
                seed.deserialize(NodeDe::Table(TableDe { table, path, unknown: self.de.unknown }))
            }
            Node::Value(stack) => match stack.last() {
                Some(entry) => seed.deserialize(NodeDe::Scalar(&entry.scalar)),
                None => Err(DeError::new("a value is missing")),
            },
        };
        read.map_err(|mut error| {
            error.path.insert(0, key.to_owned());
            error
        })
    }
}

/// Either kind of node behind one type; serde's seeds want one.
enum NodeDe<'a> {
    Table(TableDe<'a>),
    Scalar(&'a Scalar),
}

macro_rules! forward_node {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
            match self {
                Self::Table(de) => de.$method(visitor),
                Self::Scalar(scalar) => ScalarDe(scalar).$method(visitor),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for NodeDe<'_> {
    type Error = DeError;

    forward_node! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_str deserialize_string deserialize_option
        deserialize_seq deserialize_map
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, DeError> {
        match self {
            Self::Table(de) => de.deserialize_newtype_struct(name, visitor),
            Self::Scalar(scalar) => ScalarDe(scalar).deserialize_newtype_struct(name, visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DeError> {
        match self {
            Self::Table(de) => de.deserialize_struct(name, fields, visitor),
            Self::Scalar(scalar) => ScalarDe(scalar).deserialize_struct(name, fields, visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DeError> {
        match self {
            Self::Table(de) => de.deserialize_enum(name, variants, visitor),
            Self::Scalar(scalar) => ScalarDe(scalar).deserialize_enum(name, variants, visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct ScalarDe<'a>(&'a Scalar);

/// `f32` and `f64` have no method here on purpose: amounts are decimals.
macro_rules! integers {
    ($($method:ident $visit:ident $int:ty),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
            let what = || format!("a whole number from {} to {}", <$int>::MIN, <$int>::MAX);
            let text = match self.0 {
                Scalar::Int(text) => text,
                Scalar::Text(text) => text.expose(),
                other => return Err(DeError::expected(&what(), other)),
            };
            match text.parse::<$int>() {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(DeError::new(format!("expected {}", what()))),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for ScalarDe<'_> {
    type Error = DeError;

    integers! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DeError> {
        Err(DeError::new("no setting of this kind can be read"))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        match self.0 {
            Scalar::Bool(value) => visitor.visit_bool(*value),
            Scalar::Text(text) if text.expose() == "true" => visitor.visit_bool(true),
            Scalar::Text(text) if text.expose() == "false" => visitor.visit_bool(false),
            other => Err(DeError::expected("true or false", other)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        match self.0 {
            Scalar::Text(text) | Scalar::Str(text) => visitor.visit_str(text.expose()),
            other => Err(DeError::expected("text", other)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        visitor.visit_some(NodeDe::Scalar(self.0))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, DeError> {
        if name != RawText::NAME {
            return visitor.visit_newtype_struct(NodeDe::Scalar(self.0));
        }
        match self.0.raw() {
            Some(text) => visitor.visit_str(text),
            None => Err(DeError::new(format!("expected text or a number, found {}", self.0.kind()))),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DeError> {
        let pieces: Vec<Scalar>;
        let items = match self.0 {
            Scalar::Array(items) => items,
            // A variable holds a list with commas.
            Scalar::Text(text) => {
                let piece = |piece: &str| Scalar::Text(piece.trim().to_owned().into());
                pieces = text.expose().split(',').map(piece).collect();
                &pieces
            }
            other => return Err(DeError::expected("an array", other)),
        };
        visitor.visit_seq(Items(items.iter()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DeError> {
        Err(DeError::expected("a table", self.0))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, DeError> {
        Err(DeError::expected("a table", self.0))
    }

    /// Names of variants match in any case: `LOG_LEVEL=INFO` is common.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DeError> {
        let (Scalar::Text(text) | Scalar::Str(text)) = self.0 else {
            return Err(DeError::new(format!("expected one of {}, found {}", variants.join(", "), self.0.kind())));
        };
        match variants.iter().find(|variant| variant.eq_ignore_ascii_case(text.expose())) {
            Some(variant) => {
                let variant: StrDeserializer<'_, DeError> = (*variant).into_deserializer();
                visitor.visit_enum(variant)
            }
            None => {
                let mut error = <DeError as de::Error>::unknown_variant("", variants);
                error.hint = did_you_mean(text.expose(), variants).map(|near| format!("did you mean `{near}`?"));
                Err(error)
            }
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'a>(std::slice::Iter<'a, Scalar>);

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = DeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, DeError> {
        self.0.next().map(|scalar| seed.deserialize(NodeDe::Scalar(scalar))).transpose()
    }
}

/// The characters of a text or a number, as they were written.
pub(crate) struct RawText;

impl RawText {
    const NAME: &'static str = "$infra_config::RawText";

    /// Takes them from our own deserializer; others give their text.
    pub(crate) fn read<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = String;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a number")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
                Ok(text.to_owned())
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<String, D::Error> {
                d.deserialize_str(self)
            }
        }
        d.deserialize_newtype_struct(Self::NAME, Text)
    }
}
