//! The grammar, 0.3.5's command lines among it.

use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_line_of_0_3_5_is_understood() {
    let file = Some(PathBuf::from("a.toml"));
    for (line, config, mode) in [
        ("convey", None, None),
        ("convey --config=a.toml", file.clone(), None),
        ("convey --config a.toml", file.clone(), None),
        ("convey -p", None, Some(Mode::Passthrough)),
        ("convey --passthrough", None, Some(Mode::Passthrough)),
        ("convey -d", None, Some(Mode::Dsr)),
        ("convey --dsr", None, Some(Mode::Dsr)),
        ("convey -p --config=a.toml", file.clone(), Some(Mode::Passthrough)),
        (
            "convey --passthrough --config=a.toml",
            file.clone(),
            Some(Mode::Passthrough),
        ),
        ("convey -d --config=a.toml", file.clone(), Some(Mode::Dsr)),
        ("convey --config=a.toml --dsr", file.clone(), Some(Mode::Dsr)),
    ] {
        let cli = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(cli.config, config, "{line}");
        assert_eq!(cli.mode.options().default_mode, mode, "{line}");
        assert!(cli.command.is_none(), "{line}");
    }
    for line in ["convey -h", "convey --help"] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{line}");
    }
    for line in ["convey -v", "convey --version"] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), clap::error::ErrorKind::DisplayVersion, "{line}");
        assert_eq!(error.to_string(), "convey 1.0.0-dev\n");
    }
}

#[test]
fn one_mode_at_a_time() {
    assert!(parse("convey -p -d").is_err());
    assert!(parse("convey check -p -d").is_err());
}

#[test]
fn the_configuration_may_be_named_before_or_after_the_subcommand() {
    for line in [
        "convey -c a.toml status",
        "convey status -c a.toml",
        "convey check --config=a.toml",
    ] {
        assert_eq!(parse(line).expect(line).config, Some("a.toml".into()), "{line}");
    }
    assert!(
        parse("convey check a.toml -c b.toml").is_err(),
        "which of the two?"
    );
}

#[test]
fn watch_takes_an_interval_only_with_an_equals_sign() {
    let watch = |line: &str| match parse(line).map(|cli| cli.command) {
        Ok(Some(Command::Status(args))) => args.watch,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(watch("convey status"), None);
    assert_eq!(watch("convey status --watch"), Some(1.0));
    assert_eq!(watch("convey status --watch=0.5"), Some(0.5));
    for line in [
        "convey status --watch=0",
        "convey status --watch=x",
        "convey status --watch=NaN",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}
