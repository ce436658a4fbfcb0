//! `convey status --watch` and `convey top` on a terminal: a view that goes on, with keys.

mod model;
mod view;

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};

use super::{
    args::TopArgs,
    client::{Asked, Client},
    outcome::{CommandResult, Failure},
    select::Selection,
};
use crate::{admin::views::Status, base::exit};
use model::{Chosen, Wish};
use view::Picture;

pub use model::Sort;

/// Rows that a page moves by.
const PAGE: isize = 10;

/// Whether somebody is there to look and to press keys.
pub fn has_terminal() -> bool {
    std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
}

/// `convey top`.
pub fn top(args: &TopArgs, client: &Client) -> CommandResult {
    if !has_terminal() {
        return Err(Failure::new(
            exit::USAGE,
            "this is for a terminal: `convey status --watch` prints to others, with --json for programs",
        ));
    }
    let selection = Selection {
        names: &args.names,
        down: false,
    };
    run(
        client,
        Duration::from_secs_f64(args.interval),
        selection,
        Sort::Rate,
    )
}

/// Shows what is selected until somebody leaves. A daemon that goes away is waited for: it may be restarting.
pub fn run(client: &Client, period: Duration, selection: Selection<'_>, sort: Sort) -> CommandResult {
    // one that cannot be reached from the start is an error, as without --watch
    let first = look(client, selection)?;
    let failed =
        |error: std::io::Error| Failure::new(exit::OS_ERROR, format!("cannot use the terminal: {error}"));
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let ended = watch(
        client,
        &mut terminal,
        period,
        selection,
        (first, Chosen::sorted_by(sort)),
    );
    // whatever happened, the shell gets its terminal back
    let restored = ratatui::try_restore();
    ended.map_err(failed)?;
    restored.map_err(failed)?;
    Ok(exit::OK)
}

fn look(client: &Client, selection: Selection<'_>) -> Result<Status, Failure> {
    let answer = client.runtime().block_on(client.ask(Asked::get("/v1/status")))?;
    let mut status: Status = answer.parse()?;
    let selected = selection.apply(&mut status);
    selected.map_err(|problem| Failure::new(exit::USAGE, problem.message))?;
    Ok(status)
}

fn watch(
    client: &Client,
    terminal: &mut DefaultTerminal,
    period: Duration,
    selection: Selection<'_>,
    (mut status, mut chosen): (Status, Chosen),
) -> std::io::Result<()> {
    let mut trouble = None;
    let mut due = Instant::now() + period;
    loop {
        let mut picture: Picture = chosen.picture(&status);
        picture.problems.splice(0..0, trouble.clone());
        terminal.draw(|frame| view::draw(&picture, frame))?;
        // keys are obeyed at once; meanwhile what is shown stays
        if event::poll(due.saturating_duration_since(Instant::now()))? {
            // anything but a key is another size
            if let Event::Key(key) = event::read()?
                && let Some(wish) = wish(key)
                && !chosen.obey(wish)
            {
                return Ok(());
            }
            continue;
        }
        match look(client, selection) {
            Ok(new) => (status, trouble) = (new, None),
            Err(Failure::Told { message, .. }) => {
                trouble = Some(message.lines().next().unwrap_or_default().to_owned());
            }
            Err(Failure::ReaderGone) => return Ok(()),
        }
        due = Instant::now() + period;
    }
}

/// What a key means.
fn wish(key: KeyEvent) -> Option<Wish> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Wish::Quit);
    }
    Some(match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Wish::Quit,
        KeyCode::Up | KeyCode::Char('k') => Wish::Move(-1),
        KeyCode::Down | KeyCode::Char('j') => Wish::Move(1),
        KeyCode::PageUp => Wish::Move(-PAGE),
        KeyCode::PageDown | KeyCode::Char(' ') => Wish::Move(PAGE),
        KeyCode::Home | KeyCode::Char('g') => Wish::First,
        KeyCode::End | KeyCode::Char('G') => Wish::Last,
        KeyCode::Enter | KeyCode::Char('d') => Wish::Detail,
        KeyCode::Char('s') => Wish::Sort,
        KeyCode::Char('r') => Wish::Reverse,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_they_do_elsewhere() {
        for (code, meaning) in [
            (KeyCode::Char('q'), Some(Wish::Quit)),
            (KeyCode::Esc, Some(Wish::Quit)),
            (KeyCode::Down, Some(Wish::Move(1))),
            (KeyCode::Enter, Some(Wish::Detail)),
            (KeyCode::Char('s'), Some(Wish::Sort)),
            (KeyCode::Char('z'), None),
        ] {
            assert_eq!(wish(KeyEvent::new(code, KeyModifiers::NONE)), meaning, "{code:?}");
        }
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(wish(interrupt), Some(Wish::Quit));
    }
}
