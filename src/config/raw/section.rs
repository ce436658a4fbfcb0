//! Sections: tables with known keys.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::field::{Field, wrong_type};
use crate::config::{findings::Findings, synonyms, words};

/// A table with known keys.
pub trait Section: Default {
    /// Name of its schema.
    const NAME: &'static str;
    /// What it is for.
    const ABOUT: &'static str;
    /// Keys that must be given.
    const REQUIRED: &'static [&'static str];
    /// Keys of which one at least must be given.
    const EITHER: &'static [&'static str];

    /// Every key that it may have.
    fn keys() -> Vec<&'static str>;

    /// Reads `key` if it is one of this section's; false if it is not.
    fn take(
        &mut self,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        findings: &mut Findings,
    ) -> bool;

    /// The same with every key that is not given taken from `other`.
    #[must_use]
    fn or(self, other: &Self) -> Self;

    /// Adds the schema of every key.
    fn properties(generator: &mut SchemaGenerator, out: &mut Map<String, Value>);
}

/// Reads the top of the file.
pub fn read_file<S: Section>(table: &DeTable<'_>, findings: &mut Findings) -> S {
    read_keys(table, 0..0, findings)
}

fn read_keys<S: Section>(table: &DeTable<'_>, place: std::ops::Range<usize>, findings: &mut Findings) -> S {
    let mut section = S::default();
    let mut misspelt = Vec::new();
    for (key, value) in table {
        if !section.take(key, value, findings) {
            misspelt.extend(unknown_key::<S>(key, table, &misspelt, findings));
        }
    }
    for required in S::REQUIRED {
        if findings.absence_counts() && !table.contains_key(*required) && !misspelt.contains(required) {
            let about = property_about::<S>(required);
            findings.error(place.clone(), format!("missing key `{required}`"), about);
        }
    }
    let has = |key: &&str| table.contains_key(*key) || misspelt.contains(key);
    if findings.absence_counts() && !S::EITHER.is_empty() && !S::EITHER.iter().any(has) {
        let names: Vec<_> = S::EITHER.iter().map(|key| format!("`{key}`")).collect();
        let message = format!("missing key {}", names.join(" or "));
        let about = S::EITHER.first().and_then(|key| about::<S>(key));
        let help = format!("one of them is needed. {}", about.unwrap_or_default());
        findings.error(place, message, help);
    }
    section
}

/// Reads one section of a list of them; `None` if it is none.
pub fn read_item<S: Section>(value: &Spanned<DeValue<'_>>, findings: &mut Findings) -> Option<S> {
    match value.get_ref() {
        DeValue::Table(table) => Some(read_keys(table, value.span(), findings)),
        _ => None,
    }
}

/// Reports a key that the section does not have; returns the one that it was probably meant for. Of several that were meant
/// for one, such as an address and a port, the first is reported.
fn unknown_key<S: Section>(
    key: &Spanned<std::borrow::Cow<'_, str>>,
    table: &DeTable<'_>,
    before: &[&'static str],
    findings: &mut Findings,
) -> Option<&'static str> {
    let name = key.get_ref().as_ref();
    let keys = S::keys();
    let meant = synonyms::meant(S::NAME, name, table);
    let meant_key = meant.as_ref().and_then(|meant| meant.key);
    if meant_key.is_some_and(|meant| before.contains(&meant)) {
        return meant_key;
    }
    let elsewhere = || {
        super::ELSEWHERE
            .iter()
            .find(|(_, keys)| keys().contains(&name))
            .map(|(place, _)| *place)
    };
    let near = words::nearest(name, keys.iter().copied());
    let help = if let Some(meant) = meant {
        format!("write {}", meant.line)
    } else if let Some(near) = near {
        format!("did you mean `{near}`?")
    } else if let Some(place) = elsewhere() {
        format!("`{name}` belongs in {place}")
    } else {
        format!("known keys here: {}", keys.join(", "))
    };
    findings.within(name, |findings| {
        findings.error(
            key.span(),
            format!("unknown key `{}`", crate::config::quote::key(name)),
            help,
        );
    });
    meant_key.or(near)
}

/// What a key is for, for the help of its absence.
fn property_about<S: Section>(key: &str) -> Option<String> {
    about::<S>(key).map(|about| format!("`{key}` is needed. {about}"))
}

/// What a key is for.
fn about<S: Section>(key: &str) -> Option<String> {
    let mut properties = Map::new();
    S::properties(&mut schema_generator(), &mut properties);
    properties
        .get(key)?
        .get("description")?
        .as_str()
        .map(str::to_owned)
}

