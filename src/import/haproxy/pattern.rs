//! Patterns of HAProxy as Convey writes them.

use crate::base::HostPattern;

/// The pattern of host names that means the same as a value with a method of matching.
///
/// # Errors
/// Convey has none that does.
pub fn host(method: &str, value: &str) -> Result<String, String> {
    let quoted = || regex::escape(value);
    let pattern = match method {
        "" | "str" => value.to_owned(),
        "beg" => match value.strip_suffix('.') {
            Some(_) => format!("{value}*"),
            None => format!("~^{}", quoted()),
        },
        "end" => match value.strip_prefix('.') {
            Some(_) => format!("*{value}"),
            None => format!("~{}$", quoted()),
        },
        "dom" => format!(r"~(^|\.){}(\.|$)", quoted()),
        "sub" => format!("~{}", quoted()),
        "reg" => format!("~{value}"),
        method => return Err(format!("names are matched by `-m {method}`")),
    };
    match pattern.parse::<HostPattern>() {
        Ok(_) => Ok(pattern),
        Err(why) => Err(format!("`{value}` cannot be matched here: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_matching_means_the_same_names() {
        for (method, value, yes, no) in [
            ("", "a.example", "a.example", "b.a.example"),
            ("end", ".example", "a.example", "example"),
            ("end", "a.example", "ba.example", "a.example.org"),
            ("beg", "www.", "www.example", "xwww.example"),
            ("beg", "www", "www2.example", "a.www"),
            ("sub", "shop", "my-shop.example", "sho.p"),
            ("dom", "shop", "a.shop.example", "a.shops.example"),
            ("reg", r"^s[0-9]+\.", "s12.example", "s.example"),
        ] {
            let pattern = host(method, value).expect(value);
            let pattern: HostPattern = pattern.parse().expect(value);
            assert!(pattern.matches(yes), "{method} {value} {yes}");
            assert!(!pattern.matches(no), "{method} {value} {no}");
        }
        assert!(host("len", "3").is_err());
        assert!(host("reg", "(").is_err());
    }
}
