//! What an input includes, read from its directory: bounded in number and bytes, regular files only.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{
    import::{Files, InputFile, MAX_INPUT_BYTES},
    sys::config_file::{self, ReadError},
};

/// Most files that one input may include.
const MAX_FILES: usize = 1_000;

/// Files beside the input.
#[derive(Debug)]
pub struct Beside {
    /// What relative paths are relative to.
    directory: PathBuf,
    /// Bytes that may still be read.
    left: usize,
    files: usize,
}

impl Beside {
    /// Beside a file of so many bytes.
    pub fn new(file: &Path, bytes: usize) -> Self {
        Self {
            directory: file.parent().map(Path::to_path_buf).unwrap_or_default(),
            left: MAX_INPUT_BYTES.saturating_sub(bytes),
            files: 0,
        }
    }

    fn read_one(&mut self, path: &Path) -> Result<InputFile, String> {
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(format!("there are more than {MAX_FILES} files"));
        }
        let bytes = config_file::read(path, self.left).map_err(|error| match error {
            ReadError::TooLarge { .. } => {
                format!(
                    "with {} there are more than {MAX_INPUT_BYTES} bytes",
                    path.display()
                )
            }
            error => error.of_file_named_in("the file that includes it"),
        })?;
        self.left -= bytes.len().min(self.left);
        Ok(InputFile::new(&path.display().to_string(), &bytes))
    }
}

impl Files for Beside {
    fn read(&mut self, pattern: &str) -> Result<Vec<InputFile>, String> {
        let path = self.directory.join(pattern);
        if !pattern.contains(['*', '?', '[']) {
            return self.read_one(&path).map(|file| vec![file]);
        }
        matching(&path)?.iter().map(|path| self.read_one(path)).collect()
    }
}

/// The files of a directory whose names fit the last part of a pattern. Patterns in the names of directories are refused.
fn matching(pattern: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let (Some(directory), Some(name)) = (pattern.parent(), pattern.file_name()) else {
        return Err("it names no file".to_owned());
    };
    if directory.to_string_lossy().contains(['*', '?', '[']) {
        return Err("only the last part of a path may be a pattern here".to_owned());
    }
    let name: Vec<char> = name.to_string_lossy().chars().collect();
    let entries = directory
        .read_dir()
        .map_err(|error| format!("cannot list {}: {error}", directory.display()))?;
    let mut found = BTreeSet::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("cannot list {}: {error}", directory.display()))?;
        let file: Vec<char> = entry.file_name().to_string_lossy().chars().collect();
        // as in a shell, a hidden file is named or left out
        let is_hidden = file.first() == Some(&'.') && name.first() != Some(&'.');
        if !is_hidden && fits(&name, &file) {
            found.insert(entry.path());
        }
        if found.len() > MAX_FILES {
            return Err(format!("there are more than {MAX_FILES} files"));
        }
    }
    Ok(found)
}

/// Whether a name fits a pattern of `*`, `?` and `[…]`, as glob(7) has them.
fn fits(pattern: &[char], name: &[char]) -> bool {
    let (mut at, mut from) = (0, 0);
    // where the last `*` is, and how much of the name it has taken
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(at) {
            Some('*') => {
                star = Some((at, from));
                at += 1;
                continue;
            }
            None if from == name.len() => return true,
            None => None,
            Some(_) => name.get(from).and_then(|c| one_fits(&pattern[at..], *c)),
        };
        match (step, star) {
            (Some(length), _) => {
                at += length;
                from += 1;
            }
            (None, Some((after, taken))) if taken < name.len() => {
                star = Some((after, taken + 1));
                (at, from) = (after + 1, taken + 1);
            }
            (None, _) => return false,
        }
    }
}

/// How long the beginning of a pattern is that a character fits, if it does.
fn one_fits(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['[', rest @ ..] => {
            let (negated, rest) = match rest {
                ['!' | '^', rest @ ..] => (1, rest),
                rest => (0, rest),
            };
            // a bracket at the beginning stands for itself
            let end = rest.iter().skip(1).position(|c| *c == ']').map(|end| end + 1)?;
            let fits = in_set(&rest[..end], c) != (negated == 1);
            fits.then_some(1 + negated + end + 1)
        }
        [first, ..] => (*first == c).then_some(1),
        [] => None,
    }
}

fn in_set(set: &[char], c: char) -> bool {
    match set {
        [first, '-', last, rest @ ..] => (*first..=*last).contains(&c) || in_set(rest, c),
        [first, rest @ ..] => *first == c || in_set(rest, c),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names_as_in_a_shell() {
        let fit = |pattern: &str, name: &str| {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            fits(&chars(pattern), &chars(name))
        };
        for (pattern, name) in [
            ("*.conf", "a.conf"),
            ("*", ""),
            ("a?c", "abc"),
            ("[0-9][0-9]-*.conf", "10-web.conf"),
            ("[!a]b*", "bbc"),
            ("[]a]", "]"),
            ("*a*b*c", "xxaybzbc"),
        ] {
            assert!(fit(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.conf", "a.conf~"),
            ("a?c", "ac"),
            ("[0-9]-*", "a-b"),
            ("[!a]b", "ab"),
            ("[a", "a"),
            ("", "a"),
        ] {
            assert!(!fit(pattern, name), "{pattern} {name}");
        }
        // what a careless matcher takes for ever for
        assert!(!fit(&"*a".repeat(50), &"a".repeat(40)));
    }

    #[test]
    fn a_pattern_reads_its_files_in_the_order_of_their_names_and_no_more_bytes_than_there_may_be() {
        let directory = tempfile::tempdir().expect("a directory");
        let input = directory.path().join("nginx.conf");
        for name in ["b.conf", "a.conf", ".hidden.conf", "c.txt"] {
            std::fs::write(directory.path().join(name), name).expect("a file");
        }
        let mut files = Beside::new(&input, 0);
        let read = files.read("*.conf").expect("two files");
        assert_eq!(
            read.iter().map(|file| file.text.as_str()).collect::<Vec<_>>(),
            ["a.conf", "b.conf"]
        );
        assert!(
            files
                .read("no-such-file")
                .is_err_and(|why| why.contains("no-such-file"))
        );
        assert!(files.read("*/x").is_err_and(|why| why.contains("last part")));
        let mut full = Beside::new(&input, MAX_INPUT_BYTES - 3);
        assert!(full.read("a.conf").is_err_and(|why| why.contains("more than")));
    }
}