fn schema_generator() -> SchemaGenerator {
    schemars::generate::SchemaSettings::draft2020_12().into_generator()
}

impl<S: Section + Clone + JsonSchema> Field for S {
    fn read(
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        findings: &mut Findings,
    ) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(read_keys(table, key.span(), findings)),
            _ => {
                let example = Self::keys().first().copied().unwrap_or_default();
                let help = match (Self::NAME, value.get_ref()) {
                    ("HealthCheck", DeValue::String(_)) => {
                        "write health_check = { kind = \"tcp\" }, or leave it out: without it a check is a TCP connect".to_owned()
                    }
                    _ => format!(
                        "write a section [{}], or {} = {{ {example} = … }}",
                        findings.path(),
                        findings.key()
                    ),
                };
                wrong_type(value, "a section", Some(help), findings)
            }
        }
    }
}

/// Schema of a section: an object with exactly these keys.
pub fn schema_of<S: Section>(generator: &mut SchemaGenerator) -> Schema {
    let mut properties = Map::new();
    S::properties(generator, &mut properties);
    let mut schema = json_schema!({
        "type": "object",
        "description": S::ABOUT,
        "properties": properties,
        "additionalProperties": false,
    });
    if !S::REQUIRED.is_empty() {
        schema.insert("required".to_owned(), S::REQUIRED.into());
    }
    if !S::EITHER.is_empty() {
        let each = S::EITHER
            .iter()
            .map(|key| serde_json::json!({ "required": [key] }));
        schema.insert("anyOf".to_owned(), each.collect());
    }
    schema
}

/// Schema of one key, with what it is for.
pub fn property<T: Field>(generator: &mut SchemaGenerator, about: &str) -> Value {
    let mut schema = generator.subschema_for::<T>();
    schema.insert("description".to_owned(), about.into());
    schema.to_value()
}

/// Declares a section: its keys with their types and descriptions. `(required)` marks a key that must be given,
/// `needs one or other` two of which one must be; `..name: Section` takes in the keys of another section.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident $(needs $one:ident or $other:ident)? {
            $( $(#[doc = $doc:literal])+ $key:ident $(($required:ident))? : $type:ty, )*
            $(..$part:ident: $whole:ty,)*
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Default)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $key: Option<$crate::config::raw::Located<$type>>, )*
            $(
                /// The keys it shares with `[defaults]`.
                pub $part: $whole,
            )*
        }

        impl $crate::config::raw::Section for $name {
            const NAME: &'static str = stringify!($name);
            const ABOUT: &'static str = concat!($($about),+).trim_ascii();
            const REQUIRED: &'static [&'static str] = &[$($( $crate::config::raw::section::required!($required $key), )?)*];
            const EITHER: &'static [&'static str] = &[$( stringify!($one), stringify!($other) )?];

            fn keys() -> Vec<&'static str> {
                let own: &[&'static str] = &[$(stringify!($key)),*];
                own.iter().copied()$(.chain(<$whole>::keys()))*.collect()
            }

            fn take(
                &mut self,
                key: &toml::Spanned<std::borrow::Cow<'_, str>>,
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                findings: &mut $crate::config::findings::Findings,
            ) -> bool {
                match key.get_ref().as_ref() {
                    $( stringify!($key) => {
                        self.$key = $crate::config::raw::field::read_key(key, value, findings);
                        true
                    } )*
                    _ => false $(|| self.$part.take(key, value, findings))*,
                }
            }

            fn or(self, other: &Self) -> Self {
                Self {
                    $( $key: self.$key.or_else(|| other.$key.clone()), )*
                    $( $part: self.$part.or(&other.$part), )*
                }
            }

            fn properties(generator: &mut schemars::SchemaGenerator, out: &mut serde_json::Map<String, serde_json::Value>) {
                $( out.insert(
                    stringify!($key).to_owned(),
                    $crate::config::raw::section::property::<$type>(generator, concat!($($doc),+).trim_ascii()),
                ); )*
                $( <$whole>::properties(generator, out); )*
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                <Self as $crate::config::raw::Section>::NAME.into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $crate::config::raw::section::schema_of::<Self>(generator)
            }
        }
    };
}

/// The name of a required key.
macro_rules! required {
    (required $key:ident) => {
        stringify!($key)
    };
}

pub(super) use {required, section};
