//! The files that show every key.

use std::fs;

use libtest_mimic::Failed;

use super::{
    meaning::{Outcome, same},
    top,
};

/// The default file with its commented settings in force: a `#` and a word is a setting, a `#` and a space is prose.
pub fn uncommented() -> Result<String, Failed> {
    let file = fs::read_to_string(top().join("configs/convey.toml"))?;
    let in_force = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_alphanumeric() || c == '[') => rest.to_owned(),
        _ => line.to_owned(),
    };
    Ok(file.lines().map(in_force).collect::<Vec<_>>().join("\n"))
}

/// Both files have every key of the schema.
pub fn every_key_is_shown() -> Outcome {
    let full = fs::read_to_string(top().join("configs/full.toml"))?;
    for (name, toml) in [("full.toml", full), ("convey.toml", uncommented()?)] {
        let table: toml::Table = toml.parse()?;
        let shown = super::schema::keys_in(&toml::Value::Table(table));
        let missing: Vec<_> = super::schema::every_key()
            .into_iter()
            .filter(|key| !shown.contains(key))
            // 0.3.5's name for [packet], which cannot stand beside it
            .filter(|key| key != "passthrough")
            .collect();
        same((name, missing), (name, Vec::new()))?;
    }
    Ok(())
}
